"""The Redis that processes share. It may go away at any time: every call then fails fast, and soon tries again."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import redis.asyncio
from redis.asyncio.lock import Lock
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import LockError, RedisError, ResponseError

from smartstore_indexing.errors import Misconfigured, StoreUnavailable
from smartstore_indexing.setting_groups import RedisSettings

REST_SECONDS = 1.0  # after a failure, before Redis is tried again: a question must not wait for each of its calls
CONNECTIONS = 64
AWAY = "Redis가 응답하지 않습니다. SMARTSTORE_REDIS__URL을 확인하고, 꺼져 있으면 `redis-server`를 실행해 주세요."


class RedisServer:
    """One Redis and the prefix of our keys in it."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str) -> None:
        """Own a client; `open` makes one."""
        self._client = client
        self._prefix = prefix
        self._resting_until = 0.0

    @classmethod
    async def open(cls, settings: RedisSettings) -> Self:
        """Connect.

        Raises:
            Misconfigured: the address cannot be read.
            StoreUnavailable: Redis does not answer there.
        """
        seconds = settings.timeout_seconds
        try:
            pool = redis.asyncio.BlockingConnectionPool.from_url(
                settings.url.get_secret_value(),
                socket_timeout=seconds,
                socket_connect_timeout=seconds,
                retry=Retry(NoBackoff(), 1, (ConnectionLost,)),  # closed while it idled
                health_check_interval=30,
                max_connections=CONNECTIONS,  # more calls than that wait for their turn
                timeout=seconds,
                client_name="smartstore-chatbot",
            )
        except ValueError as error:
            raise Misconfigured(
                "SMARTSTORE_REDIS__URL을 읽을 수 없습니다. redis://호스트:포트/번호 형식으로 써 주세요."
            ) from error
        server = cls(redis.asyncio.Redis.from_pool(pool), settings.prefix)
        try:
            await server.ping()
        except StoreUnavailable:
            await server.close()
            raise
        return server

    def key(self, *parts: str) -> str:
        """Return our name of a key: the prefix and the parts, joined by colons."""
        return ":".join((self._prefix, *parts))

    def lock(self, name: str, *, life_seconds: float, poll_seconds: float) -> Lock:
        """Return a lock of that name, not yet held; its calls stand inside `use`, and raise LockError as redis-py's."""
        key = self.key("lock", name)
        return self._client.lock(key, timeout=life_seconds, sleep=poll_seconds, thread_local=False)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[redis.asyncio.Redis]:
        """Yield the client, which gives bytes; what it raises but LockError becomes StoreUnavailable.

        Raises:
            StoreUnavailable: Redis does not answer, or did not within the last second.
        """
        if time.monotonic() < self._resting_until:
            raise StoreUnavailable(AWAY)
        cancellations = _cancellations()
        try:
            yield self._client
            # Before Python 3.12 asyncio.wait_for, with which redis-py sends, loses a cancellation that comes meanwhile.
            if _cancellations() > cancellations:
                raise asyncio.CancelledError
        except LockError:
            raise
        except (RedisError, OSError, TimeoutError) as error:
            if not isinstance(error, ResponseError):  # which is an answer: others' keys may still be well
                self._resting_until = time.monotonic() + REST_SECONDS
            raise StoreUnavailable(AWAY) from error

    async def ping(self) -> None:
        """Raise StoreUnavailable unless Redis answers."""
        async with self.use() as client:
            await client.ping()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
