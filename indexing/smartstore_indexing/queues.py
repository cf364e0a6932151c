"""Work that waits for a worker: which queues there are, what becomes of a message, and what each kind of queue does.

A message is worked on at least once: after a lost connection or a killed worker it comes again, with the same id, so a
handler does its work once an id. It is settled when its handler has returned, so what the handler did must be durable.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

import structlog

from smartstore_indexing.errors import FaqError, InvalidRequest, Overloaded, PermanentError, UnknownResource

log = structlog.get_logger(__name__)
INDEX, ANSWERS, BATCH = "index", "answers", "answers.batch"
INDEX_REQUESTED, ANSWER_REQUESTED, BATCH_REQUESTED = "index.requested", "answer.requested", "answer.requested.batch"
INDEX_PROGRESS, INDEX_SUCCEEDED, INDEX_FAILED = "index.progress", "index.succeeded", "index.failed"
DELIVERY_LIMIT = 20  # times that a message may come back from workers that end; RabbitMQ 4's default
MAX_DEAD = 10_000  # dead letters of a queue; the oldest go
MAX_EVENTS = 1_000  # that wait for one subscriber; the oldest go
MAX_REASON = 500
RETRY_AFTER_SECONDS = 5
BROKEN = "처리하는 중에 예상하지 못한 오류가 났습니다. 워커의 로그를 확인해 주세요."
ABANDONED = f"처리하던 워커가 {DELIVERY_LIMIT}번 넘게 도중에 끝났습니다. 워커의 로그를 확인해 주세요."

Event = tuple[str, bytes]  # a routing key and a body


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """A queue of work: what is published with its routing key waits in it, at most `max_length` messages.

    A message that is to be tried again comes back after each of `retry_seconds`, then goes to the dead letters. With
    `one_at_a_time` one consumer of all processes takes messages, until it stops or its process ends.
    """

    name: str
    routing_key: str
    max_length: int
    retry_seconds: tuple[float, ...] = (1.0, 10.0, 60.0)
    one_at_a_time: bool = False


def work_queues(max_answers: int) -> tuple[WorkQueue, ...]:
    """Return the queues of the program; `max_answers` bounds the questions that wait for an answer."""
    return (
        WorkQueue(INDEX, INDEX_REQUESTED, max_length=1_000, one_at_a_time=True),
        # Whoever asked waits: a minute later nobody does.
        WorkQueue(ANSWERS, ANSWER_REQUESTED, max_length=max_answers, retry_seconds=(1.0, 3.0)),
        WorkQueue(BATCH, BATCH_REQUESTED, max_length=100_000),
    )


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as its handler gets it: `attempt` counts from 1, `redelivered` tells of one that was not settled."""

    message_id: str
    body: bytes
    attempt: int
    redelivered: bool


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up, why, when (Unix seconds) and after how many attempts."""

    message_id: str
    reason: str
    died_at: float
    attempts: int
    body: bytes


Handler = Callable[[Delivery], Awaitable[None]]
Settled = Callable[[str, "Outcome"], None]  # is told of each message's queue, and what became of it


class Outcome(Enum):
    """What becomes of a message when its handler has ended; when it was cancelled, nothing: it is delivered again."""

    DONE = auto()
    """Its work is done: acknowledged."""
    RETRY = auto()
    """It may succeed later: it comes back after a delay, one attempt counted."""
    DEAD = auto()
    """It cannot succeed, or did not in all its attempts: it goes to the dead letters with the reason."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, with the reason for people and the seconds until the next attempt."""

    outcome: Outcome
    reason: str = ""
    delay: float = 0.0


def untold(queue: str, outcome: Outcome) -> None:
    """Tell nobody."""


async def handled(handler: Handler, delivery: Delivery, work: WorkQueue, settled: Settled) -> Verdict:
    """Let a handler work on a message, and return what becomes of it, which `settled` is told of."""
    verdict = await _verdict(handler, delivery, work)
    settled(work.name, verdict.outcome)
    return verdict


async def _verdict(handler: Handler, delivery: Delivery, work: WorkQueue) -> Verdict:
    try:
        await handler(delivery)
    except (InvalidRequest, PermanentError) as error:
        return Verdict(Outcome.DEAD, error.message[:MAX_REASON])
    except FaqError as error:
        reason = error.message
    except Exception:  # the edge of a message: the worker goes on
        log.exception("message failed", queue=work.name, attempt=delivery.attempt)
        reason = BROKEN
    else:
        return Verdict(Outcome.DONE)
    if delivery.attempt > len(work.retry_seconds):
        return Verdict(Outcome.DEAD, reason[:MAX_REASON])
    return Verdict(Outcome.RETRY, reason[:MAX_REASON], work.retry_seconds[delivery.attempt - 1])


class Queues(Protocol):
    """The queues, of one process or of all that share a broker; queues are told by their names, as INDEX."""

    async def publish(self, routing_key: str, body: bytes, *, message_id: str) -> None:
        """Return once the message is safe: in its queue of work, or, as an event, with whoever subscribes.

        Raises:
            Overloaded: the queue is full.
            StoreUnavailable: the broker does not answer; the message may have arrived all the same.
            Misconfigured: the broker refuses us, or has the queues with other arguments.
        """

    async def consume(
        self, queue: str, handler: Handler, *, prefetch: int, stopping: asyncio.Event, drain_seconds: float
    ) -> None:
        """Work on a queue's messages, at most `prefetch` at once, until `stopping` is set and those running ended.

        They have `drain_seconds`, then they are cancelled, as all are when this call is or the connection is lost. A
        handler that is cancelled must end; its message is delivered again.

        Raises:
            Misconfigured: the broker refuses us, or has the queues with other arguments. One away is waited for.
        """

    async def depth(self, queue: str) -> int:
        """Return how many messages wait, without those being worked on; StoreUnavailable as in publish."""

    async def dead_letters(self, queue: str, *, limit: int) -> list[DeadLetter]:
        """Return at most `limit` dead letters, the oldest first; they stay. StoreUnavailable as in publish."""

    async def requeue(self, queue: str, message_id: str) -> bool:
        """Give a dead letter back to its queue, its attempts counted anew; False when there is none of that id.

        Raises:
            Overloaded: the queue is full.
            StoreUnavailable: as in publish.
        """

    def subscribe(self, *routing_keys: str) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Hand out the events of these routing keys from now on; those that come while the broker is away are lost."""

    async def ping(self) -> None:
        """Raise StoreUnavailable unless messages can be taken."""

    async def close(self) -> None:
        """Close the connections; consumers are stopped before."""


def named(queues: tuple[WorkQueue, ...], name: str) -> WorkQueue:
    """Return the queue of that name; UnknownResource when there is none."""
    for work in queues:
        if work.name == name:
            return work
    raise UnknownResource(f"{name} 큐가 없습니다. 쓸 수 있는 큐: {', '.join(work.name for work in queues)}")


def full() -> Overloaded:
    """Return the error of a queue that takes no more."""
    return Overloaded("기다리는 요청이 많습니다. 잠시 뒤에 다시 시도해 주세요.", retry_after=RETRY_AFTER_SECONDS)
