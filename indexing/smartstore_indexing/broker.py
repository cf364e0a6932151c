"""The queues that processes share, in RabbitMQ. It may go away at any time.

What was confirmed stays, what was not settled comes again, and every call and consumer connects anew.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from smartstore_indexing.broker_connection import address, channel_of, close, connected, is_open, told_as_ours
from smartstore_indexing.broker_consumer import Consumer
from smartstore_indexing.envelopes import dead_letter, enveloped, id_of, send
from smartstore_indexing.errors import Overloaded, StoreUnavailable
from smartstore_indexing.in_flight import Mailbox, first_of
from smartstore_indexing.queues import (
    MAX_DEAD,
    MAX_EVENTS,
    DeadLetter,
    Event,
    Handler,
    Settled,
    WorkQueue,
    named,
    untold,
)
from smartstore_indexing.setting_groups import RabbitMQSettings
from smartstore_indexing.topology import Topology

log = structlog.get_logger(__name__)
TRIES = 3  # of a publish, on a new connection when one was lost
PAUSE_SECONDS = 0.2
RECONNECT_SECONDS = 1.0


class Broker:
    """Queues in RabbitMQ; what each method returns and raises is told by `queues.Queues`."""

    def __init__(self, settings: RabbitMQSettings, queues: Sequence[WorkQueue], *, settled: Settled = untold) -> None:
        """Connect when first used; Misconfigured when the address cannot be read."""
        self._settled = settled
        self._url = address(settings)
        self._queues = tuple(queues)
        self._keys = {work.routing_key for work in queues}
        self._topology = Topology(settings.prefix, self._queues)
        self._timeout = settings.timeout_seconds
        # Twice a heartbeat: a worker that lost RabbitMQ stops before that, after two, gives its message to another.
        self._watch_seconds = settings.heartbeat_seconds / 2
        self._connecting = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._publishing: AbstractChannel | None = None

    async def publish(self, routing_key: str, body: bytes, *, message_id: str) -> None:
        """Return once the broker has the message on its disks; StoreUnavailable or Overloaded when it has not."""
        for left in reversed(range(TRIES)):
            try:
                await self._publish(routing_key, body, message_id)
            except (StoreUnavailable, Overloaded):  # a queue without a leader refuses as a full one does
                if not left:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return

    async def _publish(self, routing_key: str, body: bytes, message_id: str) -> None:
        async with self._shared() as connection, asyncio.timeout(self._timeout):
            channel = await self._publishing_on(connection)
            exchange = await channel.get_exchange(self._topology.exchange, ensure=False)
            message = enveloped(body, message_id)
            await exchange.publish(message, routing_key, mandatory=routing_key in self._keys)

    async def _publishing_on(self, connection: AbstractConnection) -> AbstractChannel:
        async with self._connecting:
            if self._publishing is None or self._publishing.is_closed:
                self._publishing = await connection.channel(on_return_raises=True)
            return self._publishing

    async def consume(
        self, queue: str, handler: Handler, *, prefetch: int, stopping: asyncio.Event, drain_seconds: float
    ) -> None:
        """Work on a queue's messages until `stopping` is set and those running ended; wait for an absent broker."""
        work = named(self._queues, queue)
        while not stopping.is_set():
            try:
                connection = await self._connected()
                try:
                    consumer = Consumer(
                        topology=self._topology,
                        work=work,
                        handler=handler,
                        settled=self._settled,
                        timeout=self._timeout,
                        watch_seconds=self._watch_seconds,
                    )
                    await consumer.run(connection, prefetch=prefetch, stopping=stopping, drain_seconds=drain_seconds)
                finally:
                    await close(connection)
            except StoreUnavailable as error:
                log.warning("queue lost, connecting again", queue=queue, code=error.code)
            await first_of(stopping.wait(), asyncio.sleep(RECONNECT_SECONDS))

    async def depth(self, queue: str) -> int:
        """Return how many messages wait; StoreUnavailable when the broker does not answer."""
        name = self._topology.queue(named(self._queues, queue))
        async with self._channel() as channel, asyncio.timeout(self._timeout):
            declared = await channel.declare_queue(name, passive=True)
        return declared.declaration_result.message_count or 0

    async def dead_letters(self, queue: str, *, limit: int) -> list[DeadLetter]:
        """Return at most `limit` dead letters, the oldest first; StoreUnavailable when the broker does not answer."""
        work = named(self._queues, queue)
        async with self._channel() as channel:
            return [dead_letter(message) async for message in self._dead(channel, work, limit)]

    async def requeue(self, queue: str, message_id: str) -> bool:
        """Give a dead letter back to its queue; False when there is none of that id, Overloaded when it is full."""
        work = named(self._queues, queue)
        async with self._channel() as channel:
            dead = self._dead(channel, work, MAX_DEAD)
            found = [message async for message in dead if id_of(message) == message_id]
            if found:
                again = enveloped(found[0].body, message_id)
                async with asyncio.timeout(self._timeout):
                    await send(channel, self._topology.queue(work), again)
            for message in found:
                await message.ack()
        return bool(found)

    @asynccontextmanager
    async def subscribe(self, *routing_keys: str) -> AsyncIterator[AsyncIterator[Event]]:
        """Hand out the events of these routing keys; StoreUnavailable when the broker does not answer."""
        mailbox: Mailbox[Event | None] = Mailbox(MAX_EVENTS)
        connections = [await self._listening(routing_keys, mailbox)]
        try:
            yield self._events(routing_keys, mailbox, connections)
        finally:
            await close(connections[-1])

    async def ping(self) -> None:
        """Raise StoreUnavailable unless the broker answers."""
        async with self._channel() as channel, asyncio.timeout(self._timeout):
            await channel.declare_exchange(self._topology.exchange, passive=True)

    async def close(self) -> None:
        """Close the connection that calls share; those of consumers and subscribers end with them."""
        async with self._connecting:
            if self._connection is not None:
                await close(self._connection)
                self._connection = None

    async def _connected(self) -> AbstractConnection:
        return await connected(self._url, self._topology, self._timeout)

    @asynccontextmanager
    async def _shared(self) -> AsyncIterator[AbstractConnection]:
        """Yield the connection that calls share, opened where there is none; when it fails it is given up."""
        async with self._connecting:
            if self._connection is None or not is_open(self._connection):
                self._connection = await self._connected()
                self._publishing = None
            connection = self._connection
        try:
            with told_as_ours():
                yield connection
        except StoreUnavailable:
            async with self._connecting:
                if self._connection is connection:
                    self._connection = None
            await close(connection)
            raise

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        """Yield a channel of the caller's own: what it got and did not settle goes back when it ends."""
        async with self._shared() as connection, channel_of(connection, self._timeout) as channel:
            yield channel

    async def _dead(
        self, channel: AbstractChannel, work: WorkQueue, limit: int
    ) -> AsyncIterator[AbstractIncomingMessage]:
        queue = await channel.get_queue(self._topology.dead(work), ensure=False)
        for _ in range(limit):
            async with asyncio.timeout(self._timeout):
                message = await queue.get(fail=False, timeout=None)
            if message is None:
                return
            yield message

    async def _events(
        self, keys: Sequence[str], mailbox: Mailbox[Event | None], connections: list[AbstractConnection]
    ) -> AsyncIterator[Event]:
        while True:
            event = await mailbox.get()
            if event is not None:
                yield event
                continue
            await asyncio.sleep(RECONNECT_SECONDS)
            try:
                connections[:] = [await self._listening(keys, mailbox)]
            except StoreUnavailable:
                mailbox.put(None)

    async def _listening(self, keys: Sequence[str], mailbox: Mailbox[Event | None]) -> AbstractConnection:
        """Return a connection whose events go to the mailbox, and None when it is lost."""

        async def put(message: AbstractIncomingMessage) -> None:
            mailbox.put((message.routing_key or "", message.body))

        connection = await self._connected()
        try:
            with told_as_ours():
                async with asyncio.timeout(self._timeout):
                    channel = await connection.channel()
                    queue = await channel.declare_queue(exclusive=True, auto_delete=True)
                    for key in keys:
                        await queue.bind(self._topology.exchange, key)
                    await queue.consume(put, no_ack=True)
        except BaseException:
            await close(connection)
            raise
        connection.close_callbacks.add(lambda *_: mailbox.put(None))
        if not is_open(connection):  # it was lost meanwhile
            mailbox.put(None)
        return connection
