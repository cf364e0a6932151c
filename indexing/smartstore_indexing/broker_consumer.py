"""One connection's work on one queue of RabbitMQ, until it is told to stop or the connection is lost."""

import asyncio
import time
from collections.abc import Awaitable

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue, HeadersType

from smartstore_indexing.broker_connection import AWAY, channel_of
from smartstore_indexing.envelopes import DIED_AT, REASON, RETRIES, delivery, enveloped, send
from smartstore_indexing.errors import StoreUnavailable
from smartstore_indexing.in_flight import InFlight, first_of
from smartstore_indexing.queues import Handler, Outcome, Settled, WorkQueue, handled
from smartstore_indexing.topology import Topology

log = structlog.get_logger(__name__)


class Consumer:
    """Hands a queue's messages to a handler, each in a task of its own, and settles them as it ends."""

    def __init__(
        self,
        *,
        topology: Topology,
        work: WorkQueue,
        handler: Handler,
        settled: Settled,
        timeout: float,
        watch_seconds: float,
    ) -> None:
        """Work once; the next connection takes a new one."""
        self._topology = topology
        self._work = work
        self._handler = handler
        self._tell = settled
        self._timeout = timeout
        self._watch_seconds = watch_seconds
        self._lost = asyncio.Event()
        self._running = InFlight()

    async def run(
        self, connection: AbstractConnection, *, prefetch: int, stopping: asyncio.Event, drain_seconds: float
    ) -> None:
        """Consume until `stopping` is set or the connection is lost; every handler has ended on return.

        Raises:
            StoreUnavailable: the connection was lost.
        """
        async with channel_of(connection, self._timeout) as channel:

            async def take(message: AbstractIncomingMessage) -> None:
                # In a task of our own: aio-pika would cancel this one as soon as the connection drops.
                self._running.start(self._work_on(channel, message), then=self._settled)

            try:
                await self._notice_loss(connection, channel)
                queue = await channel.get_queue(self._topology.queue(self._work), ensure=False)
                async with asyncio.timeout(self._timeout):
                    await channel.set_qos(prefetch)
                    tag = await queue.consume(take)
                await self._until(stopping.wait(), channel, queue)
                async with asyncio.timeout(self._timeout):
                    await queue.cancel(tag)
                await self._until(self._running.drained(drain_seconds), channel, queue)
            finally:
                await self._running.cancel()

    async def _notice_loss(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        def lose(*_: object) -> None:
            self._lost.set()

        connection.close_callbacks.add(lose)
        channel.close_callbacks.add(lose)
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(lose)  # its queue was deleted

    async def _until(self, wait: Awaitable[object], channel: AbstractChannel, queue: AbstractQueue) -> None:
        """Return when the wait is over; raise when the connection is lost, or stalls."""
        await first_of(wait, self._lost.wait(), self._watch(channel, queue))
        if self._lost.is_set():
            raise StoreUnavailable(AWAY)

    async def _watch(self, channel: AbstractChannel, queue: AbstractQueue) -> None:
        while True:
            await asyncio.sleep(self._watch_seconds)
            async with asyncio.timeout(self._watch_seconds):
                await channel.declare_queue(queue.name, passive=True)

    def _settled(self, ended: bool) -> None:
        if not ended:
            self._lost.set()  # only a closed channel gives a message back that nobody settled

    async def _work_on(self, channel: AbstractChannel, message: AbstractIncomingMessage) -> None:
        delivered = delivery(message)
        verdict = await handled(self._handler, delivered, self._work, self._tell)
        if verdict.outcome is Outcome.RETRY:
            delay = self._topology.retry(self._work, verdict.delay)
            await self._move(channel, message, delay, {RETRIES: delivered.attempt})
        elif verdict.outcome is Outcome.DEAD:
            log.warning("message dead-lettered", queue=self._work.name, attempts=delivered.attempt)
            headers: HeadersType = {
                RETRIES: delivered.attempt - 1,
                REASON: verdict.reason,
                DIED_AT: round(time.time()),
            }
            await self._move(channel, message, self._topology.dead(self._work), headers)
        await message.ack()

    async def _move(
        self, channel: AbstractChannel, message: AbstractIncomingMessage, queue: str, headers: HeadersType
    ) -> None:
        # First there, then away from here: a crash in between doubles the message and never loses it.
        copy = enveloped(message.body, delivery(message).message_id, headers)
        async with asyncio.timeout(self._timeout):
            await send(channel, queue, copy)
