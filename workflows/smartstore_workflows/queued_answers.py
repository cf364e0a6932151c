"""Answers that workers write: the question goes through the queue, its events come back through the run's stream."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from smartstore_indexing.errors import Busy, FaqError, Overloaded
from smartstore_indexing.messages import written
from smartstore_indexing.queues import ANSWER_REQUESTED, Queues
from smartstore_indexing.settings import Settings
from smartstore_workflows import wire
from smartstore_workflows.answer_requests import AnswerAsked, asked
from smartstore_workflows.chatbot import Chatbot
from smartstore_workflows.events import Turn
from smartstore_workflows.redis_server import RedisServer
from smartstore_workflows.run_readers import RunReaders

RETRY_AFTER_SECONDS = 5
TAKE_OVER_SECONDS = 30.0  # until another worker has the run of one that is gone without a word
SLACK_SECONDS = 2.0  # for the worker to say itself that it was too late
BUSY = "지금 질문이 많거나 답하는 서버가 멈춰 있습니다. 잠시 후 다시 질문해 주세요."


class QueuedAnswers:
    """Answers as the bot does, only that a worker of any process writes them."""

    def __init__(self, *, bot: Chatbot, queues: Queues, readers: RunReaders, wait_seconds: float) -> None:
        """Borrow the bot, which checks what is asked; an answer begins within `wait_seconds`, or not at all."""
        self._bot = bot
        self._queues = queues
        self._readers = readers
        self._wait_seconds = wait_seconds

    async def stream(
        self,
        question: str,
        *,
        session_id: str | None = None,
        faq_id: str | None = None,
        model: str | None = None,
        history: Sequence[Turn] | None = None,
        request_id: str | None = None,
        run_id: str | None = None,
    ) -> AsyncGenerator[wire.StreamEvent, None]:
        """Yield the events of one answer; takes and raises what `Chatbot.stream` does.

        Raises:
            Overloaded: too many questions wait, or no worker took this one in time.
            StoreUnavailable: Redis or RabbitMQ does not answer.
        """
        checked = await self._bot.checked(question, faq_id, model)
        request = asked(
            checked.question,
            wait_seconds=self._wait_seconds,
            session_id=session_id,
            faq_id=faq_id,
            model=model,
            history=history,
            request_id=request_id,
            run_id=run_id,
        )
        events = answer_of(
            request,
            queues=self._queues,
            readers=self._readers,
            routing_key=ANSWER_REQUESTED,
            wait_seconds=self._wait_seconds + SLACK_SECONDS,
        )
        async with aclosing(events):
            async for event in events:
                yield event


@asynccontextmanager
async def opened_readers(settings: Settings, server: RedisServer) -> AsyncIterator[RunReaders]:
    """Yield what reads the runs of workers."""
    readers = RunReaders(
        server,
        call_seconds=settings.redis.timeout_seconds,
        silence_seconds=settings.question_timeout_seconds + TAKE_OVER_SECONDS,
    )
    async with readers.open():
        yield readers


async def answer_of(
    request: AnswerAsked,
    *,
    queues: Queues,
    readers: RunReaders,
    routing_key: str,
    wait_seconds: float,
) -> AsyncGenerator[wire.StreamEvent, None]:
    """Publish a request and yield the events of its answer; close the iterator to stop the run.

    Raises:
        Overloaded: the queue is full, or no worker began within `wait_seconds`.
        StoreUnavailable: Redis or RabbitMQ does not answer.
        TransientError: it fell silent.
        FaqError: why the worker could not begin.
    """
    async with readers.reading(request.run_id) as reader:
        await queues.publish(routing_key, written(request), message_id=request.run_id)
        try:
            first = await reader.next(wait_seconds)
        except TimeoutError as error:
            raise Overloaded(BUSY, retry_after=RETRY_AFTER_SECONDS) from error
        if isinstance(first.data, wire.Failure):
            raise _error_of(first.data)
        yield first
        async with aclosing(reader.rest()) as events:
            async for event in events:
                yield event


def _error_of(failure: wire.Failure) -> FaqError:
    """Return the error that a worker told, so that the door says of it what it says of its own."""
    kind = _kinds(FaqError).get(failure.code, FaqError)
    if issubclass(kind, Busy):
        return kind(failure.message, retry_after=RETRY_AFTER_SECONDS)
    return kind(failure.message)


def _kinds(kind: type[FaqError]) -> dict[str, type[FaqError]]:
    found = {kind.code: kind}
    for below in kind.__subclasses__():
        found |= _kinds(below)
    return found
