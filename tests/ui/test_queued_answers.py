"""Answers of `smartstore worker answer` processes through two `smartstore serve --only api` processes.

RabbitMQ, Redis, Milvus and all of the program are real; the model is scripted, and says 100 tokens a second.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from brokers import RabbitProcess
from conftest import ModelServer, RedisProcess, free_port, wait_until
from served import PROGRAM, Served, listens, scripted_model
from talking import MINOR, Client, Event, only, said, scripted

START_SECONDS, END_SECONDS = 90.0, 40.0
LONG = "가나다 " * 150  # 1.5 s
LONGEST = "가나다 " * 450
AT_ONCE, MAX_WAITING = 2, 3  # of a worker, and in the queue

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass
class Worker:
    """A `smartstore worker answer`; its stderr is kept in files."""

    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    _logs: list[Path] = field(default_factory=list)

    def launch(self) -> None:
        """Start it where it does not run."""
        if self.process is not None and self.process.poll() is None:
            return
        self._logs.append(self.folder / f"{len(self._logs)}.log")
        with self._logs[-1].open("wb") as stderr:
            self.process = subprocess.Popen(
                [PROGRAM, "worker", "answer"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    def start(self) -> "Worker":
        """Start it where it does not run, and return it when it works."""
        self.launch()
        wait_until(lambda: self.works or not self.lives, START_SECONDS)
        assert self.lives, self.log()
        return self

    @property
    def works(self) -> bool:
        return self.lives and '"worker ready"' in self.log()

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=END_SECONDS)

    def log(self) -> str:
        return self._logs[-1].read_text(encoding="utf-8")


@dataclass(frozen=True)
class Fleet:
    """Two doors, two workers, and the model behind them."""

    doors: list[Served]
    workers: list[Worker]
    model: ModelServer

    def whole(self) -> None:
        """Start again what a test ended, and return when all of it works."""
        for worker in self.workers:
            worker.start()

    def disconnected(self) -> int:
        """Return how many answers of the model were broken off."""
        return int(json.loads(self.model.get("/stub/stats")).get("disconnected", 0))


@contextmanager
def milvus_of(folder: Path) -> Iterator[str]:
    """Yield the address of a `milvus-lite server` of a folder."""
    port = free_port()
    command = [Path(PROGRAM).parent / "milvus-lite", "server", "--data-dir", folder, "--host", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(lambda: listens(port), START_SECONDS)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait(timeout=END_SECONDS)


@pytest.fixture(scope="module")
def all_of_it(indexed_dir: Path, rabbit: RabbitProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Start every process, all at once: each start keeps a core busy for seconds."""
    folder = tmp_path_factory.mktemp("queued")
    redis = RedisProcess()
    redis.start()
    with ExitStack() as stack:
        stack.callback(redis.stop)
        model = stack.enter_context(scripted_model("--ttft-ms", "20", "--token-ms", "10", "--tokens", "20"))
        milvus = stack.enter_context(milvus_of(Path(shutil.copytree(indexed_dir / "milvus.db", folder / "milvus"))))
        shared = {
            "SMARTSTORE_MILVUS__URI": milvus,
            "SMARTSTORE_REDIS__URL": redis.url,
            "SMARTSTORE_RABBITMQ__URL": rabbit.url,
            "SMARTSTORE_RABBITMQ__PREFIX": f"queued-{os.getpid()}",
            "SMARTSTORE_RABBITMQ__MAX_ANSWERS": str(MAX_WAITING),
            "SMARTSTORE_CACHE__ENABLED": "false",
        }
        workers, doors = [], []
        for number in range(2):
            home = folder / f"worker-{number}"
            home.mkdir()
            own = {
                "PATH": os.defpath,
                "HOME": str(home),
                "LANG": "C.UTF-8",
                "SMARTSTORE_DATA_DIR": str(home / "data"),
                "OPENAI_API_KEY": "sk-secret-of-the-tests",
                "OPENAI_BASE_URL": model.url,
                "SMARTSTORE_OPENAI__MODEL": "stub",
                "SMARTSTORE_LIMITS__MAX_RUNS": str(AT_ONCE),
            }
            workers.append(Worker(home, own | shared))
            workers[-1].launch()
        for number in range(2):
            home = folder / f"door-{number}"
            home.mkdir()
            queue = {
                "SMARTSTORE_ANSWERS": "queue",
                "SMARTSTORE_LIMITS__PER_MINUTE": "0",
                "SMARTSTORE_STREAM__GRACE_SECONDS": "0.5",
            }
            doors.append(Served(home, shared | queue, ("--only", "api")))
            doors[-1].launch()
        for process in (*doors, *workers):
            process.start()
        try:
            yield Fleet(doors, workers, model)
            logs = [*(worker.log() for worker in workers), *(door.log() for door in doors)]
            assert [log for log in logs if "Traceback" in log or '"level": "error"' in log] == []
        finally:
            for door in doors:
                door.end()
            for worker in workers:
                if worker.lives:
                    worker.end(signal.SIGKILL)


@pytest.fixture
def fleet(all_of_it: Fleet) -> Fleet:
    """Return everything; of the workers one may still be starting."""
    for worker in all_of_it.workers:
        worker.launch()
    wait_until(lambda: any(worker.works for worker in all_of_it.workers), START_SECONDS)
    return all_of_it


@pytest.fixture
def client(fleet: Fleet) -> Iterator[Client]:
    """Return a client of the first door."""
    with fleet.doors[0].client() as opened:
        yield opened


@pytest.fixture
def other(fleet: Fleet) -> Iterator[Client]:
    """Return a client of the other door."""
    with fleet.doors[1].client() as opened:
        yield opened


@dataclass
class Timed:
    """The events of an answer, and when each came."""

    events: list[Event]
    times: list[float]

    @property
    def restarts(self) -> int:
        return sum(event.name == "restart" for event in self.events)

    @property
    def failed(self) -> bool:
        return any(event.name == "error" for event in self.events)


def asked(client: Client, body: dict[str, Any]) -> Timed:
    """Ask, and return the events as they came."""
    found = Timed([], [])
    with client.chat(**body) as events:
        for event in events:
            found.events.append(event)
            found.times.append(time.monotonic())
    return found


@contextmanager
def asking(*bodies: tuple[Client, dict[str, Any]]) -> Iterator[list[Future[Timed]]]:
    """Ask all at once in threads."""
    with ThreadPoolExecutor(len(bodies)) as threads:
        yield [threads.submit(asked, client, body) for client, body in bodies]


def speaking(fleet: Fleet, count: int) -> bool:
    return bool(json.loads(fleet.model.get("/stub/stats")).get("live", 0) >= count)


def test_tokens_come_one_by_one_through_the_queue(fleet: Fleet, client: Client) -> None:
    found = asked(client, scripted(client, LONG))
    assert found.events[0].name == "started"
    assert found.events[0].data["model"] == "stub"  # the door has no key and no model
    assert [event.id for event in found.events] == list(range(1, len(found.events) + 1))
    assert said(found.events).split() == LONG.split()
    assert only(found.events, "answer")["text"] == said(found.events)
    tokens = [when for event, when in zip(found.events, found.times, strict=True) if event.name == "token"]
    assert len(tokens) > 10
    assert tokens[-1] - tokens[0] > 1.0
    assert max(after - before for before, after in itertools.pairwise(tokens)) < 0.7  # not in lumps


def test_killed_worker_costs_a_restart_and_no_answer(fleet: Fleet, client: Client, other: Client) -> None:
    fleet.whole()
    body = scripted(client, LONG)
    with asking((client, body), (other, body), (client, body)) as answers:  # a worker takes two at most
        wait_until(lambda: speaking(fleet, 3))
        killed_at = time.monotonic()
        fleet.workers[0].end(signal.SIGKILL)
        found = [answer.result() for answer in answers]
    assert 1 <= sum(one.restarts for one in found) <= AT_ONCE
    for one in found:
        assert not one.failed
        assert said(one.events).split() == LONG.split()
        assert only(one.events, "answer")["text"] == said(one.events)
        assert [event.id for event in one.events] == sorted({event.id for event in one.events})
        if one.restarts:
            again = [event.name for event in one.events].index("restart")
            spoke = next(place for place, event in enumerate(one.events) if event.name == "token" and place > again)
            assert one.times[spoke] - killed_at < 5.0


def test_worker_that_is_told_to_end_finishes_its_answer(fleet: Fleet, client: Client, other: Client) -> None:
    fleet.whole()
    body = scripted(client, LONG)
    with asking((client, body), (other, body)) as answers:
        wait_until(lambda: speaking(fleet, 2))
        assert fleet.workers[1].end(signal.SIGTERM) == 0
        found = [answer.result() for answer in answers]
    assert [(one.restarts, one.failed) for one in found] == [(0, False)] * 2
    assert '"worker ended"' in fleet.workers[1].log()


def test_client_that_leaves_stops_the_model_in_the_worker(fleet: Fleet, client: Client) -> None:
    before = fleet.disconnected()
    with client.chat(**scripted(client, LONGEST)) as events:
        for event in events:
            if event.name == "token":
                break
    wait_until(lambda: fleet.disconnected() == before + 1, 4.0)


def test_run_is_stopped_through_another_door(fleet: Fleet, client: Client, other: Client) -> None:
    before = fleet.disconnected()
    with client.chat(**scripted(client, LONGEST)) as events:
        began = next(events)
        assert other.delete(f"/api/runs/{began.data['run_id']}").status_code == 204
        found = list(events)
    assert only(found, "error")["code"] == "cancelled"
    assert found[-1].name == "done"
    wait_until(lambda: fleet.disconnected() == before + 1, 4.0)


def test_stream_goes_on_at_another_door(fleet: Fleet, client: Client, other: Client) -> None:
    seen: list[Event] = []
    with client.chat(**scripted(client, LONG)) as events:
        for event in events:
            seen.append(event)
            if len(seen) == 12:
                break
    rest = other.resume(seen[0].data["run_id"], after=seen[-1].id)  # the first door's grace ends meanwhile
    assert [event.id for event in seen + rest] == list(range(1, len(seen + rest) + 1))
    assert said(seen + rest).split() == LONG.split()
    assert other.resume(seen[0].data["run_id"]) == seen + rest


def test_run_that_nobody_knows_is_not_found(client: Client) -> None:
    for response in (client.get("/api/runs/none/events"), client.delete("/api/runs/none")):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_conversation_goes_on_whichever_worker_answers(client: Client, other: Client) -> None:
    first = client.ask(MINOR)
    session_id = first[0].data["session_id"]
    offered = only(first, "suggestions")[0]["faq_id"]
    second = other.ask("", session_id=session_id, faq_id=offered)
    assert only(second, "sources")[0]["id"] == offered
    third = client.ask("그럼 서류는요?", session_id=session_id)
    assert third[0].data["session_id"] == session_id
    assert len(other.turns(session_id)) == 3


def test_what_a_door_can_check_it_refuses_itself(client: Client) -> None:
    for body, status, code in (
        ({"question": MINOR, "faq_id": "none"}, 404, "not_found"),
        ({"question": MINOR, "model": "none"}, 404, "model_not_found"),
        ({"question": MINOR, "session_id": "none"}, 404, "not_found"),
        ({"question": "?"}, 422, "invalid_request"),
    ):
        response = client.post("/api/chat", json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_openai_clients_are_answered_by_the_workers(fleet: Fleet, client: Client) -> None:
    messages = [
        {"role": "user", "content": MINOR},
        {"role": "assistant", "content": "네, 등록할 수 있습니다."},
        {"role": "user", "content": f"{MINOR} [[reply: 넷 다섯]]"},
    ]
    response = client.post("/v1/chat/completions", json={"messages": messages})
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"].startswith("넷 다섯")


def test_more_questions_than_may_wait_are_refused_with_a_time(fleet: Fleet, client: Client) -> None:
    fleet.whole()
    body = scripted(client, LONG)
    doors = [fleet.doors[0].client() for _ in range(AT_ONCE * len(fleet.workers) + 3 * MAX_WAITING)]

    def ask(door: Client) -> httpx.Response:
        with door:
            return door.post("/api/chat", json=body)

    with ThreadPoolExecutor(len(doors)) as threads:
        answers = [threads.submit(ask, door) for door in doors]
        wait_until(lambda: client.metric("smartstore_queue_waiting", queue="answers") >= MAX_WAITING)
        refused = client.post("/api/chat", json=body)
        statuses = [answer.result().status_code for answer in answers]
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert int(refused.headers["Retry-After"]) > 0
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= AT_ONCE * len(fleet.workers)


def test_doors_tell_whether_the_queue_is_there(client: Client) -> None:
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["dependencies"] == {"milvus": "ok", "redis": "ok", "rabbitmq": "ok"}
    assert client.metric("smartstore_queue_waiting", queue="answers") == 0.0


def test_batch_is_answered_by_the_workers_and_goes_on_where_it_was_broken_off(fleet: Fleet, tmp_path: Path) -> None:
    questions, output = tmp_path / "questions.txt", tmp_path / "answers.jsonl"
    lines = [MINOR, "", json.dumps({"id": "둘", "question": "정산은 언제 되나요?"}), "배송비는 누가 내나요?", "?"]
    questions.write_text("\n".join(lines), encoding="utf-8")
    kept = json.dumps({"id": "4", "question": "배송비는 누가 내나요?", "answer": {"text": "전에 받은 답"}})
    failed = json.dumps({"id": "1", "question": MINOR, "error": {"code": "unavailable"}})
    output.write_text(f'{failed}\n{kept}\n{{"id": "둘", "quest', encoding="utf-8")

    done = fleet.doors[0].run("ask", "--batch", questions, "--output", output)
    assert done.returncode == 1, done.stderr
    assert "4건 가운데 3건에 답했습니다" in done.stderr
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert found[0] == json.loads(kept)
    by_id = {line["id"]: line for line in found[1:]}
    assert by_id.keys() == {"1", "둘", "5"}
    assert [by_id[name]["answer"]["model"] for name in ("1", "둘")] == ["stub", "stub"]
    assert by_id["5"]["error"]["code"] == "invalid_request"
