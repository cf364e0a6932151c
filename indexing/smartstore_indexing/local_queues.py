"""The queues of one process, in its memory: without a broker, and with the same results. What waits ends with it."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import structlog

from smartstore_indexing.in_flight import InFlight, Mailbox, first_of
from smartstore_indexing.queues import (
    ABANDONED,
    DELIVERY_LIMIT,
    MAX_DEAD,
    MAX_EVENTS,
    DeadLetter,
    Delivery,
    Event,
    Handler,
    Outcome,
    Settled,
    WorkQueue,
    full,
    handled,
    named,
    untold,
)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Message:
    message_id: str
    body: bytes
    attempt: int = 1
    returned: int = 0  # times in this attempt that its handler did not end


@dataclass(slots=True)
class _Line:
    """One queue, and the consumer that holds it where one alone may."""

    work: WorkQueue
    waiting: deque[_Message] = field(default_factory=deque)
    dead: deque[DeadLetter] = field(default_factory=lambda: deque(maxlen=MAX_DEAD))
    holder: InFlight | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def change(self) -> None:
        """Wake the consumers."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def put(self, message: _Message) -> None:
        self.waiting.append(message)
        self.change()

    def settle(self, message: _Message, ended: bool) -> None:
        """Let a message whose handler did not end be the next one, or give it up; the consumer has room again."""
        if not ended:
            message.returned += 1
            if message.returned > DELIVERY_LIMIT:
                self.bury(message, ABANDONED)
            else:
                self.waiting.appendleft(message)
        self.change()

    def bury(self, message: _Message, reason: str) -> None:
        log.warning("message dead-lettered", queue=self.work.name, attempts=message.attempt)
        self.dead.append(DeadLetter(message.message_id, reason, time.time(), message.attempt, message.body))

    def take(self, consumer: InFlight) -> _Message | None:
        """Return the next message, None when there is none for this consumer."""
        if self.work.one_at_a_time:
            if self.holder is None:
                self.holder = consumer
            if self.holder is not consumer:
                return None
        return self.waiting.popleft() if self.waiting else None

    def leave(self, consumer: InFlight) -> None:
        if self.holder is consumer:
            self.holder = None
            self.change()


class LocalQueues:
    """Queues in memory; what each method returns and raises is told by `queues.Queues`."""

    def __init__(self, queues: Sequence[WorkQueue], *, settled: Settled = untold) -> None:
        """Begin with empty queues."""
        self._settled = settled
        self._queues = tuple(queues)
        self._lines = {work.name: _Line(work) for work in queues}
        self._subscribers: list[tuple[frozenset[str], Mailbox[Event]]] = []
        self._delayed: set[asyncio.TimerHandle] = set()

    async def publish(self, routing_key: str, body: bytes, *, message_id: str) -> None:
        """Put a message in its queue and hand it to the subscribers; Overloaded when the queue is full."""
        for line in self._lines.values():
            if line.work.routing_key == routing_key:
                self._put(line, _Message(message_id, body))
        for keys, mailbox in self._subscribers:
            if routing_key in keys:
                mailbox.put((routing_key, body))

    async def consume(
        self, queue: str, handler: Handler, *, prefetch: int, stopping: asyncio.Event, drain_seconds: float
    ) -> None:
        """Work on a queue's messages until `stopping` is set and those running ended."""
        line, running = self._line(queue), InFlight()
        try:
            while not stopping.is_set():
                changed = line.changed
                while len(running) < prefetch and (message := line.take(running)) is not None:
                    running.start(self._work_on(line, message, handler), partial(line.settle, message))
                await first_of(changed.wait(), stopping.wait())
            await running.drained(drain_seconds)
        finally:
            await running.cancel()
            line.leave(running)

    async def depth(self, queue: str) -> int:
        """Return how many messages wait."""
        return len(self._line(queue).waiting)

    async def dead_letters(self, queue: str, *, limit: int) -> list[DeadLetter]:
        """Return at most `limit` dead letters, the oldest first."""
        return list(self._line(queue).dead)[: max(0, limit)]

    async def requeue(self, queue: str, message_id: str) -> bool:
        """Give a dead letter back to its queue; False when there is none of that id, Overloaded when it is full."""
        line = self._line(queue)
        found = [letter for letter in line.dead if letter.message_id == message_id]
        if not found:
            return False
        self._put(line, _Message(message_id, found[0].body))
        for letter in found:
            line.dead.remove(letter)
        return True

    @asynccontextmanager
    async def subscribe(self, *routing_keys: str) -> AsyncIterator[AsyncIterator[Event]]:
        """Hand out the events of these routing keys from now on."""
        mailbox: Mailbox[Event] = Mailbox(MAX_EVENTS)
        subscriber = (frozenset(routing_keys), mailbox)
        self._subscribers.append(subscriber)
        try:
            yield _events(mailbox)
        finally:
            self._subscribers.remove(subscriber)

    async def ping(self) -> None:
        """Return: memory is always there."""

    async def close(self) -> None:
        """Forget the messages that wait for their next attempt."""
        for timer in self._delayed:
            timer.cancel()
        self._delayed.clear()

    def _line(self, queue: str) -> _Line:
        return self._lines[named(self._queues, queue).name]

    def _put(self, line: _Line, message: _Message) -> None:
        if len(line.waiting) >= line.work.max_length:
            raise full()
        line.put(message)

    async def _work_on(self, line: _Line, message: _Message, handler: Handler) -> None:
        delivery = Delivery(message.message_id, message.body, message.attempt, redelivered=message.returned > 0)
        verdict = await handled(handler, delivery, line.work, self._settled)
        if verdict.outcome is Outcome.DEAD:
            line.bury(message, verdict.reason)
        elif verdict.outcome is Outcome.RETRY:
            self._put_later(line, _Message(message.message_id, message.body, message.attempt + 1), verdict.delay)

    def _put_later(self, line: _Line, message: _Message, seconds: float) -> None:
        def put() -> None:
            self._delayed.discard(timer)
            line.put(message)

        timer = asyncio.get_running_loop().call_later(seconds, put)
        self._delayed.add(timer)


async def _events(mailbox: Mailbox[Event]) -> AsyncIterator[Event]:
    while True:
        yield await mailbox.get()
