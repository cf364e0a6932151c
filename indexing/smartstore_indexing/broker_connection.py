"""Connections to RabbitMQ: opened with our queues declared, closed within a bound, its errors told as ours.

No call of aio-pika is given its `timeout`: before Python 3.12 asyncio.wait_for, which it uses for that, loses a
cancellation that comes as the call returns. asyncio.timeout loses none.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    AuthenticationError,
    DeliveryError,
    ProbableAuthenticationError,
    PublishError,
)
from aiormq.exceptions import ChannelAccessRefused, ConnectionNotAllowed
from yarl import URL

from smartstore_indexing.errors import FaqError, Misconfigured, StoreUnavailable
from smartstore_indexing.queues import full
from smartstore_indexing.setting_groups import RabbitMQSettings
from smartstore_indexing.topology import Topology

CLOSE_SECONDS = 2.0
NAME = "smartstore-chatbot"
AWAY = (
    "RabbitMQ가 응답하지 않습니다. SMARTSTORE_RABBITMQ__URL을 확인하고, 꺼져 있으면 `rabbitmq-server`를 실행해 주세요."
)
UNREADABLE = (
    "SMARTSTORE_RABBITMQ__URL을 읽을 수 없습니다. amqp://사용자:비밀번호@호스트:5672/ 형식으로 쓰고, "
    "비밀번호의 특수 문자는 %로 바꿔 써 주세요."
)
REFUSED = "RabbitMQ가 접속을 거절했습니다. SMARTSTORE_RABBITMQ__URL의 사용자, 비밀번호와 가상 호스트를 확인해 주세요."
REFUSALS = (AuthenticationError, ChannelAccessRefused, ConnectionNotAllowed, ProbableAuthenticationError)


@contextmanager
def told_as_ours() -> Iterator[None]:
    """Tell what the broker or its client raises as an error of ours: Misconfigured, Overloaded or StoreUnavailable."""
    try:
        yield
    except REFUSALS as error:
        raise Misconfigured(REFUSED) from error
    except PublishError as error:  # its queue is gone
        raise StoreUnavailable(AWAY) from error
    except DeliveryError as error:
        raise full() from error
    except CONNECTION_EXCEPTIONS as error:
        raise StoreUnavailable(AWAY) from error
    except asyncio.CancelledError as error:
        # A closing connection cancels what waits for it. Those who cancel the task itself count.
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise
        raise StoreUnavailable(AWAY) from error


def address(settings: RabbitMQSettings) -> URL:
    """Return the broker's address; Misconfigured when it cannot be read."""
    try:
        url = URL(settings.url.get_secret_value())
        readable = url.scheme in {"amqp", "amqps"} and url.host and url.port != 0
    except ValueError:
        readable = False
    if not readable:
        raise Misconfigured(UNREADABLE)  # outside the handler: what yarl says of it holds parts of the password
    return url.update_query(heartbeat=settings.heartbeat_seconds)


class OwnedConnection(aio_pika.Connection):
    """A connection that we close; aio-pika's own would, once forgotten, begin a farewell that nobody awaits."""

    def __del__(self) -> None:
        """Do nothing."""


async def connected(url: URL, topology: Topology, seconds: float) -> AbstractConnection:
    """Return a connection to a broker that has our queues.

    Raises:
        Misconfigured: it refuses us, or has the queues with other arguments.
        StoreUnavailable: it does not answer.
    """
    connection = OwnedConnection(url, client_properties={"connection_name": NAME})
    try:
        with told_as_ours():
            async with asyncio.timeout(seconds):
                await connection.connect()
        async with channel_of(connection, seconds) as channel, asyncio.timeout(seconds):
            await topology.declare(channel)
    except BaseException:
        await close(connection)
        raise
    return connection


def is_open(connection: AbstractConnection) -> bool:
    """Tell whether a connection stands; aio-pika's own `is_closed` knows only of those that we closed."""
    return connection.connected.is_set()


@asynccontextmanager
async def channel_of(connection: AbstractConnection, seconds: float) -> AsyncIterator[AbstractChannel]:
    """Open a channel for the length of an `async with`; what is raised in it becomes an error of ours."""
    with told_as_ours():
        async with asyncio.timeout(seconds):
            channel = await connection.channel(on_return_raises=True)
        try:
            yield channel
        finally:
            await _closed(channel)


async def close(connection: AbstractConnection) -> None:
    """Close a connection, within a bound: one that was cut or stalls says no farewell."""
    await _closed(connection)


async def _closed(opened: AbstractChannel | AbstractConnection) -> None:
    with suppress(FaqError), told_as_ours():
        async with asyncio.timeout(CLOSE_SECONDS):
            await opened.close()
