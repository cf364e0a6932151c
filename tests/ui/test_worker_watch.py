"""What a worker tells on its port, asked over HTTP while a real queue is worked on."""

import asyncio
import signal
from pathlib import Path

import httpx
import pytest
from conftest import free_port, settings_for

from smartstore_indexing.errors import InvalidRequest, Misconfigured, StoreUnavailable
from smartstore_indexing.opening import opened_queues
from smartstore_indexing.queues import INDEX, INDEX_REQUESTED, Delivery
from smartstore_indexing.setting_groups import WorkerSettings
from smartstore_ui.metrics import Metrics
from smartstore_ui.worker_watch import Checks, watchable


async def lives() -> None:
    pass


async def is_away() -> None:
    raise StoreUnavailable("Milvus에 연결할 수 없습니다.")


async def got(settings: WorkerSettings, path: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        while True:
            try:
                return await client.get(f"http://127.0.0.1:{settings.port}{path}")
            except httpx.ConnectError:  # it begins to listen beside us
                await asyncio.sleep(0.02)


async def asked(path: str, checks: Checks, metrics: Metrics | None = None) -> httpx.Response:
    settings = WorkerSettings(port=free_port())
    async with watchable(settings, metrics or Metrics(), checks):
        return await got(settings, path)


async def test_worker_whose_dependencies_answer_is_ready() -> None:
    response = await asked("/readyz", {"milvus": lives, "rabbitmq": lives})
    assert (response.status_code, response.json()) == (
        200,
        {"ready": True, "dependencies": {"milvus": "ok", "rabbitmq": "ok"}},
    )


async def test_worker_without_one_of_them_is_alive_and_not_ready() -> None:
    checks: Checks = {"milvus": is_away, "rabbitmq": lives}
    response = await asked("/readyz", checks)
    assert (response.status_code, response.json()["dependencies"]) == (
        503,
        {"milvus": "store_unavailable", "rabbitmq": "ok"},
    )
    assert (await asked("/healthz", checks)).status_code == 200


async def test_messages_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    async def handle(delivery: Delivery) -> None:
        if delivery.body == b"broken":
            raise InvalidRequest("색인 요청이 아닙니다.")
        if delivery.message_id == "3" and delivery.attempt == 1:
            raise StoreUnavailable("Milvus에 연결할 수 없습니다.")
        if delivery.message_id == "3":
            stopping.set()

    metrics, stopping = Metrics(), asyncio.Event()
    async with opened_queues(settings_for(tmp_path), settled=metrics.settled) as queues:
        for number, body in enumerate([b"whole", b"broken", b"whole"], start=1):
            await queues.publish(INDEX_REQUESTED, body, message_id=str(number))
        await queues.consume(INDEX, handle, prefetch=2, stopping=stopping, drain_seconds=5)
    told = (await asked("/metrics", {}, metrics)).text
    for outcome, count in (("done", 2.0), ("retry", 1.0), ("dead", 1.0)):
        assert f'smartstore_messages_total{{outcome="{outcome}",queue="index"}} {count}' in told


async def test_nothing_listens_where_no_port_is_set() -> None:
    before = {task.get_name() for task in asyncio.all_tasks()}
    async with watchable(WorkerSettings(), Metrics(), {}):
        assert {task.get_name() for task in asyncio.all_tasks()} == before


async def test_port_in_use_is_said() -> None:
    settings = WorkerSettings(port=free_port())
    async with watchable(settings, Metrics(), {}):
        await got(settings, "/healthz")
        with pytest.raises(Misconfigured, match="SMARTSTORE_WORKER__PORT"):
            async with watchable(settings, Metrics(), {}):
                pass


async def test_signals_stay_the_workers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    settings = WorkerSettings(port=free_port())
    async with watchable(settings, Metrics(), {}):
        await got(settings, "/healthz")
        assert signal.getsignal(signal.SIGTERM) is before
