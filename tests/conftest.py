"""What the tests share: one index of the sample FAQ, one open bot, the scripted model server, and waiting."""

import asyncio
import fcntl
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from smartstore_indexing.setting_groups import CacheSettings, RedisSettings
from smartstore_indexing.settings import Settings, load_settings
from smartstore_workflows import Chatbot
from smartstore_workflows.answering import AnswerWorkflow
from smartstore_workflows.app import Services, build
from smartstore_workflows.follow_ups import FollowUpModel
from smartstore_workflows.models import Models

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
REAL_FAQ = SHARED / "data" / "final_result.pkl"
STUB = Path(__file__).parent / "servers" / "stub_openai.py"
START_SECONDS = 30.0
pytest_plugins = ["dealing", "served", "brokers", "workers", "browsing"]  # how files go to workers, and what they share


def settings_for(data_dir: Path, **overrides: object) -> Settings:
    """Return settings of their own world: nothing of the environment or of a .env file."""
    return load_settings({}, data_dir=data_dir, env_file=None, **overrides)


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return as soon as a condition holds; fail when it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not hold in time")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def indexed_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with the sample FAQ indexed and nobody holding it; copy it, do not write to it."""
    own = tmp_path_factory.getbasetemp()
    # The temporary folders of pytest-xdist's workers lie in one.
    folder = (own.parent if hasattr(request.config, "workerinput") else own) / "indexed"

    async def index(data_dir: Path) -> None:
        settings = settings_for(data_dir)
        async with build(settings) as services:
            await services.builder.build(settings.faq)

    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            begun = tmp_path_factory.mktemp("begun")
            with asyncio.Runner() as runner:
                runner.run(index(begun))
            begun.rename(folder)
    return folder


@pytest.fixture
def data_dir(indexed_dir: Path, tmp_path: Path) -> Path:
    """Return a data folder of this test's own, the sample FAQ indexed in it."""
    return Path(shutil.copytree(indexed_dir, tmp_path / "data"))


@pytest.fixture(scope="session")
async def bot(indexed_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chatbot]:
    """Yield an open, warm bot over the sample FAQ without a model or cache; each test takes a session of its own."""
    folder = shutil.copytree(indexed_dir, tmp_path_factory.mktemp("bot") / "data")
    async with Chatbot(settings_for(Path(folder), cache=CacheSettings(enabled=False))) as opened:
        await opened.warm_up()
        yield opened


def workflow_over(services: Services, **changes: Any) -> AnswerWorkflow:
    """Return a workflow over an open index, which takes seconds to load, with parts of the test's own; no cache."""
    parts: dict[str, Any] = {
        "retriever": services.retriever,
        "vectors": services.vectors,
        "morphemes": services.morphemes,
        "scope": services.scope,
        "follow_ups": FollowUpModel.shipped(),
        "models": Models({}),
        "timeout_seconds": 30.0,
    }
    return AnswerWorkflow(**parts | changes)


@dataclass(frozen=True)
class ModelServer:
    """The scripted OpenAI-compatible server; its README is the docstring of stub_openai.py."""

    url: str

    def get(self, path: str) -> str:
        """Return what the server says at /stub/…"""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + path, timeout=10) as answer:
            return str(answer.read().decode())


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisProcess:
    """A real redis-server of the tests' own, which a test may end and start again; it keeps nothing on disk."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program, "redis-server is missing: `make setup-dev` installs it"
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([*command, "--dir", "/"], stdout=subprocess.DEVNULL)
        wait_until(self._pongs, START_SECONDS)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _pongs(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisProcess]:
    """Start a redis-server for all tests; each takes a prefix of its own, and none may end it."""
    server = RedisProcess()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_settings(shared_redis: RedisProcess) -> RedisSettings:
    """Return settings that name the tests' redis-server and a prefix of this test's own."""
    # It never goes away, so nothing waits this long; on a busy machine the default of one second is too short.
    return RedisSettings(url=SecretStr(shared_redis.url), prefix=f"test-{secrets.token_hex(8)}", timeout_seconds=5.0)


@pytest.fixture
def own_redis() -> Iterator[RedisProcess]:
    """Start a redis-server of this test's own, to end and start as it likes."""
    server = RedisProcess()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def model_server() -> Iterator[ModelServer]:
    """Start the scripted model server on a free loopback port, and end it by its process id."""
    port = free_port()
    command = [sys.executable, str(STUB), "--port", str(port), "--ttft-ms", "20", "--token-ms", "2", "--tokens", "20"]
    with subprocess.Popen(command) as process:
        try:
            server = ModelServer(f"http://127.0.0.1:{port}/v1")
            wait_until(lambda: _answers(port), START_SECONDS)
            yield server
        finally:
            process.kill()  # at SIGTERM uvicorn waits for the requests that stub-hang never answers
            process.wait(timeout=10)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
