"""What the answer worker does, behind the queues of one process and behind RabbitMQ, and what asks it."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace

import aio_pika
import pytest
from brokers import RabbitProcess, until
from stores import eventually

from smartstore_indexing.broker import Broker
from smartstore_indexing.errors import (
    FaqError,
    ModelUnavailable,
    Overloaded,
    TransientError,
    UnknownResource,
)
from smartstore_indexing.local_queues import LocalQueues
from smartstore_indexing.messages import MAX_BODY_BYTES, written
from smartstore_indexing.queues import (
    ANSWER_REQUESTED,
    ANSWERS,
    BATCH,
    BATCH_REQUESTED,
    Delivery,
    Queues,
    WorkQueue,
    work_queues,
)
from smartstore_indexing.setting_groups import RabbitMQSettings, RedisSettings
from smartstore_indexing.topology import Topology
from smartstore_workflows import Chatbot, wire
from smartstore_workflows.answer_requests import AnswerAsked, asked
from smartstore_workflows.answer_worker import AnswerWorker
from smartstore_workflows.events import Turn, Usage
from smartstore_workflows.queued_answers import QueuedAnswers, answer_of
from smartstore_workflows.redis_server import RedisServer
from smartstore_workflows.run_readers import RunReaders
from smartstore_workflows.run_streams import RunStreams

TOKENS = ["하나", " 둘", " 셋", " 넷"]
QUESTION = "정산은 언제 되나요?"


class Script:
    """Answers with TOKENS, and stands still or fails where the test says; knows what it was asked and what it runs."""

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []
        self.running = self.closed = 0
        self.stands_after: int | None = None
        self.going = asyncio.Event()
        self.refuses: list[Exception] = []
        self.breaks: Exception | None = None

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
        self.asked.append({"question": question, "faq_id": faq_id, "history": history, "session_id": session_id})
        if self.refuses:
            raise self.refuses.pop(0)
        self.running += 1
        try:
            for number, (name, data) in enumerate(self.events(run_id or "", session_id or ""), start=1):
                yield wire.StreamEvent(id=number, event=name, data=data)
                if number == self.stands_after:
                    await self.going.wait()
                if number == 3 and self.breaks:
                    raise self.breaks
        except (asyncio.CancelledError, GeneratorExit):
            self.closed += 1
            raise
        finally:
            self.running -= 1

    @staticmethod
    def events(run_id: str, session_id: str) -> list[tuple[wire.EventName, wire.Data]]:
        text = "".join(TOKENS)
        answer = wire.Answer(kind="answered", text=text, citations=(), cached=False, model="m", degraded=False)
        return [
            ("started", wire.Started(run_id=run_id, session_id=session_id, model="m")),
            *(("token", wire.Token(text=token)) for token in TOKENS),
            ("answer", answer),
            ("suggestions", ()),
            ("done", wire.Done(run_id=run_id, timings_ms={"filter": 1.0}, usage=Usage())),
        ]


NAMES = [name for name, _ in Script.events("", "")]


def shortened(max_answers: int) -> list[WorkQueue]:
    """Return the program's queues with short delays."""
    return [replace(work, retry_seconds=(0.1, 0.2)) for work in work_queues(max_answers)]


@dataclass(frozen=True)
class World:
    """The queues, and what a worker and a door have open."""

    queues: Queues
    streams: RunStreams
    readers: RunReaders

    @asynccontextmanager
    async def working(
        self, script: Script, *, drain_seconds: float = 10.0, prefetch: int = 8
    ) -> AsyncIterator[asyncio.Event]:
        """Work within the block, and yield what stops the worker; a worker that is killed is cancelled."""
        stopping = asyncio.Event()
        worker = AnswerWorker(answers=script, streams=self.streams, queues=self.queues)
        task = asyncio.create_task(worker.work(prefetch=prefetch, stopping=stopping, drain_seconds=drain_seconds))
        try:
            yield stopping
        finally:
            stopping.set()
            async with asyncio.timeout(30):
                await task

    @asynccontextmanager
    async def doomed(self, script: Script) -> AsyncIterator[None]:
        """Work within the block, then end as a process that is killed: nothing is settled."""
        worker = AnswerWorker(answers=script, streams=self.streams, queues=self.queues)
        task = asyncio.create_task(worker.work(prefetch=8, stopping=asyncio.Event(), drain_seconds=0))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def publish(self, request: AnswerAsked, key: str = ANSWER_REQUESTED) -> None:
        await self.queues.publish(key, written(request), message_id=request.run_id)

    def answer(self, request: AnswerAsked, key: str = ANSWER_REQUESTED) -> AsyncGenerator[wire.StreamEvent, None]:
        return answer_of(request, queues=self.queues, readers=self.readers, routing_key=key, wait_seconds=10)

    async def read(self, run_id: str) -> list[wire.StreamEvent]:
        """Return the events of a run that has begun, to its last."""
        async with aclosing(self.readers.replay(run_id)) as events:
            return [event async for event in events]

    async def nothing_left(self) -> bool:
        return not await self.queues.depth(ANSWERS) and not await self.queues.dead_letters(ANSWERS, limit=1)

    async def begun(self, run_id: str, last_id: int = 1) -> None:
        """Return when a run's stream has so many events."""

        async def there() -> bool:
            return (await self.streams.state(run_id)).last_id >= last_id

        await eventually(there)


@asynccontextmanager
async def world_of(queues: Queues, redis: RedisSettings) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        stack.push_async_callback(queues.close)
        servers = [await RedisServer.open(redis) for _ in range(2)]
        for server in servers:
            stack.push_async_callback(server.close)
        streams = await stack.enter_async_context(RunStreams(servers[0]).open())
        readers = RunReaders(servers[1], call_seconds=redis.timeout_seconds, silence_seconds=10)
        yield World(queues, streams, await stack.enter_async_context(readers.open()))


@pytest.fixture(params=["local", "rabbitmq"])
async def world(
    request: pytest.FixtureRequest,
    redis_settings: RedisSettings,
    rabbit_settings: RabbitMQSettings,
    rabbit: RabbitProcess,
) -> AsyncIterator[World]:
    """Yield the world, its queues of each kind; those of answers hold two."""
    works = shortened(max_answers=2)
    if request.param == "local":
        async with world_of(LocalQueues(works), redis_settings) as found:
            yield found
        return
    async with world_of(Broker(rabbit_settings, works), redis_settings) as found:
        yield found
    async with await aio_pika.connect(rabbit.url) as connection, connection.channel() as channel:
        for name in Topology(rabbit_settings.prefix, works).names():
            await channel.queue_delete(name)


@pytest.fixture
def script() -> Script:
    return Script()


def request_of(question: str = QUESTION, *, wait_seconds: float = 30.0, **more: str) -> AnswerAsked:
    return asked(question, wait_seconds=wait_seconds, session_id="대화", request_id="요청", **more)


def told(events: list[wire.StreamEvent]) -> wire.Failure:
    [failure] = [event.data for event in events if isinstance(event.data, wire.Failure)]
    return failure


def said(events: list[wire.StreamEvent]) -> str:
    """Return the text of the tokens since the last restart."""
    text = ""
    for event in events:
        if event.event == "restart":
            text = ""
        if isinstance(event.data, wire.Token):
            text += event.data.text
    return text


async def test_answer_comes_event_by_event_and_the_message_is_settled(world: World, script: Script) -> None:
    script.stands_after = 3
    async with world.working(script), aclosing(world.answer(request_of())) as events:
        first = [await anext(events) for _ in range(3)]
        assert [event.event for event in first] == NAMES[:3]
        script.going.set()
        found = first + [event async for event in events]
    assert [event.event for event in found] == NAMES
    assert [event.id for event in found] == list(range(1, len(NAMES) + 1))
    assert said(found) == "".join(TOKENS)
    assert script.closed == 0
    assert await world.nothing_left()


async def test_worker_is_asked_what_was_asked(world: World, script: Script) -> None:
    turn = Turn(question="앞", standalone="앞", answer="답", kind="answered")
    request = asked("제 번호는 010-1234-5678입니다", wait_seconds=30, session_id="대화", faq_id="abc", history=[turn])
    async with world.working(script), aclosing(world.answer(request)) as events:
        assert [event async for event in events]
    expected = {"question": "제 번호는 [전화번호]입니다", "faq_id": "abc", "history": (turn,), "session_id": "대화"}
    assert script.asked == [expected]


async def test_next_worker_takes_over_the_run_of_one_that_died(world: World, script: Script) -> None:
    dying = Script()
    dying.stands_after = 4
    request = request_of()
    async with aclosing(world.answer(request)) as events:
        async with world.doomed(dying):
            begun = [await anext(events) for _ in range(4)]
        async with world.working(script):
            rest = [event async for event in events]
    assert dying.running == 0
    assert [event.event for event in rest] == ["restart", *NAMES[1:]]
    assert [event.id for event in begun + rest] == list(range(1, 4 + len(rest) + 1))
    assert said(begun + rest) == "".join(TOKENS)
    assert await world.nothing_left()


async def test_answer_that_was_written_whole_is_only_ended(world: World, script: Script) -> None:
    request = request_of()
    for number, (name, data) in enumerate(Script.events(request.run_id, "대화")[:-1], start=1):
        await world.streams.append(request.run_id, wire.StreamEvent(id=number, event=name, data=data))
    worker = AnswerWorker(answers=script, streams=world.streams, queues=world.queues)
    again = Delivery(request.run_id, written(request), attempt=1, redelivered=True)
    await worker.answer(again)
    await worker.answer(again)
    assert [event.event for event in await world.read(request.run_id)] == NAMES
    assert script.asked == []


async def test_question_that_was_published_twice_is_answered_once(world: World, script: Script) -> None:
    script.stands_after = 3
    request = request_of()
    async with world.working(script):
        await world.publish(request)
        await world.publish(request)
        await world.begun(request.run_id, 3)
        script.going.set()
        found = await world.read(request.run_id)
    assert [event.event for event in found] == NAMES
    assert await world.nothing_left()


async def test_worker_that_was_thought_lost_says_nothing_more_and_ends_its_run(world: World, script: Script) -> None:
    script.stands_after = 3
    request = request_of()
    async with world.working(script):
        await world.publish(request)
        await world.begun(request.run_id, 3)
        for number, name in ((4, "restart"), (5, "token")):
            data = wire.Restart(reason="다른 서버") if name == "restart" else wire.Token(text="다른 답")
            await world.streams.append(request.run_id, wire.StreamEvent(id=number, event=name, data=data))
        script.going.set()
        await until(lambda: script.closed == 1)
    assert (await world.streams.state(request.run_id)).last_id == 5


async def test_reader_who_leaves_stops_the_run(world: World, script: Script) -> None:
    script.stands_after = 3
    request = request_of()
    async with world.working(script):
        async with aclosing(world.answer(request)) as events:
            await anext(events)
        left = time.monotonic()
        await until(lambda: script.closed == 1)
        assert time.monotonic() - left < 1.5
        found = await world.read(request.run_id)
    assert told(found).code == "cancelled"
    assert found[-1].event == "done"
    assert await world.nothing_left()


async def test_run_that_nobody_waits_for_any_more_is_not_begun(world: World, script: Script) -> None:
    request = request_of()
    await world.publish(request)
    await world.readers.cancel(request.run_id)
    async with world.working(script):
        await world.begun(request.run_id, 2)
    assert [event.event for event in await world.read(request.run_id)] == ["error", "done"]
    assert script.asked == []


async def test_question_that_waited_too_long_is_not_answered(world: World, script: Script) -> None:
    async with world.working(script), aclosing(world.answer(request_of(wait_seconds=-1))) as events:
        with pytest.raises(Overloaded, match="제때"):
            await anext(events)
    assert script.asked == []


async def test_question_that_cannot_be_answered_is_settled_and_the_seller_told_why(
    world: World, script: Script
) -> None:
    script.refuses = [UnknownResource("그 FAQ는 지금 색인에 없습니다.")]
    async with world.working(script), aclosing(world.answer(request_of())) as events:
        with pytest.raises(UnknownResource, match="색인에 없습니다"):
            await anext(events)
    assert len(script.asked) == 1
    assert await world.nothing_left()


async def test_question_that_fails_before_anything_is_said_is_tried_again(world: World, script: Script) -> None:
    script.refuses = [ModelUnavailable("모델이 응답하지 않습니다.")]
    async with world.working(script), aclosing(world.answer(request_of())) as events:
        found = [event.event async for event in events]
    assert found == NAMES
    assert len(script.asked) == 2


async def test_question_that_fails_again_is_told(world: World, script: Script) -> None:
    script.refuses = [ModelUnavailable("모델이 응답하지 않습니다.")] * 2
    async with world.working(script), aclosing(world.answer(request_of())) as events:
        with pytest.raises(ModelUnavailable):
            await anext(events)
    assert await world.nothing_left()


@pytest.mark.parametrize(
    ("error", "code"),
    [(TransientError("다시 해 주세요."), "unavailable"), (ZeroDivisionError(), "internal")],
    ids=["foreseen", "unforeseen"],
)
async def test_run_that_breaks_off_ends_with_an_error(
    world: World, script: Script, error: Exception, code: str
) -> None:
    script.breaks = error
    async with world.working(script):
        async with aclosing(world.answer(request_of())) as events:
            found = [event async for event in events]
        await asyncio.sleep(0.5)  # the unforeseen one comes again, and has ended
    assert [event.event for event in found] == [*NAMES[:3], "error", "done"]
    assert (told(found).code, told(found).request_id) == (code, "요청")
    assert len(script.asked) == 1
    assert await world.nothing_left()


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"run_id": "../x"}', b"x" * (MAX_BODY_BYTES + 1)], ids=len)
@pytest.mark.parametrize(
    ("queue", "key"), [(ANSWERS, ANSWER_REQUESTED), (BATCH, BATCH_REQUESTED)], ids=[ANSWERS, BATCH]
)
async def test_message_that_is_no_question_is_given_up_with_its_reason(
    world: World, script: Script, queue: str, key: str, body: bytes
) -> None:
    await world.queues.publish(key, body, message_id="x")

    async def given_up() -> bool:
        return bool(await world.queues.dead_letters(queue, limit=1))

    async with world.working(script):
        await eventually(given_up)
    [letter] = await world.queues.dead_letters(queue, limit=10)
    assert letter.message_id == "x"
    assert letter.reason
    assert script.asked == []


async def test_batch_waits_while_anybody_else_does(world: World, script: Script) -> None:
    script.stands_after = 2
    first, batch = request_of("먼저"), request_of("묶음")
    async with world.working(script):
        await world.publish(first)
        await world.begun(first.run_id)
        await world.publish(batch, BATCH_REQUESTED)
        await asyncio.sleep(0.5)  # a batch that did not wait would have begun
        assert [asked["question"] for asked in script.asked] == ["먼저"]
        script.going.set()
        await world.read(first.run_id)
        await world.begun(batch.run_id)
        assert [event.event for event in await world.read(batch.run_id)] == NAMES


async def test_batch_that_waits_goes_to_another_worker_when_its_own_ends(world: World, script: Script) -> None:
    script.stands_after = 2
    first, batch = request_of("먼저"), request_of("묶음")
    async with world.working(script) as stopping:
        await world.publish(first)
        await world.begun(first.run_id)
        await world.publish(batch, BATCH_REQUESTED)
        await asyncio.sleep(0.3)  # it has the message
        stopping.set()
        script.going.set()
    other = Script()
    async with world.working(other):
        await world.begun(batch.run_id, len(NAMES))
    assert [asked["question"] for asked in other.asked] == ["묶음"]


async def test_worker_that_is_to_stop_takes_no_more_and_ends_what_it_has_begun(world: World, script: Script) -> None:
    script.stands_after = 2
    running, waiting = request_of("하는 중"), request_of("기다림")
    async with world.working(script) as stopping:
        await world.publish(running)
        await world.begun(running.run_id, 2)
        stopping.set()
        await asyncio.sleep(0.2)
        await world.publish(waiting)
        script.going.set()
    assert [event.event for event in await world.read(running.run_id)] == NAMES
    assert [asked["question"] for asked in script.asked] == ["하는 중"]
    assert await world.queues.depth(ANSWERS) == 1


async def test_full_queue_takes_no_question_more(world: World) -> None:
    waiting = [request_of() for _ in range(20)]  # RabbitMQ's bound is soft

    async def publish() -> None:
        for request in waiting:
            await world.publish(request)

    with pytest.raises(Overloaded):
        await publish()
    with pytest.raises(Overloaded) as raised:
        await anext(world.answer(request_of()))
    assert raised.value.retry_after > 0


async def test_question_that_no_worker_takes_is_given_up_in_time(world: World, script: Script) -> None:
    events = answer_of(
        request := request_of(),
        queues=world.queues,
        readers=world.readers,
        routing_key=ANSWER_REQUESTED,
        wait_seconds=0.2,
    )
    with pytest.raises(Overloaded, match="멈춰 있습니다"):
        await anext(events)
    async with world.working(script):
        await world.begun(request.run_id, 2)
    assert script.asked == []


async def test_conversation_that_is_too_long_for_a_message_loses_its_oldest_turns() -> None:
    turns = [Turn(question=str(n), standalone=str(n), answer="가" * 5_000, kind="answered") for n in range(10)]
    request = asked(QUESTION, wait_seconds=1, history=turns)
    assert len(written(request)) <= MAX_BODY_BYTES
    assert request.history
    assert request.history[-1] == turns[-1]


async def test_bot_answers_through_the_queue_as_it_does_itself(world: World, bot: Chatbot) -> None:
    answers = QueuedAnswers(bot=bot, queues=world.queues, readers=world.readers, wait_seconds=10)

    async def events(source: Chatbot | QueuedAnswers) -> list[wire.StreamEvent]:
        async with aclosing(source.stream(QUESTION, session_id=None, model="extractive")) as stream:
            return [event async for event in stream]

    worker = AnswerWorker(answers=bot, streams=world.streams, queues=world.queues)
    stopping = asyncio.Event()
    task = asyncio.create_task(worker.work(prefetch=4, stopping=stopping, drain_seconds=5))
    queued, direct = await events(answers), await events(bot)
    stopping.set()
    await task
    assert [event.event for event in queued] == [event.event for event in direct]
    assert said(queued) == said(direct)
    sources = [[event.data for event in found if event.event == "sources"] for found in (queued, direct)]
    assert sources[0] == sources[1]


@pytest.mark.parametrize(
    "wrong", [{"faq_id": "없는 것"}, {"model": "없는 것"}, {"question": " "}, {"question": "가" * 2_001}], ids=repr
)
async def test_question_that_the_bot_refuses_is_not_published(
    world: World, bot: Chatbot, wrong: dict[str, str]
) -> None:
    answers = QueuedAnswers(bot=bot, queues=world.queues, readers=world.readers, wait_seconds=1)
    with pytest.raises(FaqError):
        await anext(answers.stream(**({"question": QUESTION} | wrong)))
    assert await world.queues.depth(ANSWERS) == 0
