"""`smartstore worker`: works on a queue until a signal ends it; what runs then has time to end."""

import asyncio
import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import structlog
import uvloop

from smartstore_indexing.errors import Misconfigured
from smartstore_indexing.index_worker import PREFETCH
from smartstore_indexing.opening import has_broker, opened_queues
from smartstore_indexing.queues import ANSWERS, INDEX
from smartstore_indexing.settings import Settings, load_settings
from smartstore_indexing.wiring import index_worker_of, opened_builder
from smartstore_ui.logs import configure_logs
from smartstore_ui.metrics import Metrics
from smartstore_ui.worker_watch import Checks, watchable
from smartstore_workflows import Chatbot
from smartstore_workflows.answer_worker import AnswerWorker
from smartstore_workflows.run_streams import RunStreams
from smartstore_workflows.tracing import traced

log = structlog.get_logger(__name__)
Kind = Literal["index", "answer"]
MAX_ANSWERS = 64  # at once in one process, whose core they keep busy


def run_worker(kind: Kind) -> int:
    """Work until a signal ends it.

    Raises:
        Misconfigured: no broker is set, or for answers no Redis, or the broker refuses us.
    """
    settings = load_settings()
    if not has_broker(settings):
        raise Misconfigured(
            "워커에는 RabbitMQ가 필요합니다. SMARTSTORE_RABBITMQ__URL을 설정해 주세요. "
            "RabbitMQ 없이는 `smartstore serve`가 색인 요청까지 처리합니다."
        )
    if kind == "answer" and not settings.redis.url.get_secret_value():
        raise Misconfigured("답변 워커에는 Redis도 필요합니다. SMARTSTORE_REDIS__URL을 설정해 주세요.")
    configure_logs(settings.watch)
    uvloop.run(_index(settings) if kind == "index" else _answer(settings))
    return 0


async def _index(settings: Settings) -> None:
    metrics = Metrics()
    async with (
        traced(settings.watch),
        opened_builder(settings) as builder,
        opened_queues(settings, settled=metrics.settled) as queues,
        watchable(settings.worker, metrics, {"milvus": builder.ping, "rabbitmq": queues.ping}),
    ):
        worker = index_worker_of(settings, builder=builder, queues=queues)
        with signalled() as stopping:
            log.info("worker ready", queue=INDEX, milvus="embedded" if settings.milvus_is_embedded else "server")
            await queues.consume(
                INDEX, worker, prefetch=PREFETCH, stopping=stopping, drain_seconds=settings.server.drain_seconds
            )
            log.info("worker ended", queue=INDEX)


async def _answer(settings: Settings) -> None:
    metrics = Metrics()
    async with (
        traced(settings.watch),
        Chatbot(settings) as bot,
        opened_queues(settings, settled=metrics.settled) as queues,
    ):
        await queues.ping()
        await bot.warm_up()
        server = bot.services.stores.redis
        assert server is not None
        checks: Checks = {
            "milvus": bot.services.retriever.searchable,
            "redis": server.ping,
            "rabbitmq": queues.ping,
        }
        async with watchable(settings.worker, metrics, checks), RunStreams(server).open() as streams:
            worker = AnswerWorker(answers=bot, streams=streams, queues=queues)
            gc.collect()
            gc.freeze()  # the index is a million objects, which every full collection would look through
            with signalled() as stopping:
                log.info("worker ready", queue=ANSWERS, models=bot.models)
                await worker.work(
                    prefetch=min(settings.limits.max_runs, MAX_ANSWERS),
                    stopping=stopping,
                    drain_seconds=settings.server.drain_seconds,
                )
                log.info("worker ended", queue=ANSWERS)


@contextmanager
def signalled() -> Iterator[asyncio.Event]:
    """Yield what is set as soon as SIGTERM or SIGINT comes; at the second one the program ends at once."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        log.info("draining")
        stopping.set()
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield stopping
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
