"""What every kind of lock does, in one process and over Redis, and what only the one or the other can."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

import anyio
import pytest
from conftest import RedisProcess
from stores import eventually, redis_server, server_of

from smartstore_indexing.errors import Overloaded
from smartstore_indexing.setting_groups import RedisSettings
from smartstore_workflows.locking import LocalLocks, Locks, RedisLocks
from smartstore_workflows.redis_server import RedisServer

Make = Callable[[float], Locks]
LONG = 20.0


@pytest.fixture(params=["local", "redis"])
async def make(request: pytest.FixtureRequest, redis_settings: RedisSettings) -> AsyncIterator[Make]:
    """Yield what makes locks that wait so many seconds."""
    if request.param == "local":
        yield lambda seconds: LocalLocks(wait_seconds=seconds)
    else:
        async with redis_server(redis_settings) as server:
            yield lambda seconds: RedisLocks(server, wait_seconds=seconds)


@pytest.fixture
async def two_processes(redis_settings: RedisSettings) -> AsyncIterator[list[RedisLocks]]:
    """Yield the locks of two processes that share a Redis."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(redis_server(redis_settings)) for _ in range(2)]
        yield [RedisLocks(server, wait_seconds=LONG) for server in servers]


class Room:
    """Counts who is inside at once."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.order: list[int] = []

    @contextmanager
    def entered(self, number: int = 0) -> Iterator[None]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.order.append(number)
        try:
            yield
        finally:
            self.inside -= 1


async def visit(locks: Locks, room: Room, number: int = 0, name: str = "여기") -> None:
    async with locks.hold(name):
        with room.entered(number):
            await asyncio.sleep(0.001)


async def keys(server: RedisServer) -> list[bytes]:
    async with server.use() as client:
        return [key async for key in client.scan_iter(server.key("lock", "*"))]


async def test_one_at_a_time_holds_a_name_in_the_order_of_asking(make: Make) -> None:
    locks, room = make(LONG), Room()
    await asyncio.gather(*(visit(locks, room, number) for number in range(50)))
    assert room.most == 1
    assert room.order == list(range(50))


async def test_different_names_do_not_wait_for_each_other(make: Make) -> None:
    locks = make(LONG)
    async with asyncio.timeout(5), locks.hold("여기"), locks.hold("저기"), locks.hold("*"), locks.hold("여기:"):
        pass


async def test_waiting_ends_with_a_message_when_it_takes_too_long(make: Make) -> None:
    locks = make(0.1)
    async with locks.hold("여기"):
        started = time.monotonic()
        with pytest.raises(Overloaded, match="잠시 뒤"):
            await visit(locks, Room())
        assert time.monotonic() - started < 2
    await visit(locks, Room())


async def test_lock_is_free_after_the_work_failed(make: Make) -> None:
    locks = make(1.0)
    with pytest.raises(ZeroDivisionError):
        async with locks.hold("여기"):
            raise ZeroDivisionError
    await visit(locks, Room())


async def test_cancelling_at_any_moment_leaves_the_lock_free_and_held_by_one(make: Make) -> None:
    locks, room = make(LONG), Room()
    for turns_of_the_loop in range(25):
        tasks = [asyncio.ensure_future(visit(locks, room)) for _ in range(6)]
        for _ in range(turns_of_the_loop):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [result for result in done[1::2] if result is not None] == []
    assert room.most == 1
    async with asyncio.timeout(5):
        await visit(locks, room)


async def test_cancelled_scope_of_a_web_framework_leaves_the_lock_free(own_redis: RedisProcess) -> None:
    async with redis_server(server_of(own_redis.url)) as server:  # a Redis that does not know the release's script yet
        with anyio.move_on_after(0.05):  # cancels every await within, those of a `finally` too
            async with RedisLocks(server, wait_seconds=1).hold("여기"):
                await asyncio.sleep(LONG)
        assert await keys(server) == []


async def test_names_that_nobody_holds_or_waits_for_are_dropped() -> None:
    locks = LocalLocks(wait_seconds=0.01)
    async with locks.hold("여기"):
        with pytest.raises(Overloaded):
            await visit(locks, Room())
        cancelled = asyncio.ensure_future(visit(locks, Room()))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait({cancelled})
    await asyncio.gather(*(visit(locks, Room(), name=str(number)) for number in range(100)))
    assert locks._entries == {}


async def test_two_processes_hold_a_name_one_at_a_time(two_processes: list[RedisLocks]) -> None:
    room = Room()
    await asyncio.gather(*(visit(locks, room) for locks in two_processes * 5))
    assert room.most == 1
    assert len(room.order) == 10


async def test_process_that_waits_too_long_for_another_is_told(redis_settings: RedisSettings) -> None:
    async with redis_server(redis_settings) as server:
        first, second = RedisLocks(server, wait_seconds=LONG), RedisLocks(server, wait_seconds=0.2)
        async with first.hold("여기"):
            with pytest.raises(Overloaded, match="잠시 뒤"):
                await visit(second, Room())
            assert len(await keys(server)) == 1
        await visit(second, Room())


async def test_lock_is_renewed_while_it_is_held_and_gone_after(redis_settings: RedisSettings) -> None:
    async with redis_server(redis_settings) as server:
        first = RedisLocks(server, wait_seconds=LONG, life_seconds=0.3)
        second = RedisLocks(server, wait_seconds=0.9)
        async with first.hold("여기"):
            with pytest.raises(Overloaded):
                await visit(second, Room())
        assert await keys(server) == []


async def test_lock_of_a_killed_process_is_free_after_its_life(redis_settings: RedisSettings) -> None:
    async with redis_server(redis_settings) as server:
        killed = server.lock("여기", life_seconds=0.3, poll_seconds=0.1)
        async with server.use():
            assert await killed.acquire()
        room = Room()
        await visit(RedisLocks(server, wait_seconds=LONG), room)
        assert room.order == [0]


async def test_lock_that_another_took_over_is_not_released_from_under_it(redis_settings: RedisSettings) -> None:
    async with redis_server(redis_settings) as server:
        async with RedisLocks(server, wait_seconds=1).hold("여기"), server.use() as client:
            await client.set(server.key("lock", "여기"), "another's")
        assert len(await keys(server)) == 1


async def test_lock_that_redis_gave_to_one_who_was_cancelled_is_free_soon(own_redis: RedisProcess) -> None:
    async with redis_server(server_of(own_redis.url)) as server:
        assert own_redis._process is not None
        own_redis._process.send_signal(signal.SIGSTOP)
        try:
            task = asyncio.ensure_future(visit(RedisLocks(server, wait_seconds=LONG), Room()))
            await asyncio.sleep(0.05)  # Redis has the question, but has not read it
            task.cancel()
            await asyncio.sleep(0)
        finally:
            own_redis._process.send_signal(signal.SIGCONT)
        await asyncio.wait({task})
        assert task.cancelled()

        async def empty() -> bool:
            return await keys(server) == []

        await eventually(empty, seconds=3)  # far below a lock's life


async def test_work_goes_on_one_at_a_time_when_redis_is_away(own_redis: RedisProcess) -> None:
    async with redis_server(server_of(own_redis.url)) as server:
        locks, room = RedisLocks(server, wait_seconds=LONG), Room()
        own_redis.stop()
        started = time.monotonic()
        await asyncio.gather(*(visit(locks, room) for _ in range(20)))
        assert time.monotonic() - started < 2
        assert room.most == 1
        assert len(room.order) == 20


async def test_work_goes_on_when_redis_is_lost_while_the_lock_is_held(own_redis: RedisProcess) -> None:
    async with redis_server(server_of(own_redis.url)) as server:
        locks = RedisLocks(server, wait_seconds=LONG, life_seconds=0.1)
        async with locks.hold("여기"):
            own_redis.stop()
            await asyncio.sleep(0.2)  # a few renewals
        own_redis.start()

        async def shared_again() -> bool:
            async with locks.hold("여기"):
                return server._resting_until < time.monotonic() and len(await keys(server)) == 1

        await eventually(shared_again)


async def test_waiter_goes_on_when_redis_is_lost_meanwhile(own_redis: RedisProcess) -> None:
    async with redis_server(server_of(own_redis.url)) as server:
        room = Room()
        async with RedisLocks(server, wait_seconds=LONG).hold("여기"):
            waiting = asyncio.ensure_future(visit(RedisLocks(server, wait_seconds=LONG), room))
            await asyncio.sleep(0.05)
            assert room.order == []
            own_redis.stop()
            await asyncio.wait_for(waiting, 5)
        assert room.order == [0]
