"""What we have in RabbitMQ: an exchange, and for each queue of work its dead letters and its delays beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelPreconditionFailed
from pamqp.common import FieldValue

from smartstore_indexing.errors import Misconfigured
from smartstore_indexing.queues import DELIVERY_LIMIT, MAX_DEAD, WorkQueue

MAX_DEAD_BYTES = 256 * 1024 * 1024
NEVER = 1_000_000_000  # dead letters come back whenever they are listed, and RabbitMQ 4 counts that
MILLISECONDS = 1_000
Arguments = dict[str, FieldValue]


class Topology:
    """The names of our exchange and queues, and their making."""

    def __init__(self, prefix: str, queues: Sequence[WorkQueue]) -> None:
        """Begin each name with the prefix."""
        self.exchange = prefix
        self._queues = queues

    def queue(self, work: WorkQueue) -> str:
        """Return the name of a queue of work."""
        return f"{self.exchange}.{work.name}"

    def dead(self, work: WorkQueue) -> str:
        """Return the name of the queue of its dead letters."""
        return f"{self.queue(work)}.dead"

    def retry(self, work: WorkQueue, delay: float) -> str:
        """Return the name of the queue in which its messages wait so long for their next attempt."""
        return f"{self.queue(work)}.retry.{delay:g}s"

    def names(self) -> list[str]:
        """Return the names of all queues."""
        return [
            name
            for work in self._queues
            for name in (
                self.dead(work),
                *(self.retry(work, delay) for delay in work.retry_seconds),
                self.queue(work),
            )
        ]

    async def declare(self, channel: AbstractChannel) -> None:
        """Make what is missing.

        Raises:
            Misconfigured: one is there with other arguments.
        """
        with _named(self.exchange):
            await channel.declare_exchange(self.exchange, "topic", durable=True)
        for work in self._queues:
            await _declare(channel, self.dead(work), _dead())
            for delay in work.retry_seconds:
                await _declare(channel, self.retry(work, delay), self._delaying(work, delay))
            await _declare(channel, self.queue(work), self._working(work))
            queue = await channel.get_queue(self.queue(work), ensure=False)
            await queue.bind(self.exchange, work.routing_key)

    def _working(self, work: WorkQueue) -> Arguments:
        return {
            **_quorum(),
            **_dead_lettering(self.dead(work)),
            "x-max-length": work.max_length,
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-single-active-consumer": work.one_at_a_time,
        }

    def _delaying(self, work: WorkQueue, delay: float) -> Arguments:
        return {
            **_quorum(),
            **_dead_lettering(self.queue(work)),
            "x-message-ttl": round(delay * MILLISECONDS),
        }


def _quorum() -> Arguments:
    return {"x-queue-type": "quorum"}


def _dead_lettering(queue: str) -> Arguments:
    # At least once: a message leaves only when the other queue has it, and waits where that one is full.
    return {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _dead() -> Arguments:
    bounds = {"x-max-length": MAX_DEAD, "x-max-length-bytes": MAX_DEAD_BYTES, "x-delivery-limit": NEVER}
    return {**_quorum(), **bounds, "x-overflow": "drop-head"}


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except ChannelPreconditionFailed as error:
        raise Misconfigured(
            f"RabbitMQ의 {name}이(가) 다른 설정으로 이미 있습니다. 큐가 비어 있으면 지우고, "
            "아니면 SMARTSTORE_RABBITMQ__PREFIX나 SMARTSTORE_RABBITMQ__MAX_ANSWERS를 확인해 주세요."
        ) from error


async def _declare(channel: AbstractChannel, name: str, arguments: Arguments) -> None:
    with _named(name):
        await channel.declare_queue(name, durable=True, arguments=arguments)
