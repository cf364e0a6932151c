"""The worker of the answer queues: it answers what is asked there, and writes each event into the run's stream.

A run that its worker left, killed or cut off, comes again: its reader is told to throw the tokens away, then gets the
whole answer. An answer that was written whole is only ended, for its turn may stand in the conversation already: none
stands there twice, and one is lost when a worker is killed in the moment between the last event and the conversation.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

import structlog

from smartstore_indexing.errors import FaqError, Overloaded, TransientError
from smartstore_indexing.messages import read
from smartstore_indexing.queues import ANSWERS, BATCH, Delivery, Queues
from smartstore_workflows import wire
from smartstore_workflows.answer_requests import AnswerAsked, Answers
from smartstore_workflows.events import Usage
from smartstore_workflows.run_streams import RunState, RunStreams, Superseded

log = structlog.get_logger(__name__)
TAKEN_OVER = "답변하던 서버가 멈춰 다른 서버가 처음부터 다시 답합니다."
LATE = "지금 질문이 많아 제때 답하지 못했습니다. 잠시 후 다시 질문해 주세요."
RETRY_AFTER_SECONDS = 5
BATCH_LOOK_SECONDS = 0.2


class RunWriter:
    """Writes the events of one run, numbered on from those that are there."""

    def __init__(self, streams: RunStreams, asked: AnswerAsked, state: RunState) -> None:
        """Go on after a run's last event."""
        self._streams = streams
        self._asked = asked
        self._last_id = state.last_id

    @property
    def silent(self) -> bool:
        """Tell whether nothing was said yet."""
        return not self._last_id

    async def say(self, name: wire.EventName, data: wire.Data) -> None:
        """Write the next event; raises what RunStreams.append does."""
        self._last_id += 1
        await self._streams.append(self._asked.run_id, wire.StreamEvent(id=self._last_id, event=name, data=data))

    async def fail(self, code: str, message: str, *, retryable: bool = True) -> None:
        """End the run without its answer."""
        request_id = self._asked.request_id or self._asked.run_id
        await self.say("error", wire.Failure(code=code, message=message, retryable=retryable, request_id=request_id))
        await self.end()

    async def end(self) -> None:
        """Write the last event of a run that the bot did not end."""
        await self.say("done", wire.Done(run_id=self._asked.run_id, timings_ms={}, usage=Usage()))


class AnswerWorker:
    """Works on both answer queues; the batch waits while anybody waits for an answer."""

    def __init__(self, *, answers: Answers, streams: RunStreams, queues: Queues) -> None:
        """Borrow what answers, the open streams and the queues."""
        self._answers = answers
        self._streams = streams
        self._queues = queues
        self._running = 0
        self._stopping = asyncio.Event()

    async def work(self, *, prefetch: int, stopping: asyncio.Event, drain_seconds: float) -> None:
        """Answer, at most `prefetch` questions at once, until `stopping` is set and those that run have ended.

        Raises:
            Misconfigured: what Queues.consume raises.
        """
        self._stopping = stopping
        consumers = [
            asyncio.ensure_future(
                self._queues.consume(queue, handler, prefetch=most, stopping=stopping, drain_seconds=drain_seconds)
            )
            for queue, handler, most in ((ANSWERS, self.answer, prefetch), (BATCH, self.answer_batch, 1))
        ]
        try:
            await asyncio.gather(*consumers)
        finally:  # none outlives the other
            for consumer in consumers:
                consumer.cancel()
            await asyncio.gather(*consumers, return_exceptions=True)

    async def answer(self, delivery: Delivery) -> None:
        """Answer a question that somebody waits for.

        Raises:
            InvalidRequest: the message is no question.
            TransientError: nothing was said of it yet, and later it may be answered.
        """
        with self._counted():
            await self._answer(delivery)

    async def answer_batch(self, delivery: Delivery) -> None:
        """Answer a question of the batch, once no other is answered here or waits anywhere; raises as `answer`."""
        read(AnswerAsked, delivery.body)  # what is no question does not wait
        while self._stopping.is_set() or self._running or await self._queues.depth(ANSWERS):
            if self._stopping.is_set():
                raise asyncio.CancelledError  # settles nothing: another worker gets it
            await asyncio.sleep(BATCH_LOOK_SECONDS)
        await self._answer(delivery)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _answer(self, delivery: Delivery) -> None:
        asked = read(AnswerAsked, delivery.body)
        structlog.contextvars.bind_contextvars(request_id=asked.request_id, run_id=asked.run_id)
        state = await self._streams.state(asked.run_id)
        came_again = delivery.redelivered or delivery.attempt > 1
        if state.last_event == "done" or (state.last_id and not came_again):
            return  # the message was sent twice, and its twin is being worked on
        writer = RunWriter(self._streams, asked, state)
        started = time.perf_counter()
        try:
            if not await self._settled(asked, state, writer):
                await self._run(asked, state, writer)
        except Superseded:
            log.warning("run taken over by another worker")
            return
        except FaqError as error:
            if writer.silent and isinstance(error, TransientError) and delivery.attempt == 1:
                raise
            await writer.fail(error.code, error.message, retryable=isinstance(error, TransientError))
        except Exception:  # the edge of a run: whoever waits is told; the queue tells the log
            await writer.fail(wire.INTERNAL, wire.BROKEN)
            raise
        log.info("run ended", seconds=round(time.perf_counter() - started, 2), attempt=delivery.attempt)

    async def _settled(self, asked: AnswerAsked, state: RunState, writer: RunWriter) -> bool:
        """End a run that needs no answer, or no other, and tell whether it was one."""
        if state.last_event in ("suggestions", "error"):
            await writer.end()
        elif state.cancelled:
            await writer.fail(wire.CANCELLED, wire.STOPPED)
        elif writer.silent and time.time() > asked.deadline:
            raise Overloaded(LATE, retry_after=RETRY_AFTER_SECONDS)
        else:
            return False
        return True

    async def _run(self, asked: AnswerAsked, state: RunState, writer: RunWriter) -> None:
        if state.last_id:
            await writer.say("restart", wire.Restart(reason=TAKEN_OVER))
        events = self._answers.stream(
            asked.question or "",
            session_id=asked.session_id,
            faq_id=asked.faq_id,
            model=asked.model,
            history=asked.history,
            request_id=asked.request_id,
            run_id=asked.run_id,
        )
        with self._streams.stoppable(asked.run_id) as scope:
            async with aclosing(events):
                async for event in events:
                    if event.event != "started" or not state.last_id:
                        await writer.say(event.event, event.data)
        if scope.cancelled_caught:
            await writer.fail(wire.CANCELLED, wire.STOPPED)
