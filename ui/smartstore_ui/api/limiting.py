"""Requests in a minute, by session and by address: counted in Redis for all processes, else in this one."""

import math
import time

import structlog
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError

from smartstore_indexing.errors import TooManyRequests
from smartstore_indexing.setting_groups import RedisSettings

log = structlog.get_logger(__name__)


class RateLimiter:
    """Counts requests in a moving window of a minute."""

    def __init__(self, per_minute: int, redis: RedisSettings) -> None:
        """Allow `per_minute` requests to each client, 0 for any number."""
        self._limit = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._local = MovingWindowRateLimiter(MemoryStorage())
        self._shared: MovingWindowRateLimiter | None = None
        url = redis.url.get_secret_value()
        if self._limit and url:
            seconds = redis.timeout_seconds
            storage: Storage = RedisStorage(
                f"async+{url}",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix=f"{redis.prefix}:limits",
                socket_timeout=seconds,
                socket_connect_timeout=seconds,
            )
            self._shared = MovingWindowRateLimiter(storage)

    async def count(self, *clients: str) -> None:
        """Count a request of each client, named by address or session.

        Raises:
            TooManyRequests: one of them made as many in the last minute as it may.
        """
        for client in clients:
            await self._count(client)

    async def _count(self, client: str) -> None:
        if self._limit is None:
            return
        limiter = self._shared or self._local
        try:
            allowed = await limiter.hit(self._limit, client)
            window = None if allowed else await limiter.get_window_stats(self._limit, client)
        except StorageError:  # without Redis each process counts for itself
            log.warning("limits counted in this process alone")
            allowed = await self._local.hit(self._limit, client)
            window = None if allowed else await self._local.get_window_stats(self._limit, client)
        if window is not None:
            seconds = max(1, math.ceil(window.reset_time - time.time()))
            raise TooManyRequests(f"요청이 너무 잦습니다. {seconds}초 뒤에 다시 시도해 주세요.", retry_after=seconds)
