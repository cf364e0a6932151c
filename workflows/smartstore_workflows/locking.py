"""Who waits for whom: the questions of one session come one after the other, and equal ones ask the model once."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

import anyio
import structlog
from redis.asyncio.lock import Lock
from redis.exceptions import LockError

from smartstore_indexing.errors import Overloaded, StoreUnavailable
from smartstore_workflows.redis_server import RedisServer

log = structlog.get_logger(__name__)
LIFE_SECONDS = 3.0  # a lock in Redis outlives a killed process by no more, and its reader waits as long
RENEWALS = 3  # in that time
POLL_SECONDS = 0.1
RELEASE_SECONDS = 2.0
TOKEN_BYTES = 16
RETRY_AFTER_SECONDS = 5


class Locks(Protocol):
    """Locks by name."""

    def hold(self, name: str) -> AbstractAsyncContextManager[None]:
        """Hold the lock of that name, which is not reentrant, for the length of an `async with`.

        Raises:
            Overloaded: it was not to be had within `wait_seconds`.
        """


@dataclass(slots=True)
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class LocalLocks:
    """The locks of one process, on one event loop: first come, first served."""

    def __init__(self, *, wait_seconds: float) -> None:
        """Wait at most so many seconds for a lock."""
        self._wait_seconds = wait_seconds
        self._entries: dict[str, _Entry] = {}

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Hold the lock of that name; Overloaded when it was not to be had in time."""
        with self._entry(name) as lock:
            try:
                async with asyncio.timeout(self._wait_seconds):
                    await lock.acquire()
            except TimeoutError as error:
                raise _overloaded() from error
            try:
                yield
            finally:
                lock.release()

    @contextmanager
    def _entry(self, name: str) -> Iterator[asyncio.Lock]:
        """Yield the lock of that name, which is dropped when nobody holds it or waits for it."""
        entry = self._entries.setdefault(name, _Entry())
        entry.users += 1
        try:
            yield entry.lock
        finally:
            entry.users -= 1
            if not entry.users:
                del self._entries[name]


class RedisLocks:
    """The locks that processes share.

    Within a process the local lock decides, so that one of its waiters at most asks Redis again and again. Where Redis
    is away, or goes away while a lock is held, the local lock alone holds, and the work goes on.
    """

    def __init__(self, server: RedisServer, *, wait_seconds: float, life_seconds: float = LIFE_SECONDS) -> None:
        """Use a server; a lock whose process was killed is free again after `life_seconds`."""
        self._server = server
        self._local = LocalLocks(wait_seconds=wait_seconds)
        self._wait_seconds = wait_seconds
        self._life_seconds = life_seconds

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Hold the lock of that name; Overloaded when it was not to be had in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_seconds
        async with self._local.hold(name), self._shared(name, deadline - loop.time()):
            yield

    @asynccontextmanager
    async def _shared(self, name: str, wait_seconds: float) -> AsyncIterator[None]:
        token = secrets.token_hex(TOKEN_BYTES)
        lock = self._server.lock(name, life_seconds=self._life_seconds, poll_seconds=POLL_SECONDS)
        try:
            if await self._acquired(lock, token, wait_seconds):
                async with self._renewed(lock):
                    yield
            else:
                yield
        finally:
            await self._release(lock, token)  # a call that was cancelled or lost may have taken it all the same

    async def _acquired(self, lock: Lock, token: str, wait_seconds: float) -> bool:
        """Tell whether the lock is held in Redis too, False when Redis is away; Overloaded when another keeps it."""
        try:
            async with self._server.use():
                acquired = await lock.acquire(token=token, blocking_timeout=wait_seconds)
        except StoreUnavailable as error:
            log.warning("lock held in this process only", code=error.code)
            return False
        if not acquired:
            raise _overloaded()
        return True

    @asynccontextmanager
    async def _renewed(self, lock: Lock) -> AsyncIterator[None]:
        renewing = asyncio.create_task(self._renew(lock))
        try:
            yield
        finally:
            renewing.cancel()

    async def _renew(self, lock: Lock) -> None:
        """Renew the lock's life until it is lost: when Redis was away for longer than that, or started anew."""
        try:
            while True:
                await asyncio.sleep(self._life_seconds / RENEWALS)
                with suppress(StoreUnavailable):
                    async with self._server.use():
                        await lock.reacquire()
        except LockError:
            log.warning("lock lost, held in this process only")

    async def _release(self, lock: Lock, token: str) -> None:
        with anyio.move_on_after(RELEASE_SECONDS, shield=True), suppress(StoreUnavailable, LockError):
            async with self._server.use():
                await lock.do_release(token.encode())


def _overloaded() -> Overloaded:
    return Overloaded(
        "먼저 온 질문에 아직 답하고 있습니다. 잠시 뒤에 다시 질문해 주세요.", retry_after=RETRY_AFTER_SECONDS
    )
