"""Index jobs through RabbitMQ as the API of one process tells them: its own, and those that others asked for."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from brokers import Proxy, RabbitProcess, by_way_of
from conftest import wait_until
from milvuses import MilvusProcess
from pydantic import SecretStr
from served import serving
from talking import Client
from workers import Shared, edition, sharing, working

from smartstore_indexing.opening import opened_queues
from smartstore_indexing.setting_groups import RabbitMQSettings
from smartstore_indexing.wiring import opened_builder
from smartstore_ui.api.index_jobs import IndexJobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
T = TypeVar("T")
QUESTION = "정산 내역은 언제 되나요?"


@dataclass
class Seen:
    """What the API told."""

    ready: dict[str, Any] = field(default_factory=dict)
    waiting: dict[str, Any] = field(default_factory=dict)
    events: str = ""
    done: dict[str, Any] = field(default_factory=dict)
    others_job: dict[str, Any] = field(default_factory=dict)
    snippet: str = ""
    away: httpx.Response | None = None
    not_ready: httpx.Response | None = None
    back: int = 0


@asynccontextmanager
async def api(shared: Shared, folder: Path, indexed: Path) -> AsyncIterator[Client]:
    """Yield a client of a server that shares the queues and the collections."""
    names = {name.removeprefix("SMARTSTORE_"): of for name, of in shared.environment.items() if "SMARTSTORE_" in name}
    del names["SMARTSTORE_DATA_DIR".removeprefix("SMARTSTORE_")]
    with ExitStack() as stack:
        served = stack.enter_context(
            serving(folder, indexed, "--only", "api", **names, LIMITS__PER_MINUTE="0", RABBITMQ__TIMEOUT_SECONDS="1")
        )
        await asyncio.to_thread(served.start)
        yield stack.enter_context(served.client())


@pytest.fixture(scope="module")
async def seen(
    rabbit: RabbitProcess, milvus: MilvusProcess, indexed_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Seen:
    """Ask a server that works on nothing itself, and another process beside it."""
    folder, seen = tmp_path_factory.mktemp("sharing"), Seen()
    direct = RabbitMQSettings(url=SecretStr(rabbit.url), prefix=f"test-{secrets.token_hex(8)}")
    async with Proxy(rabbit.port) as proxy:
        shared = sharing(folder, milvus, by_way_of(direct, proxy.port))
        async with opened_builder(shared.settings) as builder:
            await builder.build(shared.settings.faq)
        async with api(shared, folder / "api", indexed_dir) as client:
            await ask(client, shared, seen)
            proxy.refuse()
            seen.away = await asyncio.to_thread(client.post, "/api/index")
            seen.not_ready = await asyncio.to_thread(client.get, "/readyz")
            proxy.flow()

            def flows() -> bool:
                seen.back = client.post("/api/index").status_code
                return seen.back == 202

            await asyncio.to_thread(wait_until, flows, 30.0)
    return seen


async def ask(client: Client, shared: Shared, seen: Seen) -> None:
    def get(path: str) -> dict[str, Any]:
        found: dict[str, Any] = client.get(path).json()
        return found

    async def until(holds: Callable[[], bool]) -> None:
        await asyncio.to_thread(wait_until, holds, 60.0)

    seen.ready = await asyncio.to_thread(get, "/readyz")
    body = {"source": str(edition(shared.folder, 1)), "mode": "full"}
    job = (await asyncio.to_thread(lambda: client.post("/api/index", json=body))).headers["location"]
    seen.waiting = await asyncio.to_thread(get, job)
    async with working(shared), opened_queues(shared.settings) as queues:
        seen.events = await asyncio.to_thread(lambda: client.get(f"{job}/events").text)
        seen.done = await asyncio.to_thread(get, job)
        jobs = IndexJobs(queues)
        async with jobs.open():
            other = await jobs.add(str(edition(shared.folder, 2)), mode="incremental", requested_by="시험")
            theirs = f"/api/index/{other.job_id}"
            await until(lambda: get(theirs).get("state") == "succeeded")
            seen.others_job = await asyncio.to_thread(get, theirs)
        await until(lambda: "2판" in client.get("/api/search", params={"q": QUESTION}).json()["results"][0]["snippet"])


def test_broker_is_among_the_dependencies(seen: Seen) -> None:
    assert seen.ready["dependencies"]["rabbitmq"] == "ok"


def test_job_waits_until_a_worker_takes_it(seen: Seen) -> None:
    assert (seen.waiting["state"], seen.waiting["summary"]) == ("queued", None)
    names = [line.removeprefix("event: ") for line in seen.events.splitlines() if line.startswith("event: ")]
    assert list(dict.fromkeys(names)) == ["queued", "running", "succeeded"]
    assert seen.done["state"] == "succeeded"
    assert seen.done["summary"]["switched"] is True


def test_job_of_another_process_is_told_too(seen: Seen) -> None:
    assert seen.others_job["state"] == "succeeded"
    assert seen.others_job["summary"]["changed"] == seen.others_job["summary"]["faqs"]


def test_without_the_broker_a_request_is_refused_and_questions_are_not(seen: Seen) -> None:
    assert seen.away is not None
    assert seen.not_ready is not None
    assert (seen.away.status_code, seen.away.json()["error"]["code"]) == (503, "store_unavailable")
    assert "RabbitMQ" in seen.away.json()["error"]["message"]
    assert (seen.not_ready.status_code, seen.not_ready.json()["ready"]) == (200, True)
    assert seen.not_ready.json()["dependencies"]["rabbitmq"] == "store_unavailable"


def test_requests_are_taken_again_when_the_broker_is_back(seen: Seen) -> None:
    assert seen.back == 202
