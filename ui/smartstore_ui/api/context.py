"""What the routes share, held by the application while it runs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from smartstore_indexing.index_worker import PREFETCH
from smartstore_indexing.opening import has_broker, opened_queues
from smartstore_indexing.queues import INDEX, Queues
from smartstore_indexing.settings import QUEUE, Settings
from smartstore_indexing.wiring import index_worker_of
from smartstore_ui.api.access import Access, address
from smartstore_ui.api.index_jobs import IndexJobs
from smartstore_ui.api.limiting import RateLimiter
from smartstore_ui.api.runs import Runs
from smartstore_ui.metrics import Metrics
from smartstore_workflows import Chatbot
from smartstore_workflows.answer_requests import Answers
from smartstore_workflows.background import beside
from smartstore_workflows.queued_answers import QueuedAnswers, opened_readers
from smartstore_workflows.run_readers import RunReaders


@dataclass(frozen=True, slots=True)
class Api:
    """The open bot and what stands around it; `answers` is the bot itself, or the workers that answer for it."""

    settings: Settings
    bot: Chatbot
    answers: Answers
    queues: Queues
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
    """Open and warm the bot and what stands around it.

    Raises:
        Misconfigured: RabbitMQ refuses us, or its address cannot be read.
    and what `app.build` raises.
    """
    metrics = Metrics()
    async with (
        Chatbot(settings) as bot,
        opened_queues(settings, settled=metrics.settled) as queues,
        _readers(settings, bot) as readers,
    ):
        if readers is not None:
            await queues.ping()
        await bot.warm_up()  # outside the groups, which would wrap what it raises
        runs = Runs(limits=settings.limits, stream=settings.stream, metrics=metrics, elsewhere=readers)
        jobs = IndexJobs(queues)
        async with jobs.open(), runs.open(), _indexing(settings, bot, queues):
            yield Api(
                settings=settings,
                bot=bot,
                answers=_answers(settings, bot, queues, readers),
                queues=queues,
                runs=runs,
                jobs=jobs,
                access=Access(
                    settings.server.keys, required=settings.server.require_key, origins=settings.server.origins
                ),
                limiter=RateLimiter(settings.limits.per_minute, settings.redis),
                metrics=metrics,
            )


@asynccontextmanager
async def _readers(settings: Settings, bot: Chatbot) -> AsyncGenerator[RunReaders | None, None]:
    """Yield what reads the runs of workers where they answer, None where this process does."""
    server = bot.services.stores.redis
    if settings.answers != QUEUE or server is None:
        yield None
    else:
        async with opened_readers(settings, server) as readers:
            yield readers


def _answers(settings: Settings, bot: Chatbot, queues: Queues, readers: RunReaders | None) -> Answers:
    if readers is None:
        return bot
    return QueuedAnswers(bot=bot, queues=queues, readers=readers, wait_seconds=settings.limits.queue_seconds)


@asynccontextmanager
async def _indexing(settings: Settings, bot: Chatbot, queues: Queues) -> AsyncGenerator[None, None]:
    """Work on the index requests within the block, where no worker elsewhere can."""
    if has_broker(settings) and not settings.milvus_is_embedded:
        yield
        return
    worker = index_worker_of(settings, builder=bot.services.builder, queues=queues)
    # At the end the message of a build that goes on is not settled: it is delivered again.
    async with beside(queues.consume(INDEX, worker, prefetch=PREFETCH, stopping=asyncio.Event(), drain_seconds=0.0)):
        yield


def api_of(connection: HTTPConnection) -> Api:
    """Return what the application holds."""
    api = connection.app.state.api
    assert isinstance(api, Api)
    return api
