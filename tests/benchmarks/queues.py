"""Count the messages a second that the index and answer queues take and hand out, and how long one takes.

    python tests/benchmarks/queues.py

starts a RabbitMQ of its own. The handlers do nothing but what the queue costs: publishing waits for the broker's
confirmation, and every message is read, handled and acknowledged.
"""

import asyncio
import itertools
import os
import platform
import sys
import time
from pathlib import Path
from statistics import quantiles

from pydantic import SecretStr

from smartstore_indexing.broker import Broker
from smartstore_indexing.messages import AnswerRequested, IndexRequested, read, written
from smartstore_indexing.queues import (
    ANSWER_REQUESTED,
    ANSWERS,
    INDEX,
    INDEX_REQUESTED,
    Delivery,
    work_queues,
)
from smartstore_indexing.setting_groups import RabbitMQSettings

sys.path.append(str(Path(__file__).parent.parent))
from brokers import RabbitProcess

MESSAGES = 900  # fit the index queue, which holds 1,000
AT_ONCE = (1, 32)  # published at once, and fetched at once
PINGS = 200  # messages that are sent and waited for, one after the other
KINDS = {
    INDEX: IndexRequested(request_id="a", source=None, mode="incremental", requested_by="bench"),
    ANSWERS: AnswerRequested(
        run_id="a", session_id="a", question="정산은 언제 되나요?", faq_id=None, model=None, deadline=1.0
    ),
}
ROUTING = {INDEX: INDEX_REQUESTED, ANSWERS: ANSWER_REQUESTED}


def main() -> None:
    """Start a broker, measure and print."""
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    print(f"the load of others: {os.getloadavg()[0]:.1f}")
    server = RabbitProcess()
    try:
        server.start()
        asyncio.run(measure(server.url))
    finally:
        server.remove()


async def measure(url: str) -> None:
    """Measure each queue with one and many messages at once, and how long a message takes to its handler."""
    for name in (INDEX, ANSWERS):
        for at_once in AT_ONCE:
            settings = RabbitMQSettings(url=SecretStr(url), prefix=f"bench-{name}-{at_once}")
            broker = Broker(settings, work_queues(settings.max_answers))
            published = await publish(broker, name, MESSAGES, at_once)
            consumed = await consume(broker, name, MESSAGES, at_once)
            print(
                f"{name}, {at_once} at once: {MESSAGES / published:,.0f} messages/s published and confirmed, "
                f"{MESSAGES / consumed:,.0f} messages/s handled and acknowledged"
            )
            await broker.close()
    broker = Broker(RabbitMQSettings(url=SecretStr(url), prefix="bench-delay"), work_queues(1_000))
    milliseconds = await delays(broker, PINGS)
    p50, p95 = quantiles(milliseconds, n=2)[0], quantiles(milliseconds, n=20)[-1]
    print(f"{ANSWERS}, one after the other: {p50:.1f} ms from publishing to the handler (p50), {p95:.1f} ms (p95)")
    await broker.close()


async def publish(broker: Broker, name: str, count: int, at_once: int) -> float:
    """Return the seconds that publishing took."""
    body, numbers = written(KINDS[name]), itertools.count()
    await broker.ping()  # connects, and makes the queues
    started = time.perf_counter()

    async def publish_some() -> None:
        while (number := next(numbers)) < count:
            await broker.publish(ROUTING[name], body, message_id=str(number))

    await asyncio.gather(*(publish_some() for _ in range(at_once)))
    return time.perf_counter() - started


async def consume(broker: Broker, name: str, count: int, prefetch: int) -> float:
    """Return the seconds from the first message's handler to the last one's acknowledgement."""
    stopping, times = asyncio.Event(), list[float]()

    async def handle(delivery: Delivery) -> None:
        times.append(time.perf_counter())
        read(type(KINDS[name]), delivery.body)
        if len(times) == count:
            stopping.set()

    await broker.consume(name, handle, prefetch=prefetch, stopping=stopping, drain_seconds=10.0)
    assert await broker.depth(name) == 0
    return times[-1] - times[0]


async def delays(broker: Broker, count: int) -> list[float]:
    """Return the milliseconds from each message's publishing to its handler."""
    stopping, arrived, found = asyncio.Event(), asyncio.Event(), list[float]()

    async def handle(_: Delivery) -> None:
        found.append(time.perf_counter())
        arrived.set()

    consumer = asyncio.create_task(broker.consume(ANSWERS, handle, prefetch=32, stopping=stopping, drain_seconds=10.0))
    starts: list[float] = []
    for number in range(count):
        arrived.clear()
        starts.append(time.perf_counter())
        await broker.publish(ANSWER_REQUESTED, written(KINDS[ANSWERS]), message_id=str(number))
        await arrived.wait()
    stopping.set()
    await consumer
    return [(end - start) * 1_000 for start, end in zip(starts, found, strict=True)][10:]


if __name__ == "__main__":
    main()
