"""Redis and Milvus go away while questions are answered, and come back."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import RedisProcess, free_port, wait_until
from served import KEYS, PER_MINUTE, PROGRAM, Served, listens, serving
from talking import MINOR, Client, only, said, scripted

BOUND_SECONDS = 6.0
MILVUS_SECONDS = 60.0


@contextmanager
def away(redis: RedisProcess, guarded: Served) -> Iterator[None]:
    """End Redis while the block lasts; afterwards return when it is used again."""
    redis.stop()
    try:
        yield
    finally:
        redis.start()
        with guarded.client(Authorization=f"Bearer {KEYS[0]}") as client:
            wait_until(lambda: client.get("/readyz").json()["dependencies"]["redis"] == "ok")
            wait_until(lambda: not anew(guarded)["answer"]["degraded"])


def anew(guarded: Served) -> dict[str, dict[str, object]]:
    """Return a reply to a client that no limit has counted yet."""
    with guarded.client(Authorization=f"Bearer {KEYS[0]}") as client:
        return client.reply(MINOR, model="extractive")


def test_without_redis_answers_go_on_degraded_and_recover_by_themselves(
    guarded: Served, owner: Client, server_redis: RedisProcess
) -> None:
    before = owner.reply(MINOR, model="extractive")
    assert before["answer"]["degraded"] is False
    with away(server_redis, guarded):
        began = time.monotonic()
        lost = owner.reply("그럼 서류는요?", model="extractive", session_id=before["session_id"])
        assert lost["answer"]["degraded"] is True
        assert lost["session_id"] == before["session_id"]
        fresh = owner.ask(MINOR, model="extractive")
        assert (only(fresh, "answer")["kind"], only(fresh, "answer")["degraded"]) == ("answered", True)
        assert time.monotonic() - began < BOUND_SECONDS
        ready = owner.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        assert ready.json()["dependencies"]["redis"] == "store_unavailable"
        for method, path in (("GET", f"/api/sessions/{before['session_id']}"), ("GET", "/api/sessions")):
            response = owner.request(method, path)
            assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
            assert "Redis" in response.json()["error"]["message"]
        rated = owner.post("/api/feedback", json={"run_id": before["run_id"], "score": 1})
        assert rated.status_code == 503
    after = anew(guarded)
    assert after["answer"]["degraded"] is False
    assert [turn["question"] for turn in owner.turns(str(after["session_id"]))] == [MINOR]


def test_redis_that_is_lost_in_the_middle_of_an_answer_does_not_end_it(
    guarded: Served, owner: Client, server_redis: RedisProcess
) -> None:
    text = "하나 " * 60
    with owner.chat(**scripted(owner, text)) as events:
        first = [next(events) for _ in range(9)]
        with away(server_redis, guarded):
            whole = [*first, *events]
    assert said(whole) == text.rstrip()
    assert whole[-1].name == "done"


def test_limits_hold_in_the_process_while_redis_is_away(guarded: Served, server_redis: RedisProcess) -> None:
    with away(server_redis, guarded), guarded.client(Authorization=f"Bearer {KEYS[0]}") as client:
        began = time.monotonic()
        found = [client.post("/api/feedback", content=b"x") for _ in range(PER_MINUTE + 1)]
        assert [response.status_code for response in found] == [422] * PER_MINUTE + [429]
        assert 1 <= int(found[-1].headers["retry-after"]) <= 60
        assert time.monotonic() - began < BOUND_SECONDS


def test_redis_that_hangs_holds_no_answer_up(guarded: Served, owner: Client, server_redis: RedisProcess) -> None:
    with frozen(server_redis):
        began = time.monotonic()
        reply = owner.reply(MINOR, model="extractive")
        assert (reply["answer"]["kind"], reply["answer"]["degraded"]) == ("answered", True)
        assert time.monotonic() - began < BOUND_SECONDS
    wait_until(lambda: not anew(guarded)["answer"]["degraded"])


@contextmanager
def frozen(redis: RedisProcess) -> Iterator[None]:
    """Let Redis take connections and say nothing."""
    redis.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        redis.signal(signal.SIGCONT)


@contextmanager
def milvus(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a Milvus Lite folder until the block ends."""
    command = [str(Path(PROGRAM).parent / "milvus-lite"), "server", "--data-dir", str(folder)]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(lambda: listens(port), MILVUS_SECONDS)
            yield process
        finally:
            process.kill()
            process.wait(timeout=10)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_milvus_the_api_says_so_and_recovers_by_itself(indexed_dir: Path, tmp_path: Path) -> None:
    port = free_port()
    settings = {"MILVUS__URI": f"http://127.0.0.1:{port}", "MILVUS__TIMEOUT_SECONDS": "2", "LIMITS__PER_MINUTE": "0"}
    folder = Path(shutil.copytree(indexed_dir / "milvus.db", tmp_path / "milvus"))
    with ExitStack() as stack:
        server = stack.enter_context(milvus(folder, port))
        served = stack.enter_context(serving(tmp_path / "served", indexed_dir, **settings))
        client = stack.enter_context(served.start().client())
        assert client.reply(MINOR)["answer"]["kind"] == "answered"
        server.kill()
        server.wait(timeout=10)
        wait_until(lambda: client.get("/readyz").status_code == 503, 30.0)
        assert client.get("/readyz").json() == {"ready": False, "dependencies": {"milvus": "store_unavailable"}}
        began = time.monotonic()
        for response in (
            client.post("/api/chat", json={"question": MINOR}),
            client.post("/api/chat?stream=false", json={"question": MINOR}),
            client.get("/api/search", params={"q": "정산"}),
            client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": MINOR}]}),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
            assert "Milvus" in response.json()["error"]["message"]
        assert time.monotonic() - began < 4 * BOUND_SECONDS
        assert client.get("/healthz").status_code == 200
        stack.enter_context(milvus(folder, port))
        wait_until(lambda: client.get("/readyz").status_code == 200, MILVUS_SECONDS)
        assert client.reply(MINOR)["answer"]["kind"] == "answered"
