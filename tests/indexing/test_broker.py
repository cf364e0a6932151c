"""What only RabbitMQ can show: a broker that is away, connections that are cut and stall, workers that are killed."""

import asyncio
import itertools
import logging
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import aio_pika
import aiormq.exceptions
import pytest
from aio_pika.abc import AbstractChannel
from brokers import JOBS, Proxy, RabbitProcess, Worker, by_way_of, consuming, delete_queues, until
from conftest import ROOT
from pydantic import SecretStr

from smartstore_indexing.broker import Broker
from smartstore_indexing.broker_connection import REFUSALS, told_as_ours
from smartstore_indexing.errors import FaqError, InvalidRequest, Misconfigured, Overloaded, StoreUnavailable
from smartstore_indexing.index_sources import fetched
from smartstore_indexing.loading import SAMPLE
from smartstore_indexing.messages import IndexRequested, read
from smartstore_indexing.queues import (
    ABANDONED,
    ANSWER_REQUESTED,
    ANSWERS,
    BATCH,
    BATCH_REQUESTED,
    DELIVERY_LIMIT,
    INDEX,
    INDEX_REQUESTED,
    DeadLetter,
    Delivery,
    work_queues,
)
from smartstore_indexing.setting_groups import RabbitMQSettings
from smartstore_indexing.topology import Topology

SOURCES = (
    b'"/etc/passwd"',
    b'"../../faq.csv"',
    b'"file:///etc/passwd"',
    b'"http://example.com/faq.csv"',
    b'"https://127.0.0.1/faq.csv"',
    b'"https://localhost/faq.csv"',
    b'"https://[::ffff:127.0.0.1]/faq.csv"',
)
PASSWORD = "very-secret-password"
# Takes one message of the jobs and never ends it.
WORKER = """
import asyncio, sys
from smartstore_indexing.broker import Broker
from smartstore_indexing.queues import WorkQueue
from smartstore_indexing.setting_groups import RabbitMQSettings
async def hang(delivery):
    print(delivery.message_id, flush=True)
    await asyncio.Event().wait()
async def work():
    jobs = WorkQueue("jobs", "job.asked", max_length=1_000, retry_seconds=(0.1, 0.3), one_at_a_time=True)
    queues = Broker(RabbitMQSettings(url=sys.argv[1], prefix=sys.argv[2]), [jobs])
    await queues.consume("jobs", hang, prefetch=1, stopping=asyncio.Event(), drain_seconds=1.0)
asyncio.run(work())
"""


@pytest.fixture
async def queues(rabbit_settings: RabbitMQSettings) -> AsyncIterator[Broker]:
    broker = Broker(rabbit_settings, [JOBS])
    yield broker
    await broker.close()


@pytest.fixture
async def proxy(rabbit: RabbitProcess) -> AsyncIterator[Proxy]:
    async with Proxy(rabbit.port) as opened:
        yield opened


@pytest.fixture
async def by_proxy(rabbit_settings: RabbitMQSettings, proxy: Proxy) -> AsyncIterator[Broker]:
    """Yield queues whose every connection goes through the proxy."""
    broker = Broker(by_way_of(rabbit_settings, proxy.port), [JOBS])
    yield broker
    await broker.close()


@pytest.fixture
async def channel(rabbit: RabbitProcess, queues: Broker) -> AsyncIterator[AbstractChannel]:
    """Yield a channel of another program's, the queues made."""
    await queues.ping()
    async with await aio_pika.connect(rabbit.url) as connection, connection.channel() as opened:
        yield opened


def topology(settings: RabbitMQSettings) -> Topology:
    return Topology(settings.prefix, [JOBS])


async def dead(queues: Broker, count: int, seconds: float = 20.0) -> list[DeadLetter]:
    """Return the dead letters as soon as there are so many."""
    async with asyncio.timeout(seconds):
        while len(letters := await queues.dead_letters(JOBS.name, limit=2_000)) < count:  # noqa: ASYNC110  no event
            await asyncio.sleep(0.05)
    return letters


@pytest.mark.slow
async def test_200_messages_are_each_done_once_through_cuts_stalls_and_an_outage(
    rabbit: RabbitProcess, proxy: Proxy, by_proxy: Broker, queues: Broker
) -> None:
    done: set[str] = set()
    effects: list[str] = []

    async def work_once(delivery: Delivery) -> None:
        await asyncio.sleep(0.01)
        if delivery.message_id not in done:
            done.add(delivery.message_id)
            effects.append(delivery.message_id)

    async def publish_all() -> None:
        for number in range(200):
            while True:
                try:
                    await by_proxy.publish(JOBS.routing_key, b"{}", message_id=str(number))
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.02)

    async def disturb() -> None:
        await until(lambda: len(done) > 20)
        proxy.cut()
        await until(lambda: len(done) > 50)
        proxy.stall()
        await asyncio.sleep(3)
        proxy.cut()
        proxy.flow()
        await until(lambda: len(done) > 90)
        await asyncio.to_thread(rabbit.stop, signal.SIGKILL)
        await asyncio.to_thread(rabbit.start)
        await until(lambda: len(done) > 140)
        proxy.cut()

    worker = Worker(work_once)
    async with consuming(by_proxy, worker, prefetch=5), asyncio.timeout(100):
        await asyncio.gather(publish_all(), disturb())
        await until(lambda: len(done) == 200)
    assert sorted(effects, key=int) == [str(number) for number in range(200)]
    assert await queues.depth(JOBS.name) == 0
    assert await queues.dead_letters(JOBS.name, limit=10) == []


async def test_message_of_a_killed_worker_goes_to_the_next_which_alone_may_take_it(
    rabbit_settings: RabbitMQSettings,
) -> None:
    queues = Broker(rabbit_settings, [replace(JOBS, one_at_a_time=True)])
    await queues.publish(JOBS.routing_key, b"{}", message_id="a")
    command = [sys.executable, "-c", WORKER, rabbit_settings.url.get_secret_value(), rabbit_settings.prefix]
    worker = Worker()
    with subprocess.Popen(command, cwd=ROOT / "tests", stdout=subprocess.PIPE) as killed:  # noqa: ASYNC220  it starts at once
        assert killed.stdout is not None
        assert await asyncio.to_thread(killed.stdout.readline) == b"a\n"
        async with consuming(queues, worker):
            await queues.publish(JOBS.routing_key, b"{}", message_id="b")
            assert await queues.depth(JOBS.name) == 1
            assert worker.got == []
            killed.kill()
            await until(lambda: worker.ids == ["a", "b"])
    assert [delivery.redelivered for delivery in worker.got] == [True, False]
    await queues.close()


async def test_message_that_comes_back_too_often_is_given_up_with_its_reason(
    rabbit_settings: RabbitMQSettings, queues: Broker, channel: AbstractChannel
) -> None:
    await queues.publish(JOBS.routing_key, b"{}", message_id="a")
    queue = await channel.get_queue(topology(rabbit_settings).queue(JOBS))
    deliveries = 0
    while not await queues.dead_letters(JOBS.name, limit=1):
        if (message := await queue.get(fail=False)) is not None:
            deliveries += 1
            await message.nack()
    [letter] = await queues.dead_letters(JOBS.name, limit=10)
    assert deliveries == DELIVERY_LIMIT + 1
    assert (letter.message_id, letter.reason, letter.attempts) == ("a", ABANDONED, 1)
    assert abs(letter.died_at - time.time()) < 60


async def test_consumer_waits_for_a_broker_that_is_away_at_its_start(proxy: Proxy, by_proxy: Broker) -> None:
    proxy.refuse()
    worker = Worker()
    async with consuming(by_proxy, worker):
        with pytest.raises(StoreUnavailable):
            await by_proxy.publish(JOBS.routing_key, b"{}", message_id="lost")
        proxy.flow()
        await by_proxy.publish(JOBS.routing_key, b"{}", message_id="a")
        await until(lambda: worker.ids == ["a"])


async def test_consumer_that_waits_for_its_broker_stops_when_told(proxy: Proxy, by_proxy: Broker) -> None:
    proxy.refuse()
    async with consuming(by_proxy, Worker()):
        await until(lambda: proxy.refused > 0)
        started = time.monotonic()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("call", ["publish", "depth", "dead_letters", "requeue", "ping", "subscribe"])
async def test_call_to_a_broker_that_is_away_says_so_at_once(proxy: Proxy, by_proxy: Broker, call: str) -> None:
    proxy.refuse()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="SMARTSTORE_RABBITMQ__URL"):
        await called(by_proxy, call)
    assert time.monotonic() - started < 3


async def called(queues: Broker, call: str) -> None:
    if call == "subscribe":
        async with queues.subscribe("index.failed"):
            pass
    elif call == "publish":
        await queues.publish(JOBS.routing_key, b"{}", message_id="a")
    elif call == "dead_letters":
        await queues.dead_letters(JOBS.name, limit=1)
    elif call == "requeue":
        await queues.requeue(JOBS.name, "a")
    else:
        await (queues.ping() if call == "ping" else queues.depth(JOBS.name))


async def test_publish_over_a_stalled_connection_ends_in_time_and_the_next_goes_through(
    proxy: Proxy, rabbit_settings: RabbitMQSettings
) -> None:
    settings = by_way_of(rabbit_settings, proxy.port).model_copy(update={"timeout_seconds": 0.5})
    queues = Broker(settings, [JOBS])
    await queues.publish(JOBS.routing_key, b"{}", message_id="a")
    proxy.stall()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await queues.publish(JOBS.routing_key, b"{}", message_id="b")
    assert time.monotonic() - started < 10
    proxy.flow()
    await queues.publish(JOBS.routing_key, b"{}", message_id="c")
    await queues.close()


async def test_handler_is_cancelled_when_its_connection_stalls_and_its_message_comes_again(
    proxy: Proxy, by_proxy: Broker, queues: Broker
) -> None:
    cancelled_after: list[float] = []

    async def hang_first(delivery: Delivery) -> None:
        if not delivery.redelivered:
            started = time.monotonic()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled_after.append(time.monotonic() - started)

    worker = Worker(hang_first)
    async with consuming(by_proxy, worker):
        await queues.publish(JOBS.routing_key, b"{}", message_id="a")
        await until(lambda: worker.running == 1)
        proxy.stall()
        await until(lambda: bool(cancelled_after))
        assert cancelled_after[0] < 4  # the broker gives the message away after two heartbeats of 2 s at the earliest
        proxy.flow()
        await until(lambda: len(worker.got) == 2)
    assert worker.got[1] == Delivery("a", b"{}", attempt=1, redelivered=True)


async def test_handler_is_cancelled_when_its_connection_is_cut(proxy: Proxy, by_proxy: Broker, queues: Broker) -> None:
    async def hang_first(delivery: Delivery) -> None:
        if not delivery.redelivered:
            await asyncio.Event().wait()

    worker = Worker(hang_first)
    async with consuming(by_proxy, worker):
        await queues.publish(JOBS.routing_key, b"{}", message_id="a")
        await until(lambda: worker.running == 1)
        proxy.cut()
        await until(lambda: worker.running == 0)
        await until(lambda: len(worker.got) == 2)
    assert await queues.depth(JOBS.name) == 0


async def test_slow_network_loses_nothing(proxy: Proxy, by_proxy: Broker) -> None:
    proxy.delay(0.05)
    worker = Worker()
    async with consuming(by_proxy, worker, prefetch=5):
        await asyncio.gather(*(by_proxy.publish(JOBS.routing_key, b"{}", message_id=str(n)) for n in range(20)))
        await until(lambda: len(worker.got) == 20)
    assert sorted(worker.ids, key=int) == [str(number) for number in range(20)]


async def test_subscriber_goes_on_after_its_connection_was_cut(proxy: Proxy, by_proxy: Broker, queues: Broker) -> None:
    async with by_proxy.subscribe("index.progress") as events:
        await queues.publish("index.progress", b"before", message_id="1")
        assert await anext(events) == ("index.progress", b"before")
        proxy.cut()
        following = asyncio.ensure_future(anext(events))
        async with asyncio.timeout(20):
            while not following.done():
                await queues.publish("index.progress", b"after", message_id="2")
                await asyncio.sleep(0.1)
        assert following.result() == ("index.progress", b"after")


async def test_consumer_makes_its_queue_again_when_somebody_deletes_it(
    rabbit_settings: RabbitMQSettings, queues: Broker, channel: AbstractChannel
) -> None:
    worker = Worker()
    async with consuming(queues, worker):
        await queues.publish(JOBS.routing_key, b"{}", message_id="a")
        await until(lambda: worker.ids == ["a"])
        await channel.queue_delete(topology(rabbit_settings).queue(JOBS))
        await until_published(queues, "b")
        await until(lambda: "b" in worker.ids)


async def until_published(queues: Broker, message_id: str) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                return await queues.publish(JOBS.routing_key, b"{}", message_id=message_id)
            except StoreUnavailable:
                await asyncio.sleep(0.1)


def hostile_bodies(count: int) -> Iterator[bytes]:
    """Yield bodies that are no index request that may be met, of each kind in turn, the details by chance."""
    chance = random.Random(7)
    valid = b'{"request_id": "a", "source": null, "mode": "full", "requested_by": "b"}'
    kinds: list[Callable[[], bytes]] = [
        lambda: chance.randbytes(chance.randrange(200)),
        lambda: valid[: chance.randrange(len(valid))],
        lambda: valid.replace(b'"full"', str(chance.randrange(10)).encode()),
        lambda: valid.replace(b'"source"', b'"sauce"'),
        lambda: valid[:-1] + b', "more": 1}',
        lambda: b"[" * chance.randrange(1, 50_000),
        lambda: b'{"request_id": "' + b"a" * chance.randrange(100_000, 300_000) + b'"}',
        lambda: valid.replace(b'"a"', b'"../../a"'),
        lambda: valid.replace(b'"a"', b'"\\ud800"'),
        lambda: b"null",
        lambda: valid.replace(b"null", chance.choice(SOURCES)),
    ]
    return (kind() for kind, _ in zip(itertools.cycle(kinds), range(count), strict=False))


@pytest.mark.parametrize("count", [100, pytest.param(1_000, marks=pytest.mark.long)])
async def test_hostile_messages_are_given_up_with_a_reason_and_the_worker_lives(
    rabbit_settings: RabbitMQSettings, queues: Broker, channel: AbstractChannel, count: int
) -> None:
    handled: list[str] = []

    async def do(delivery: Delivery) -> None:
        request = read(IndexRequested, delivery.body)
        async with fetched(request.source or str(SAMPLE), allowed_folders=[SAMPLE.parent]):
            handled.append(request.request_id)

    exchange = await channel.get_exchange(topology(rabbit_settings).exchange)
    for body in hostile_bodies(count):
        await exchange.publish(aio_pika.Message(body, headers={"x-retry": "many"}), JOBS.routing_key)
    async with consuming(queues, Worker(do), prefetch=10):
        letters = await dead(queues, count)
        assert handled == []
        good = IndexRequested(request_id="good", source=None, mode="full", requested_by="b").model_dump_json()
        await queues.publish(JOBS.routing_key, good.encode(), message_id="good")
        await until(lambda: handled == ["good"])
    assert len(letters) == count
    assert [letter for letter in letters if not letter.reason or letter.attempts != 1] == []


@pytest.mark.parametrize("retries", [-5, 2**63 - 1, True, "x", [1], None], ids=str)
async def test_count_that_others_made_up_does_no_harm(
    rabbit_settings: RabbitMQSettings, queues: Broker, channel: AbstractChannel, retries: object
) -> None:
    exchange = await channel.get_exchange(topology(rabbit_settings).exchange)
    message = aio_pika.Message(b"{}", headers={"x-retry": retries})  # type: ignore[dict-item]
    await exchange.publish(message, JOBS.routing_key)

    async def fail(_: Delivery) -> None:
        raise StoreUnavailable("다시 시도해 주세요.")

    async with consuming(queues, Worker(fail)):
        [letter] = await dead(queues, 1)
    assert letter.reason == "다시 시도해 주세요."


async def test_message_without_an_id_gets_one_that_it_can_be_given_back_by(
    rabbit_settings: RabbitMQSettings, queues: Broker
) -> None:
    name = topology(rabbit_settings).queue(JOBS)
    await queues.ping()
    connection = await aiormq.connect(rabbit_settings.url.get_secret_value())
    channel = await connection.channel(publisher_confirms=False)
    properties = aiormq.spec.Basic.Properties(message_id=None)
    await channel.basic_publish(b"{}", routing_key=name, properties=properties)
    await connection.close()

    async def refuse(_: Delivery) -> None:
        raise InvalidRequest("읽을 수 없습니다.")

    async with consuming(queues, Worker(refuse)):
        [letter] = await dead(queues, 1)
    assert letter.message_id
    assert await queues.requeue(JOBS.name, letter.message_id)


async def test_queue_with_other_arguments_is_named(rabbit_settings: RabbitMQSettings, queues: Broker) -> None:
    await queues.ping()
    other = Broker(rabbit_settings, [replace(JOBS, max_length=JOBS.max_length + 1)])
    with pytest.raises(Misconfigured, match=rf"{rabbit_settings.prefix}\.jobs이"):
        await other.ping()
    with pytest.raises(Misconfigured):
        await other.consume(JOBS.name, Worker(), prefetch=1, stopping=asyncio.Event(), drain_seconds=1.0)
    await other.close()


@pytest.mark.parametrize(
    "address",
    ["http://u:pa55@127.0.0.1/", "amqp://", "u:pa55", "amqp://u:pa55@:5672/", "amqp://h:pa55/"],
)
def test_address_that_cannot_be_read_is_not_repeated(address: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        Broker(RabbitMQSettings(url=SecretStr(address)), [JOBS])
    assert "pa55" not in "".join(traceback.format_exception(refusal.value))


async def test_password_is_in_no_error_and_no_log(
    rabbit_settings: RabbitMQSettings, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = rabbit_settings.url.get_secret_value().replace("guest:guest", f"guest:{PASSWORD}")
    settings = rabbit_settings.model_copy(update={"url": SecretStr(url)})
    refused = Broker(settings, [JOBS])
    with pytest.raises(Misconfigured) as refusal:
        await refused.ping()
    proxy.refuse()
    away = Broker(by_way_of(settings, proxy.port), [JOBS])
    with pytest.raises(StoreUnavailable) as absence:
        await away.ping()
    told = [*traceback.format_exception(refusal.value), *traceback.format_exception(absence.value), caplog.text]
    assert [text for text in told if PASSWORD in text] == []


def exceptions_of(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for below in kind.__subclasses__():
        yield from exceptions_of(below)


@pytest.mark.parametrize(
    "kind",
    sorted({*exceptions_of(aiormq.exceptions.AMQPError), aiormq.exceptions.ChannelInvalidStateError}, key=str),
    ids=lambda kind: kind.__name__,
)
def test_every_error_of_the_client_is_told_as_ours(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    expected: type[FaqError] = Misconfigured if issubclass(kind, REFUSALS) else StoreUnavailable
    if issubclass(kind, aiormq.exceptions.DeliveryError) and not issubclass(kind, aiormq.exceptions.PublishError):
        expected = Overloaded
    with pytest.raises(expected), told_as_ours():
        raise error


async def test_installations_of_other_prefixes_do_not_meet(rabbit_settings: RabbitMQSettings, queues: Broker) -> None:
    settings = rabbit_settings.model_copy(update={"prefix": f"{rabbit_settings.prefix}-other"})
    other = Broker(settings, [JOBS])
    await other.publish(JOBS.routing_key, b"{}", message_id="a")
    await queues.ping()
    assert await queues.depth(JOBS.name) == 0
    assert await other.depth(JOBS.name) == 1
    await other.close()
    await delete_queues(settings)


async def test_queues_of_the_program_are_made_as_they_are_named(rabbit_settings: RabbitMQSettings) -> None:
    settings = rabbit_settings.model_copy(update={"prefix": f"{rabbit_settings.prefix}-whole"})
    whole = Broker(settings, work_queues(settings.max_answers))
    keys = {INDEX: INDEX_REQUESTED, ANSWERS: ANSWER_REQUESTED, BATCH: BATCH_REQUESTED}
    for key in keys.values():
        await whole.publish(key, b"{}", message_id=key)
    assert {name: await whole.depth(name) for name in keys} == dict.fromkeys(keys, 1)
    await whole.close()
    await delete_queues(settings, work_queues(settings.max_answers))


async def test_call_after_an_outage_goes_through_at_once(proxy: Proxy, by_proxy: Broker) -> None:
    await by_proxy.ping()
    proxy.cut()
    await until(lambda: by_proxy._connection is not None and not by_proxy._connection.connected.is_set())
    await by_proxy.ping()
