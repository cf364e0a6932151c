"""A real RabbitMQ of the tests' own, and a proxy before it that cuts, delays and stalls."""

import asyncio
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import aio_pika
import pytest
from conftest import START_SECONDS, free_port, wait_until
from pydantic import SecretStr
from yarl import URL

from smartstore_indexing.queues import Delivery, Handler, Queues, WorkQueue
from smartstore_indexing.setting_groups import RabbitMQSettings
from smartstore_indexing.topology import Topology

# Debian's other one, which is in root's PATH alone, changes to a user and a folder of its own.
PROGRAMS = "/usr/lib/rabbitmq/bin"
USER, PASSWORD = "guest", "guest"
STOP_SECONDS = 20.0
AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
CHUNK_BYTES = 65_536
JOBS = WorkQueue("jobs", "job.asked", max_length=1_000, retry_seconds=(0.1, 0.3))


def by_way_of(settings: RabbitMQSettings, port: int) -> RabbitMQSettings:
    """Return settings that name another port, as a proxy's."""
    url = URL(settings.url.get_secret_value()).with_port(port)
    return settings.model_copy(update={"url": SecretStr(str(url))})


class RabbitProcess:
    """A real rabbitmq-server with its own epmd and a folder of its own, which a test may end and start again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.port}/"
        self._epmd_port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="rabbit-"))
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return as soon as the broker speaks AMQP."""
        if self._epmd is None:
            self._epmd = self._run("epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1")
        self._server = self._run("rabbitmq-server")
        wait_until(self._speaks, START_SECONDS)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the broker, with SIGKILL as a machine that loses its power; what was confirmed stays on disk."""
        _end(self._server, number)
        self._server = None

    def remove(self) -> None:
        """End the broker and its epmd, and delete what they stored."""
        self.stop(signal.SIGKILL)
        _end(self._epmd, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        program = shutil.which(name, path=f"{PROGRAMS}:{os.defpath}")
        assert program, f"{name} is missing: `make setup-dev` installs it"
        with (self._folder / f"{name}.out").open("ab") as output:
            return subprocess.Popen(
                [program, *arguments],
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def _environment(self) -> dict[str, str]:
        folder = self._folder
        (folder / "plugins").write_text("[].\n")
        (folder / "rabbit.conf").write_text(f"listeners.tcp.local = 127.0.0.1:{self.port}\n")
        (folder / "env.conf").touch()
        return {
            "PATH": os.defpath,
            "HOME": str(folder),  # of the Erlang cookie
            "USER": pwd.getpwuid(os.getuid()).pw_name,
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RUNNING_UNDER_SYSTEMD": "1",  # becomes the broker instead of starting it: one process to end
            "RABBITMQ_NODENAME": f"rabbit-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbit.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -start_epmd false",
        }

    def _speaks(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self._folder / "rabbitmq-server.out").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(AMQP_HEADER)
                return connection.recv(1) == b"\x01"
        except OSError:
            return False


def _end(process: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
    if process is not None:
        process.send_signal(number)
        process.wait(timeout=STOP_SECONDS)


class Proxy:
    """A TCP proxy on a loopback port: it passes bytes on until it is told to cut, to delay or to stall them."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0
        self._accepting = True
        self.refused = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._pipes: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def refuse(self) -> None:
        """Cut, and take no connection until it flows again."""
        self._accepting = False
        self.cut()

    def stall(self) -> None:
        """Pass nothing on and take what comes, as a network that swallows packets."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass on again, what waited too."""
        self._accepting = True
        self._flowing.set()

    def delay(self, seconds: float) -> None:
        """Pass on each piece so much later."""
        self._delay = seconds

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._accepting:
            self.refused += 1
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        for source, target in ((reader, back), (there, writer)):
            pipe = asyncio.create_task(self._pipe(source, target))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pipe(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(CHUNK_BYTES):
                await asyncio.sleep(self._delay)
                await self._flowing.wait()
                target.write(piece)
                await target.drain()
        target.close()
        self._writers.discard(target)


@pytest.fixture(scope="session")
def rabbit() -> Iterator[RabbitProcess]:
    """Start a RabbitMQ for all tests, each with a prefix of its own; one that ends it starts it again."""
    broker = RabbitProcess()
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()


@pytest.fixture
async def rabbit_settings(rabbit: RabbitProcess) -> AsyncIterator[RabbitMQSettings]:
    """Yield settings that name the tests' RabbitMQ and a prefix of this test's own, whose queues go after it."""
    settings = RabbitMQSettings(url=SecretStr(rabbit.url), prefix=f"test-{secrets.token_hex(8)}", heartbeat_seconds=2)
    yield settings
    await delete_queues(settings)


async def delete_queues(settings: RabbitMQSettings, queues: Sequence[WorkQueue] = (JOBS,)) -> None:
    """Delete the exchange and the queues of a prefix."""
    topology = Topology(settings.prefix, queues)
    async with await aio_pika.connect(settings.url.get_secret_value()) as connection, connection.channel() as channel:
        for name in topology.names():
            await channel.queue_delete(name)
        await channel.exchange_delete(topology.exchange)


@asynccontextmanager
async def consuming(
    queues: Queues, handler: Handler, *, prefetch: int = 1, drain_seconds: float = 10.0
) -> AsyncIterator[asyncio.Event]:
    """Consume the jobs within the block, then stop; what is yielded stops them earlier."""
    stopping = asyncio.Event()
    consumer = queues.consume(JOBS.name, handler, prefetch=prefetch, stopping=stopping, drain_seconds=drain_seconds)
    task = asyncio.create_task(consumer)
    try:
        yield stopping
    finally:
        stopping.set()
        async with asyncio.timeout(30):
            await task


class Worker:
    """A handler that notes what it gets, and does what the test says with it."""

    def __init__(self, do: Callable[[Delivery], Awaitable[None]] | None = None) -> None:
        self.got: list[Delivery] = []
        self.running = self.most = 0
        self._do = do

    async def __call__(self, delivery: Delivery) -> None:
        self.got.append(delivery)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self._do is not None:
                await self._do(delivery)
        finally:
            self.running -= 1

    @property
    def ids(self) -> list[str]:
        return [delivery.message_id for delivery in self.got]


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return as soon as a condition holds, the event loop free meanwhile; fail when it does not in time."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  what is waited for sets no event
            await asyncio.sleep(0.01)
