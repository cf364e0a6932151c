"""The whole of compose.yaml as processes of this machine: a question, a reindex, and a stop that cuts nobody off."""

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import pytest
from composing import roles
from conftest import wait_until
from page_sockets import connected, cookies_of
from talking import Client, Event, only, said
from topology import Topology, composed
from users import LINK, Crowd, crowd_at_the_api, crowd_at_the_page
from workers import edition

# Eight processes take two cores a minute to start.
pytestmark = [pytest.mark.long, pytest.mark.slow]
RECOVERY_SECONDS = 30.0
BEFORE_SECONDS, AFTER_SECONDS = 4.0, 3.0  # in which everybody asks once and again
LONG = "가나다 " * 200  # 2 s of the scripted model
STAYING = ("api", "chat", "answer-worker", "index-worker")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    folder = tmp_path_factory.mktemp("topology")
    sources = folder / "sources"
    sources.mkdir()
    with composed(folder, edition(sources, 0)) as found:
        yield found


@pytest.fixture
def running(everything: Topology) -> Topology:
    """Return the topology, what another test has ended started again."""
    for name in STAYING:
        everything.processes[name].launch()
    everything.until_healthy(*STAYING)
    return everything


@pytest.fixture
def client(running: Topology) -> Iterator[Client]:
    with running.client(Authorization=f"Bearer {running.key}") as opened:
        yield opened


def faq_of(client: Client, words: str = "정산 관리는 언제 되나요?") -> dict[str, Any]:
    found = client.get("/api/search", params={"q": words, "k": 1})
    assert found.status_code == 200, found.text
    first: dict[str, Any] = found.json()["results"][0]
    return first


def spoken(answer: list[Event]) -> tuple[str, int]:
    """Return what an answer says, and how many errors and restarts it has."""
    return said(answer), sum(event.name in ("error", "restart") for event in answer)


def test_question_is_answered_through_the_queue(client: Client, running: Topology) -> None:
    faq = faq_of(client)
    answer = client.ask("알려 주세요 [[reply: 정산은 메뉴에서 봅니다 [1].]]", faq_id=faq["id"])

    assert answer[0].data["model"] == "stub"
    assert only(answer, "sources")[0]["id"] == faq["id"]
    assert only(answer, "answer")["text"] == "정산은 메뉴에서 봅니다 [1]."
    assert len(client.turns(answer[0].data["session_id"])) == 1
    with Client(running.url("answer-worker")) as worker:
        assert worker.metric("smartstore_messages_total", queue="answers", outcome="done") >= 1


async def test_page_is_answered_through_the_queue(running: Topology) -> None:
    url = running.url("chat")
    cookies = await asyncio.to_thread(cookies_of, url)
    async with connected(url, cookies) as socket:
        await socket.ask("정산 관리는 언제 되나요? [[reply: 화면의 답입니다 [1].]]")

    (answer,) = socket.steps("assistant_message")
    assert answer["output"].startswith("화면의 답입니다")
    assert list((running.folder / "chat" / "data").glob("*.sqlite3")) == []  # what was said is in PostgreSQL


def test_reindex_by_the_api_changes_what_is_answered(client: Client, running: Topology) -> None:
    question = "정산 관리는 언제 되나요?"
    shutil.copyfile(edition(running.folder, int(time.time())), running.faq)
    number = json.loads(running.faq.read_text(encoding="utf-8").splitlines()[0])["answer"].partition("판")[0]
    accepted = client.post("/api/index", json={})
    assert accepted.status_code == 202, accepted.text
    job = accepted.headers["location"]
    wait_until(lambda: client.get(job).json()["state"] in ("succeeded", "failed"), 60)

    assert client.get(job).json()["state"] == "succeeded"
    wait_until(lambda: client.reply(question, model="extractive")["answer"]["text"].startswith(f"{number}판"), 20)


def test_operators_routes_ask_for_the_key(running: Topology) -> None:
    with running.client() as stranger:
        assert stranger.post("/api/index", json={}).status_code == 401


def test_nothing_is_written_but_below_data_and_tmp(running: Topology) -> None:
    for name in roles({"services": running.services}):
        written = {path.name for path in (running.folder / name).iterdir() if path.suffix != ".log"}
        assert (name, written) == (name, {"data", "tmp"})


def test_stopping_everything_cuts_no_answer_off(client: Client, running: Topology) -> None:
    """Stop as `docker compose stop` does: all roles at once."""
    faq = faq_of(client)["id"]
    url = running.url("chat")
    shutil.copyfile(edition(running.folder, 9), running.faq)

    async def on_the_page() -> str:
        cookies = await asyncio.to_thread(cookies_of, url)
        async with connected(url, cookies) as socket:
            await socket.ask(f"정산 관리는 언제 되나요? [[reply: {LONG}]]")
        (answer,) = socket.steps("assistant_message")
        return str(answer["output"])

    with ThreadPoolExecutor(8) as threads:
        page = threads.submit(asyncio.run, on_the_page())
        answer = threads.submit(client.ask, f"알려 주세요 [[reply: {LONG}]]", faq_id=faq)
        wait_until(lambda: speaking(running) >= 2, 30)
        assert client.post("/api/index", json={}).status_code == 202
        codes = list(threads.map(lambda name: running.processes[name].stop(), STAYING))
        assert page.result().split()[: len(LONG.split())] == LONG.split()
        text, troubles = spoken(answer.result())

    assert codes == [0, 0, 0, 0]
    assert (text.split(), troubles) == (LONG.split(), 0)
    assert [name for name in STAYING if "Traceback" in running.processes[name].log()] == []
    assert not any(running.healthy(name) for name in STAYING)


def speaking(running: Topology) -> int:
    return int(json.loads(running.model.get("/stub/stats")).get("live", 0))


def killed_while_they_ask(running: Topology, crowd: Crowd, victim: str) -> float:
    """Kill a process while everybody asks; return how long it took until everybody who asked again was answered."""
    began = time.monotonic()
    wait_until(lambda: crowd.all_answered_since(began), RECOVERY_SECONDS)
    time.sleep(BEFORE_SECONDS)
    killed_at = time.monotonic()
    running.processes[victim].kill()
    wait_until(lambda: crowd.all_answered_since(killed_at), 3 * RECOVERY_SECONDS)
    time.sleep(AFTER_SECONDS)
    return crowd.recovered_at(killed_at) - killed_at


def told(running: Topology, crowd: Crowd, victim: str, seconds: float) -> None:
    """Print what was seen."""
    turns = crowd.turns()
    finished = sum(turn.finished for turn in turns)
    slowest = max(turn.ended - turn.began for turn in turns)
    print(  # noqa: T201  the figures of the run
        f"{victim}: recovered in {seconds:.1f} s; of {len(turns)} questions {finished} answered, "
        f"{len(crowd.cuts())} cut, refused as {sorted(crowd.codes())}, the slowest {slowest:.1f} s, "
        f"started {running.processes[victim].starts} times"
    )


def lost_or_doubled(client: Client, crowd: Crowd) -> list[tuple[str, int]]:
    """Return the questions that were answered to their end and that their conversations do not hold exactly once."""
    found = []
    for user in crowd.users:
        finished = [turn for turn in user.turns if turn.finished and turn.ended]
        for session_id in {turn.session_id for turn in finished}:
            kept = [turn["question"] for turn in client.turns(session_id)]
            asked = [turn.question for turn in finished if turn.session_id == session_id]
            found += [(question, kept.count(question)) for question in asked if kept.count(question) != 1]
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", ["api", "answer-worker", "index-worker", "redis", "rabbitmq", "standalone"])
def test_killed_process_costs_no_answer_that_was_given(client: Client, running: Topology, victim: str) -> None:
    faq = faq_of(client)["id"]
    with crowd_at_the_api(running, faq) as crowd:
        seconds = killed_while_they_ask(running, crowd, victim)
    told(running, crowd, victim, seconds)

    assert crowd.failures == []
    assert crowd.wrong() == []
    assert victim == "api" or crowd.cuts() == []
    assert seconds < RECOVERY_SECONDS
    assert lost_or_doubled(client, crowd) == []
    assert running.processes[victim].starts >= 2


@pytest.mark.timeout(300)
async def test_killed_page_costs_no_answer_that_was_given(running: Topology) -> None:
    with crowd_at_the_page(running) as crowd:
        seconds = await asyncio.to_thread(killed_while_they_ask, running, crowd, "chat")
    told(running, crowd, "chat", seconds)

    assert crowd.failures == []
    assert crowd.wrong() == []
    assert crowd.codes() == set()
    assert seconds < RECOVERY_SECONDS
    kept = {LINK.sub(r"\1", text) for text in await history(running)}
    finished = [turn.told for turn in crowd.turns() if turn.finished]
    assert [text for text in finished if text not in kept] == []


@pytest.mark.timeout(300)
def test_killed_index_worker_finishes_its_reindex(client: Client, running: Topology) -> None:
    shutil.copyfile(edition(running.folder, int(time.time()), rows=100), running.faq)
    job = client.post("/api/index", json={"mode": "full"}).headers["location"]
    wait_until(lambda: client.get(job).json()["state"] == "running", RECOVERY_SECONDS)
    running.processes["index-worker"].kill()
    killed_at = time.monotonic()
    wait_until(lambda: client.get(job).json()["state"] in ("succeeded", "failed"), 3 * RECOVERY_SECONDS)

    assert client.get(job).json()["state"] == "succeeded"
    assert time.monotonic() - killed_at < RECOVERY_SECONDS


@pytest.mark.timeout(300)
@pytest.mark.parametrize("role", ["answer-worker", "api"])
def test_stopping_a_role_lets_its_answer_end(client: Client, running: Topology, role: str) -> None:
    faq = faq_of(client)["id"]
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.ask, f"알려 주세요 [[reply: {LONG}]]", faq_id=faq)
        wait_until(lambda: speaking(running) >= 1, 30)
        code = running.processes[role].stop()
        text, troubles = spoken(answer.result())

    assert (code, text.split(), troubles) == (0, LONG.split(), 0)


async def history(running: Topology) -> set[str]:
    """Return the answers that PostgreSQL keeps for the page."""
    connection = await asyncpg.connect(f"postgresql://smartstore@127.0.0.1:{running.ports['postgres']}/smartstore")
    try:
        return {row["output"] for row in await connection.fetch("SELECT output FROM page_steps")}
    finally:
        await connection.close()
