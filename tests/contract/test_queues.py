"""What every kind of queue does, in the memory of one process and in RabbitMQ."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from brokers import JOBS, Worker, consuming, until

from smartstore_indexing.broker import Broker
from smartstore_indexing.errors import (
    FaqError,
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
    PermanentError,
    UnknownResource,
)
from smartstore_indexing.local_queues import LocalQueues
from smartstore_indexing.queues import BROKEN, Delivery, Event, Queues
from smartstore_indexing.setting_groups import RabbitMQSettings

Make = Callable[..., Queues]


@pytest.fixture(params=["local", "rabbitmq"])
async def make(request: pytest.FixtureRequest, rabbit_settings: RabbitMQSettings) -> AsyncIterator[Make]:
    """Yield what makes queues, with changes to the queue of jobs."""
    async with AsyncExitStack() as stack:

        def made(**changes: object) -> Queues:
            jobs = [replace(JOBS, **changes)]  # type: ignore[arg-type]  # the test knows the fields
            queues: Queues = LocalQueues(jobs) if request.param == "local" else Broker(rabbit_settings, jobs)
            stack.push_async_callback(queues.close)
            return queues

        yield made


@pytest.fixture
def queues(make: Make) -> Queues:
    return make()


async def publish(queues: Queues, *ids: str) -> None:
    for message_id in ids:
        await queues.publish(JOBS.routing_key, message_id.encode(), message_id=message_id)


async def nothing_left(queues: Queues) -> bool:
    return not await queues.depth(JOBS.name) and not await queues.dead_letters(JOBS.name, limit=1)


def raising(error: Exception) -> Worker:
    async def fail(_: Delivery) -> None:
        raise error

    return Worker(fail)


async def test_message_reaches_a_worker_as_it_was_published(queues: Queues) -> None:
    body = "질문입니다 \x00".encode()
    await queues.publish(JOBS.routing_key, body, message_id="하나")
    worker = Worker()
    async with consuming(queues, worker):
        await until(lambda: bool(worker.got))
    assert worker.got == [Delivery("하나", body, attempt=1, redelivered=False)]
    assert await nothing_left(queues)


async def test_messages_wait_for_a_worker_and_come_in_their_order(queues: Queues) -> None:
    ids = [str(number) for number in range(20)]
    await publish(queues, *ids)
    worker = Worker()
    async with consuming(queues, worker):
        await until(lambda: len(worker.got) == len(ids))
    assert worker.ids == ids


async def test_depth_counts_those_that_wait(queues: Queues) -> None:
    await publish(queues, "a", "b")
    assert await queues.depth(JOBS.name) == 2


@pytest.mark.parametrize("error", [InvalidRequest("읽을 수 없습니다."), PermanentError("할 수 없습니다.")], ids=repr)
async def test_what_cannot_succeed_is_given_up_with_its_reason(queues: Queues, error: FaqError) -> None:
    await publish(queues, "a")
    worker, before = raising(error), time.time()
    async with consuming(queues, worker):
        await until(lambda: bool(worker.got))
    [letter] = await queues.dead_letters(JOBS.name, limit=10)
    assert (letter.message_id, letter.reason, letter.attempts, letter.body) == ("a", error.message, 1, b"a")
    assert before - 1 <= letter.died_at <= time.time() + 1
    assert len(worker.got) == 1


async def test_what_may_succeed_is_tried_again_after_each_delay_and_then_given_up(queues: Queues) -> None:
    await publish(queues, "a")
    times: list[float] = []

    async def fail(_: Delivery) -> None:
        times.append(time.monotonic())
        raise ModelUnavailable("모델이 응답하지 않습니다.")

    worker = Worker(fail)
    async with consuming(queues, worker):
        await until(lambda: len(worker.got) == 3)
    assert [delivery.attempt for delivery in worker.got] == [1, 2, 3]
    assert times[1] - times[0] >= 0.1
    assert times[2] - times[1] >= 0.3
    [letter] = await queues.dead_letters(JOBS.name, limit=10)
    assert (letter.reason, letter.attempts) == ("모델이 응답하지 않습니다.", 3)


async def test_what_fails_once_succeeds_later_and_leaves_nothing(queues: Queues) -> None:
    await publish(queues, "a")

    async def fail_first(delivery: Delivery) -> None:
        if delivery.attempt == 1:
            raise ModelUnavailable("모델이 응답하지 않습니다.")

    worker = Worker(fail_first)
    async with consuming(queues, worker):
        await until(lambda: len(worker.got) == 2)
    assert worker.ids == ["a", "a"]
    assert await nothing_left(queues)


async def test_delayed_message_does_not_hold_up_the_next(make: Make) -> None:
    queues = make(retry_seconds=(30.0,))
    await publish(queues, "a", "b")

    async def fail_a(delivery: Delivery) -> None:
        if delivery.message_id == "a":
            raise ModelUnavailable("모델이 응답하지 않습니다.")

    worker = Worker(fail_a)
    async with consuming(queues, worker):
        await until(lambda: worker.ids == ["a", "b"])


async def test_unexpected_error_is_tried_again_and_its_text_kept_from_the_reason(queues: Queues) -> None:
    await publish(queues, "a")
    worker = raising(RuntimeError("secret"))
    async with consuming(queues, worker):
        await until(lambda: len(worker.got) == 3)
    [letter] = await queues.dead_letters(JOBS.name, limit=10)
    assert letter.reason == BROKEN


async def test_reason_is_cut_at_500_characters(queues: Queues) -> None:
    await publish(queues, "a")
    worker = raising(InvalidRequest("가" * 10_000))
    async with consuming(queues, worker):
        await until(lambda: bool(worker.got))
    [letter] = await queues.dead_letters(JOBS.name, limit=10)
    assert letter.reason == "가" * 500


async def test_worker_goes_on_after_messages_that_fail(queues: Queues) -> None:
    await publish(queues, "a", "b", "c")

    async def refuse_all_but_c(delivery: Delivery) -> None:
        if delivery.message_id != "c":
            raise InvalidRequest("읽을 수 없습니다.")

    worker = Worker(refuse_all_but_c)
    async with consuming(queues, worker):
        await until(lambda: worker.ids == ["a", "b", "c"])
    assert [letter.message_id for letter in await queues.dead_letters(JOBS.name, limit=10)] == ["a", "b"]


async def test_as_many_run_at_once_as_are_fetched(queues: Queues) -> None:
    await publish(queues, *(str(number) for number in range(10)))
    release = asyncio.Event()

    async def wait(_: Delivery) -> None:
        await release.wait()

    worker = Worker(wait)
    async with consuming(queues, worker, prefetch=3):
        await until(lambda: worker.running == 3)
        release.set()
        await until(lambda: len(worker.got) == 10)
    assert worker.most == 3


async def test_full_queue_takes_no_more_until_there_is_room(make: Make) -> None:
    queues = make(max_length=5)
    with pytest.raises(Overloaded) as refusal:
        await publish(queues, *(str(number) for number in range(20)))
    assert refusal.value.retry_after > 0
    accepted = await queues.depth(JOBS.name)
    assert 5 <= accepted <= 10  # RabbitMQ looks at its length a little later
    worker = Worker()
    async with consuming(queues, worker):
        await until(lambda: len(worker.got) == accepted)
        await publish(queues, "more")
        await until(lambda: worker.ids[-1] == "more")


async def test_stopping_waits_for_those_running_and_takes_no_more(queues: Queues) -> None:
    release = asyncio.Event()

    async def wait(_: Delivery) -> None:
        await release.wait()

    worker = Worker(wait)
    async with consuming(queues, worker) as stopping:
        await publish(queues, "a", "b")
        await until(lambda: worker.running == 1)
        stopping.set()
        asyncio.get_running_loop().call_later(0.3, release.set)
    assert worker.ids == ["a"]
    assert await queues.depth(JOBS.name) == 1
    assert await queues.dead_letters(JOBS.name, limit=1) == []


async def test_worker_that_does_not_finish_in_time_is_cancelled_and_its_message_comes_again(queues: Queues) -> None:
    await publish(queues, "a")
    cancelled = asyncio.Event()

    async def hang(_: Delivery) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    worker = Worker(hang)
    async with consuming(queues, worker, drain_seconds=0.1):
        await until(lambda: bool(worker.got))
    assert cancelled.is_set()
    again = Worker()
    async with consuming(queues, again):
        await until(lambda: bool(again.got))
    assert again.got == [Delivery("a", b"a", attempt=1, redelivered=True)]


async def test_cancelled_consumer_leaves_its_messages_unsettled(queues: Queues) -> None:
    await publish(queues, "a", "b")

    async def hang(_: Delivery) -> None:
        await asyncio.Event().wait()

    worker = Worker(hang)
    consumer = queues.consume(JOBS.name, worker, prefetch=2, stopping=asyncio.Event(), drain_seconds=10.0)
    task = asyncio.create_task(consumer)
    await until(lambda: len(worker.got) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert worker.running == 0
    again = Worker()
    async with consuming(queues, again):
        await until(lambda: len(again.got) == 2)
    assert sorted(again.ids) == ["a", "b"]
    assert await nothing_left(queues)


async def test_message_whose_handler_cancels_itself_comes_again(queues: Queues) -> None:
    await publish(queues, "a")

    async def give_up_first(delivery: Delivery) -> None:
        if not delivery.redelivered:
            raise asyncio.CancelledError

    worker = Worker(give_up_first)
    async with consuming(queues, worker):
        await until(lambda: len(worker.got) == 2)
    assert await nothing_left(queues)


async def test_one_consumer_takes_messages_where_one_alone_may_and_the_next_when_it_stopped(make: Make) -> None:
    queues, first, second = make(one_at_a_time=True), Worker(), Worker()
    async with consuming(queues, first, prefetch=5) as stopping:
        await publish(queues, "a")
        await until(lambda: first.ids == ["a"])
        async with consuming(queues, second, prefetch=5):
            await publish(queues, "b", "c", "d")
            await until(lambda: first.ids == ["a", "b", "c", "d"])
            assert second.ids == []
            stopping.set()
            await until_handed_over(queues, second)
    assert await nothing_left(queues)


async def until_handed_over(queues: Queues, worker: Worker) -> None:
    """Publish until the second consumer is the one that gets it."""
    async with asyncio.timeout(20):
        while not worker.got:
            await publish(queues, "next")
            await asyncio.sleep(0.05)


async def test_consumers_share_the_messages(queues: Queues) -> None:
    release = asyncio.Event()

    async def wait(_: Delivery) -> None:
        await release.wait()

    first, second = Worker(wait), Worker(wait)
    async with consuming(queues, first), consuming(queues, second):
        await publish(queues, "a", "b")
        await until(lambda: first.running == second.running == 1)
        release.set()


async def test_dead_letters_stay_where_they_are_the_oldest_first(queues: Queues) -> None:
    await publish(queues, "a", "b", "c")
    worker = raising(InvalidRequest("읽을 수 없습니다."))
    async with consuming(queues, worker):
        await until(lambda: len(worker.got) == 3)
    for _ in range(3):
        assert [letter.message_id for letter in await queues.dead_letters(JOBS.name, limit=2)] == ["a", "b"]
    assert [letter.message_id for letter in await queues.dead_letters(JOBS.name, limit=10)] == ["a", "b", "c"]
    assert await queues.dead_letters(JOBS.name, limit=0) == []


async def test_dead_letter_is_given_back_with_its_attempts_counted_anew(queues: Queues) -> None:
    await publish(queues, "a", "b")
    worker = raising(ModelUnavailable("모델이 응답하지 않습니다."))
    async with consuming(queues, worker, prefetch=2):
        await until(lambda: len(worker.got) == 6)
    assert await queues.requeue(JOBS.name, "b")
    again = Worker()
    async with consuming(queues, again):
        await until(lambda: bool(again.got))
    assert again.got == [Delivery("b", b"b", attempt=1, redelivered=False)]
    assert [letter.message_id for letter in await queues.dead_letters(JOBS.name, limit=10)] == ["a"]


async def test_dead_letter_of_an_unknown_id_is_not_given_back(queues: Queues) -> None:
    assert not await queues.requeue(JOBS.name, "none")
    assert await queues.depth(JOBS.name) == 0


async def test_dead_letter_stays_when_its_queue_is_full(make: Make) -> None:
    queues = make(max_length=1)
    await publish(queues, "a")
    worker = raising(InvalidRequest("읽을 수 없습니다."))
    async with consuming(queues, worker):
        await until(lambda: bool(worker.got))
    with pytest.raises(Overloaded):
        await publish(queues, *(str(number) for number in range(20)))
    with pytest.raises(Overloaded):
        await queues.requeue(JOBS.name, "a")
    assert [letter.message_id for letter in await queues.dead_letters(JOBS.name, limit=10)] == ["a"]


async def test_subscribers_get_the_events_they_asked_for(queues: Queues) -> None:
    async with queues.subscribe("index.progress", "index.failed") as both, queues.subscribe("index.failed") as one:
        for key in ("index.progress", "index.succeeded", "index.failed"):
            await queues.publish(key, key.encode(), message_id=key)
        async with asyncio.timeout(10):
            assert [await anext(both), await anext(both)] == [
                ("index.progress", b"index.progress"),
                ("index.failed", b"index.failed"),
            ]
            assert await anext(one) == ("index.failed", b"index.failed")


async def test_event_without_a_subscriber_is_dropped(queues: Queues) -> None:
    await queues.publish("index.progress", b"1", message_id="1")
    async with queues.subscribe("index.progress") as events:
        await queues.publish("index.progress", b"2", message_id="2")
        async with asyncio.timeout(10):
            assert await anext(events) == ("index.progress", b"2")


async def test_slow_subscriber_loses_the_oldest_events(queues: Queues) -> None:
    async with queues.subscribe("index.progress", "index.succeeded") as events:
        for start in range(0, 1_200, 100):
            bodies = (str(number).encode() for number in range(start, start + 100))
            await asyncio.gather(*(queues.publish("index.progress", body, message_id="progress") for body in bodies))
        await queues.publish("index.succeeded", b"", message_id="end")
        async with asyncio.timeout(10):
            numbers = [int(body) async for _, body in up_to("index.succeeded", events)]
    assert numbers[0] > 0
    assert numbers == list(range(numbers[0], 1_200))


async def up_to(last: str, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    async for event in events:
        if event[0] == last:
            return
        yield event


@pytest.mark.parametrize("call", ["depth", "dead_letters", "requeue", "consume"])
async def test_unknown_queue_is_named(queues: Queues, call: str) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "depth": lambda: queues.depth("nothing"),
        "dead_letters": lambda: queues.dead_letters("nothing", limit=1),
        "requeue": lambda: queues.requeue("nothing", "a"),
        "consume": lambda: queues.consume("nothing", Worker(), prefetch=1, stopping=asyncio.Event(), drain_seconds=1.0),
    }
    with pytest.raises(UnknownResource, match="nothing"):
        await calls[call]()


async def test_ping_returns_where_messages_can_be_taken(queues: Queues) -> None:
    await queues.ping()
