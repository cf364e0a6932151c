"""The events of runs in Redis: what a worker writes any process reads, as it comes, and the last who leaves cancels."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

import pytest
from conftest import RedisProcess
from pydantic import SecretStr

from smartstore_indexing.errors import StoreUnavailable, TransientError, UnknownResource
from smartstore_indexing.setting_groups import RedisSettings
from smartstore_workflows import wire
from smartstore_workflows.events import Source, Suggestion, Usage
from smartstore_workflows.redis_server import RedisServer
from smartstore_workflows.run_readers import GATHER_SECONDS, Reader, RunReaders
from smartstore_workflows.run_streams import CANCEL_KEEP_SECONDS, KEEP_SECONDS, RunState, RunStreams, Superseded

SOURCE = Source(
    n=1, id="a", category="정산", question="정산은 언제 되나요?", score=0.9, snippet="\u2028 '\"\\ 줄\n바꿈"
)
EVENTS: list[tuple[wire.EventName, wire.Data]] = [
    ("started", wire.Started(run_id="하나", session_id="대화", model="extractive")),
    ("stage", wire.Stage(stage="understand")),
    ("sources", (SOURCE,)),
    ("token", wire.Token(text='한글 "따옴표" \n\x00')),
    ("restart", wire.Restart(reason="다시")),
    ("token", wire.Token(text="")),
    ("answer", wire.Answer(kind="answered", text="답", citations=("a",), cached=False, model="m", degraded=False)),
    ("suggestions", (Suggestion(text="더 알려 드릴까요?", faq_id="b"),)),
    ("error", wire.Failure(code="failed", message="오류", retryable=False, request_id="요청")),
    ("done", wire.Done(run_id="하나", timings_ms={"understand": 1.5}, usage=Usage())),
]


def event(number: int, name: wire.EventName = "token", data: wire.Data | None = None) -> wire.StreamEvent:
    return wire.StreamEvent(id=number, event=name, data=data or wire.Token(text=str(number)))


def done(number: int) -> wire.StreamEvent:
    return event(number, "done", wire.Done(run_id="하나", timings_ms={}, usage=Usage()))


@dataclass(frozen=True)
class World:
    """A worker and two doors, each with connections of its own."""

    streams: RunStreams
    readers: list[RunReaders]
    server: RedisServer


async def opened(stack: AsyncExitStack, settings: RedisSettings, *, silence_seconds: float = 20.0) -> World:
    servers = []
    for _ in range(3):
        servers.append(await RedisServer.open(settings))
        stack.push_async_callback(servers[-1].close)
    streams = await stack.enter_async_context(RunStreams(servers[0]).open())
    readers = [
        await stack.enter_async_context(
            RunReaders(server, call_seconds=settings.timeout_seconds, silence_seconds=silence_seconds).open()
        )
        for server in servers[1:]
    ]
    return World(streams, readers, servers[0])


@pytest.fixture
async def world(redis_settings: RedisSettings) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield await opened(stack, redis_settings)


async def whole(reader: Reader) -> list[wire.StreamEvent]:
    async with aclosing(reader.rest()) as events:
        return [event async for event in events]


async def replayed(readers: RunReaders, run_id: str) -> list[wire.StreamEvent]:
    async with aclosing(readers.replay(run_id)) as events:
        return [event async for event in events]


async def cancelled(world: World, run_id: str) -> bool:
    return (await world.streams.state(run_id)).cancelled


async def test_events_come_back_as_they_were_written_in_every_process(world: World) -> None:
    written = [event(number, *parts) for number, parts in enumerate(EVENTS, start=1)]
    async with world.readers[0].reading("하나") as reader:
        for one in written:
            await world.streams.append("하나", one)
        assert await whole(reader) == written
    assert await replayed(world.readers[1], "하나") == written


async def test_event_is_read_as_soon_as_it_is_written(world: World) -> None:
    waits = []
    async with world.readers[0].reading("다른 것"), world.readers[0].reading("하나") as reader:
        await asyncio.sleep(0.05)  # the read waits in Redis
        for number in range(1, 21):
            began = time.perf_counter()
            await world.streams.append("하나", event(number))
            assert (await reader.next(5)).id == number
            waits.append(time.perf_counter() - began)
    assert sorted(waits)[10] < 0.05


async def test_run_that_is_followed_while_others_are_silent_is_read_at_once(world: World) -> None:
    await world.streams.append("둘", event(1))
    waits = []
    async with world.readers[0].reading("하나"):
        for _ in range(5):
            await asyncio.sleep(0.02)  # the read waits in Redis, and knows of the one run alone
            began = time.perf_counter()
            async with world.readers[0].reading("둘") as reader:
                await reader.next(5)
            waits.append(time.perf_counter() - began)
    assert sorted(waits)[2] < 0.1


async def test_one_connection_waits_for_all_the_runs_of_a_process(world: World) -> None:
    async with AsyncExitStack() as stack:
        for number in range(50):
            await stack.enter_async_context(world.readers[0].reading(f"run-{number}"))
        async with world.server.use() as client:
            await asyncio.sleep(20 * GATHER_SECONDS)
            assert (await client.info("clients"))["blocked_clients"] == 1


async def test_fifty_runs_lose_no_event(world: World) -> None:
    names = [f"run-{number}" for number in range(50)]

    async def write(name: str) -> None:
        for number in range(1, 20):
            await world.streams.append(name, event(number))
        await world.streams.append(name, done(20))

    async def read(name: str) -> list[int]:
        async with world.readers[0].reading(name) as reader:
            return [event.id for event in await whole(reader)]

    found = await asyncio.gather(*map(read, names), *map(write, names))
    assert found[:50] == [list(range(1, 21))] * 50


async def test_second_reader_of_a_run_in_one_process_gets_all_of_it_too(world: World) -> None:
    async with world.readers[0].reading("하나") as first:
        await world.streams.append("하나", event(1))
        assert (await first.next(5)).id == 1
        async with world.readers[0].reading("하나") as second:
            await world.streams.append("하나", done(2))
            assert [one.id for one in await whole(second)] == [1, 2]
        assert [one.id for one in await whole(first)] == [2]


async def test_worker_that_was_superseded_is_told_and_adds_nothing(world: World) -> None:
    await world.streams.append("하나", event(5))
    for number in (4, 5):
        with pytest.raises(Superseded):
            await world.streams.append("하나", event(number, data=wire.Token(text="늦음")))
    await world.streams.append("하나", done(6))
    assert [one.id for one in await replayed(world.readers[0], "하나")] == [5, 6]


async def test_append_that_was_given_up_still_stands_before_the_next(world: World) -> None:
    task = asyncio.create_task(world.streams.append("하나", event(1)))
    await asyncio.sleep(0)
    task.cancel()
    await world.streams.append("하나", done(2))
    assert [one.id for one in await replayed(world.readers[0], "하나")] == [1, 2]


async def test_state_tells_the_last_event(world: World) -> None:
    assert await world.streams.state("하나") == RunState(0, "", cancelled=False)
    await world.streams.append("하나", event(1))
    await world.readers[0].cancel("하나")
    assert await world.streams.state("하나") == RunState(1, "token", cancelled=True)


async def test_run_is_cancelled_when_its_last_reader_leaves(world: World) -> None:
    async with world.readers[0].reading("하나"):
        async with world.readers[1].reading("하나"):
            pass
        assert not await cancelled(world, "하나")
    assert await cancelled(world, "하나")


async def test_run_that_was_read_to_its_end_is_not_cancelled(world: World) -> None:
    await world.streams.append("하나", done(1))
    async with world.readers[0].reading("하나") as reader:
        await whole(reader)
    assert not await cancelled(world, "하나")


async def test_cancelled_run_is_stopped_within_a_third_of_a_second(world: World) -> None:
    began = 0.0
    with world.streams.stoppable("다른 것") as other, world.streams.stoppable("하나") as scope:
        await asyncio.sleep(0.1)
        await world.readers[0].cancel("하나")
        began = time.monotonic()
        await asyncio.sleep(10)
    assert scope.cancelled_caught
    assert not other.cancel_called
    assert time.monotonic() - began < 1.0  # 0.2 s and what a busy machine adds


async def test_run_that_nobody_began_is_unknown(world: World) -> None:
    with pytest.raises(UnknownResource):
        await replayed(world.readers[0], "없는 것")


async def test_run_that_falls_silent_is_given_up(redis_settings: RedisSettings) -> None:
    async with AsyncExitStack() as stack:
        world = await opened(stack, redis_settings, silence_seconds=0.1)
        await world.streams.append("하나", event(1))
        with pytest.raises(TransientError, match="끊겼습니다"):
            await replayed(world.readers[0], "하나")


async def test_keys_of_a_run_end_by_themselves(world: World, redis_settings: RedisSettings) -> None:
    async with world.readers[0].reading("하나"):
        await world.streams.append("하나", event(1))
    async with world.server.use() as client:
        lives = {key: await client.ttl(key) async for key in client.scan_iter(f"{redis_settings.prefix}:*")}
    assert len(lives) == 3  # the stream, the sign that it is cancelled, the key that wakes the reader
    assert all(0 < life <= CANCEL_KEEP_SECONDS for life in lives.values())
    assert 0 < lives[f"{redis_settings.prefix}:run:하나".encode()] <= KEEP_SECONDS


async def test_what_others_wrote_into_a_stream_is_left_out(world: World, redis_settings: RedisSettings) -> None:
    async with world.server.use() as client:
        await client.xadd(f"{redis_settings.prefix}:run:하나", {"id": "x"}, id="1-0")
        await client.xadd(f"{redis_settings.prefix}:run:하나", {"other": "x"}, id="2-0")
    await world.streams.append("하나", done(3))
    assert [one.id for one in await replayed(world.readers[0], "하나")] == [3]


async def test_reader_goes_on_after_redis_stood_still(own_redis: RedisProcess) -> None:
    async with AsyncExitStack() as stack:
        world = await opened(stack, RedisSettings(url=SecretStr(own_redis.url), timeout_seconds=0.4))
        async with world.readers[0].reading("하나") as reader:
            await world.streams.append("하나", event(1))
            assert (await reader.next(5)).id == 1
            own_redis.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(0.8)  # longer than a call may take
            finally:
                own_redis.signal(signal.SIGCONT)
            await appended(world, done(2))
            assert (await reader.next(10)).id == 2


async def test_reader_is_told_when_redis_lost_its_run(own_redis: RedisProcess) -> None:
    async with AsyncExitStack() as stack:
        world = await opened(stack, RedisSettings(url=SecretStr(own_redis.url), timeout_seconds=0.4))
        async with world.readers[0].reading("하나") as reader, world.readers[0].reading("둘") as new:
            await world.streams.append("하나", event(1))
            assert (await reader.next(5)).id == 1
            own_redis.stop()
            await asyncio.sleep(0.3)  # it is seen to be away
            await asyncio.to_thread(own_redis.start)
            with pytest.raises(StoreUnavailable):
                await reader.next(10)
            await appended(world, done(1), "둘")
            assert (await new.next(10)).id == 1  # it had read nothing that could be lost


async def appended(world: World, one: wire.StreamEvent, run_id: str = "하나") -> None:
    """Append an event as soon as Redis takes it."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await world.streams.append(run_id, one)
            except StoreUnavailable:
                await asyncio.sleep(0.1)


async def test_readers_and_writers_are_told_when_redis_is_away_and_go_on_when_it_is_back(
    own_redis: RedisProcess,
) -> None:
    async with AsyncExitStack() as stack:
        settings = RedisSettings(url=SecretStr(own_redis.url), timeout_seconds=0.5)
        world = await opened(stack, settings)
        async with world.readers[0].reading("하나") as reader:
            own_redis.stop()
            with pytest.raises(StoreUnavailable):
                await reader.next(10)
        with pytest.raises(StoreUnavailable):
            await world.streams.append("하나", event(1))
        own_redis.start()
        await appended(world, done(1))
        assert [one.id for one in await replayed(world.readers[1], "하나")] == [1]
