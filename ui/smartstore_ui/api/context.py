"""What the routes share, held by the application while it runs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from smartstore_indexing.settings import Settings
from smartstore_ui.api.access import Access, address
from smartstore_ui.api.index_jobs import IndexJobs
from smartstore_ui.api.limiting import RateLimiter
from smartstore_ui.api.runs import Runs
from smartstore_ui.metrics import Metrics
from smartstore_workflows import Chatbot


@dataclass(frozen=True, slots=True)
class Api:
    """The open bot and what stands around it."""

    settings: Settings
    bot: Chatbot
    runs: Runs
    jobs: IndexJobs
    access: Access
    limiter: RateLimiter
    metrics: Metrics

    async def admit(self, connection: HTTPConnection, session_id: str | None = None) -> None:
        """Let a client ask, and count it.

        Raises:
            Unauthorized: a key is required, and the client sent none or a wrong one.
            TooManyRequests: its address or session asked too often.
        """
        self.access.open_to(connection)
        clients = [f"address:{address(connection)}"]
        await self.limiter.count(*clients, *([f"session:{session_id}"] if session_id else []))


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Api, None]:
    """Open and warm the bot and what stands around it; raises what `app.build` raises."""
    metrics = Metrics()
    runs = Runs(limits=settings.limits, stream=settings.stream, metrics=metrics)
    async with Chatbot(settings) as bot:
        await bot.warm_up()  # outside the group, which would wrap what it raises
        async with asyncio.TaskGroup() as group, runs.open():
            jobs = IndexJobs(bot.services.builder)
            working = group.create_task(jobs.work())
            try:
                yield Api(
                    settings=settings,
                    bot=bot,
                    runs=runs,
                    jobs=jobs,
                    access=Access(
                        settings.server.keys, required=settings.server.require_key, origins=settings.server.origins
                    ),
                    limiter=RateLimiter(settings.limits.per_minute, settings.redis),
                    metrics=metrics,
                )
            finally:
                working.cancel()


def api_of(connection: HTTPConnection) -> Api:
    """Return what the application holds."""
    api = connection.app.state.api
    assert isinstance(api, Api)
    return api
