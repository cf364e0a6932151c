"""How long runs are kept, how many, and what a run says that ends in an error nobody foresaw."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from conftest import wait_until

from smartstore_indexing.errors import Overloaded, StoreUnavailable, UnknownResource
from smartstore_indexing.setting_groups import LimitSettings, StreamSettings
from smartstore_ui.api.runs import LiveRun, Runs
from smartstore_ui.metrics import Metrics
from smartstore_workflows import wire
from smartstore_workflows.events import Usage

Events = AsyncGenerator[wire.StreamEvent, None]


@asynccontextmanager
async def runs_of(*, max_runs: int = 10, **stream: float) -> AsyncGenerator[Runs, None]:
    limits = LimitSettings(max_runs=max_runs, queue=0)
    runs = Runs(limits=limits, stream=StreamSettings.model_validate(stream), metrics=Metrics())
    async with runs.open():
        yield runs


async def said(run_id: str, *, failing: Exception | None = None) -> Events:
    started = wire.Started(run_id=run_id, session_id="대화", model="extractive")
    yield wire.StreamEvent(id=1, event="started", data=started)
    yield wire.StreamEvent(id=2, event="token", data=wire.Token(text="하나"))
    if failing is not None:
        raise failing
    yield wire.StreamEvent(id=3, event="done", data=wire.Done(run_id=run_id, timings_ms={}, usage=Usage()))


async def silent(run_id: str) -> Events:
    async for event in said(run_id):
        yield event
        await asyncio.Event().wait()


async def ended(runs: Runs, events: Events) -> LiveRun:
    run = await runs.start(events, "요청")
    async for _ in runs.follow(run):
        pass
    return run


def test_runs_are_kept_for_ten_minutes_and_quiet_streams_say_something_every_15_seconds() -> None:
    assert (StreamSettings().keep_seconds, StreamSettings().heartbeat_seconds) == (600, 15)


async def test_run_is_dropped_when_its_time_is_over() -> None:
    async with runs_of(keep_seconds=0.2) as runs:
        await ended(runs, said("하나"))
        assert runs.get("하나").ended
        live = await runs.start(silent("둘"), "요청")

        def gone() -> bool:
            try:
                runs.get("하나")
            except UnknownResource:
                return True
            return False

        await asyncio.to_thread(wait_until, gone)
        assert runs.get("둘") is live
        live.stop()


async def test_oldest_ended_runs_are_dropped_beyond_the_bound() -> None:
    async with runs_of(keep_runs=2, max_runs=20) as runs:
        live = await runs.start(silent("산 것"), "요청")
        for number in range(5):
            await ended(runs, said(str(number)))
        assert [runs.get(name).run_id for name in ("3", "4", "산 것")] == ["3", "4", "산 것"]
        for name in ("0", "1", "2"):
            with pytest.raises(UnknownResource):
                runs.get(name)
        live.stop()


@pytest.mark.parametrize(
    ("failing", "code"), [(RuntimeError("비밀"), "internal"), (StoreUnavailable("벡터 저장소"), "store_unavailable")]
)
async def test_run_that_fails_says_so_and_nothing_of_the_exception(failing: Exception, code: str) -> None:
    async with runs_of() as runs:
        run = await ended(runs, said("하나", failing=failing))
    assert [frame.event for frame in run.frames] == ["started", "token", "error", "done"]
    assert [frame.id for frame in run.frames] == [1, 2, 3, 4]
    failure = run.gathered.failure
    assert failure is not None
    assert (failure.code, failure.request_id) == (code, "요청")
    assert "비밀" not in failure.message


async def test_place_of_a_run_is_free_again_however_it_ended() -> None:
    async def never_begun() -> Events:
        raise StoreUnavailable("벡터 저장소")
        yield

    async with runs_of(max_runs=1) as runs:
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await runs.start(never_begun(), "요청")
            await ended(runs, said("하나", failing=RuntimeError("비밀")))
            await ended(runs, said("둘"))
        live = await runs.start(silent("셋"), "요청")
        with pytest.raises(Overloaded):
            await runs.start(said("넷"), "요청")
        live.stop()
        async for _ in runs.follow(live):
            pass
        await ended(runs, said("넷"))


async def test_runs_that_nobody_reads_are_stopped_after_the_grace_alone() -> None:
    async with runs_of(grace_seconds=0.1, heartbeat_seconds=0.2) as runs:
        left = await runs.start(silent("하나"), "요청")
        followed = await runs.start(silent("둘"), "요청")
        frames = runs.follow(followed)
        await anext(frames)
        await asyncio.to_thread(wait_until, lambda: left.ended)
        assert left.gathered.failure is not None
        assert left.gathered.failure.code == "cancelled"
        assert not followed.ended
        await frames.aclose()
        await asyncio.to_thread(wait_until, lambda: followed.ended)


async def test_reader_whom_a_busy_process_lets_wait_finds_its_run_alive() -> None:
    async with runs_of(grace_seconds=0.1) as runs:
        run = await runs.start(silent("하나"), "요청")
        time.sleep(0.3)  # noqa: ASYNC251  # the whole process is busy
        await asyncio.sleep(0.01)
        frames = runs.follow(run)
        assert (await anext(frames))[0].event == "started"
        assert not run.ended
        await frames.aclose()
