"""Opens the queues that the settings name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from smartstore_indexing.broker import Broker
from smartstore_indexing.local_queues import LocalQueues
from smartstore_indexing.queues import Queues, Settled, untold, work_queues
from smartstore_indexing.settings import Settings


def has_broker(settings: Settings) -> bool:
    """Tell whether RabbitMQ is set."""
    return bool(settings.rabbitmq.url.get_secret_value())


@asynccontextmanager
async def opened_queues(settings: Settings, *, settled: Settled = untold) -> AsyncIterator[Queues]:
    """Yield the queues: RabbitMQ's, which is connected to when first used, or where it is not set this process's.

    `settled` is told what became of each message that this process worked on.

    Raises:
        Misconfigured: the address of RabbitMQ cannot be read.
    """
    work = work_queues(settings.rabbitmq.max_answers)
    queues: Queues
    if has_broker(settings):
        queues = Broker(settings.rabbitmq, work, settled=settled)
    else:
        queues = LocalQueues(work, settled=settled)
    try:
        yield queues
    finally:
        await queues.close()
