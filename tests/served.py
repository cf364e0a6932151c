"""Real `smartstore serve` processes, one for all tests of a configuration, and a model behind them that can fail."""

import json
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import START_SECONDS, STUB, ModelServer, RedisProcess, free_port, wait_until
from talking import Client

PROGRAM = str(Path(sys.executable).parent / "smartstore")
SERVE_SECONDS = 90.0  # a start takes 6 s alone, more beside others
END_SECONDS = 40.0
COMMAND_SECONDS = 120
URL = re.compile(r"(http://\S+) 에서 답합니다")
KEYS = ["key-one", "key-two"]
ORIGIN = "https://shop.example"
PER_MINUTE = 12
UNPREFIXED = {"OPENAI_API_KEY", "OPENAI_BASE_URL"}


@dataclass
class Served:
    """One `smartstore serve` over a data folder of its own; its stderr is kept in a file."""

    folder: Path
    settings: dict[str, str]
    arguments: tuple[str, ...] = ()
    url: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _logs: list[Path] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Return the whole environment of the program."""
        basic = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8"}
        return {**basic, "SMARTSTORE_DATA_DIR": str(self.folder / "data"), **self.settings}

    def start(self) -> "Served":
        """Start it on a free port where it does not run, and return it when it answers."""
        self.launch()
        wait_until(self._told, SERVE_SECONDS)
        wait_until(lambda: listens(int(self.url.rpartition(":")[2])), SERVE_SECONDS)
        return self

    def launch(self) -> None:
        """Start it where it does not run; `start` waits for it."""
        if self._process is not None and self._process.poll() is None:
            return
        log = self.folder / f"{len(self._logs)}.log"
        self._logs.append(log)
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [PROGRAM, "serve", "--port", "0", *self.arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Return the exit code of the process, which was told to end."""
        assert self._process is not None
        return self._process.wait(timeout=END_SECONDS)

    def end(self) -> None:
        """End the process where it runs."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def client(self, **headers: str) -> Client:
        """Return a client with an address of its own."""
        return Client(self.url, **headers)

    def run(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the program in the same world to its end."""
        return subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.folder,
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def log(self) -> str:
        """Return what the process wrote to stderr since it was started last."""
        return self._logs[-1].read_text(encoding="utf-8") if self._logs else ""

    def lines(self) -> list[dict[str, Any]]:
        """Return its log lines."""
        whole, _, _ = self.log().rpartition("\n")  # the last one may be half written
        return [json.loads(line) for line in whole.split("\n") if line.startswith("{")]

    def _told(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        if found := URL.search(self.log()):
            self.url = found[1]
        return bool(found)


@contextmanager
def serving(folder: Path, indexed: Path, *arguments: str, **settings: str) -> Iterator[Served]:
    """Yield a server of a copy of an indexed folder, to be started, and end it; nothing unforeseen may have gone wrong.

    `arguments` go to the program, `settings` are named without their prefix.
    """
    shutil.copytree(indexed, folder / "data")
    names = {name if name in UNPREFIXED else f"SMARTSTORE_{name}": value for name, value in settings.items()}
    served = Served(folder, names, arguments)
    try:
        yield served
        assert [line for line in served.lines() if line["level"] in ("error", "critical")] == []
        assert "Traceback" not in served.log()
    finally:
        served.end()


class ModelSwitch:
    """Stands before the scripted model server and names one of its models to it: a served bot meets every fault.

    The bot's own model has the name of `NAME`, which is given another one of the same length on its way.
    """

    NAME = b"stub-to-be-named"

    def __init__(self, port: int) -> None:
        """Stand before the server at that port."""
        self.fault = ""
        switch = self

        class Pass(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
                    back = threading.Thread(target=switch._pump, args=(server, self.request), daemon=True)
                    back.start()
                    switch._pump(self.request, server, renames=True)
                    back.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Pass)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._server.shutdown()
        self._server.socket.close()

    @contextmanager
    def model(self, name: str) -> Iterator[None]:
        """Name that model of the scripted server while the block lasts."""
        self.fault = name.removeprefix("stub")
        try:
            yield
        finally:
            self.fault = ""

    def _pump(self, source: socket.socket, target: socket.socket, *, renames: bool = False) -> None:
        held = b""
        with suppress(OSError):
            while part := source.recv(65_536):
                whole = held + part
                held = b""
                if renames and self.fault:
                    cut = next((n for n in range(len(self.NAME) - 1, 0, -1) if whole.endswith(self.NAME[:n])), 0)
                    whole, held = whole[: len(whole) - cut], whole[len(whole) - cut :]
                    whole = whole.replace(self.NAME, self.fault.encode().rjust(len(self.NAME), b"x"))
                target.sendall(whole)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def listens(port: int) -> bool:
    """Tell whether something listens on a loopback port."""
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


@contextmanager
def scripted_model(*options: str) -> Iterator[ModelServer]:
    """Start a scripted model server of this speed on a free loopback port, and end it by its process id."""
    port = free_port()
    with subprocess.Popen([sys.executable, str(STUB), "--port", str(port), *options]) as process:
        try:
            wait_until(lambda: listens(port), START_SECONDS)
            yield ModelServer(f"http://127.0.0.1:{port}/v1")
        finally:
            process.kill()
            process.wait(timeout=10)


@pytest.fixture(scope="session")
def slow_model() -> Iterator[ModelServer]:
    """Start a scripted model of 100 tokens a second: an answer of some hundred leaves time to do things meanwhile."""
    with scripted_model("--ttft-ms", "20", "--token-ms", "10", "--tokens", "20") as server:
        yield server


@pytest.fixture(scope="session")
def switch(slow_model: ModelServer) -> Iterator[ModelSwitch]:
    """Stand before the scripted model."""
    found = ModelSwitch(int(slow_model.url.split(":")[2].split("/")[0]))
    yield found
    found.close()


@pytest.fixture(scope="session")
def server_redis() -> Iterator[RedisProcess]:
    """Start the redis-server of `guarded`; a test that ends it starts it again."""
    server = RedisProcess()
    server.start()
    yield server
    server.stop()


def model_settings(switch: ModelSwitch) -> dict[str, str]:
    """Return the settings of a bot whose model is behind the switch."""
    return {
        "OPENAI_API_KEY": "sk-secret-of-the-tests",
        "OPENAI_BASE_URL": switch.url,
        "OPENAI__MODEL": switch.NAME.decode(),
        "OPENAI__TIMEOUT_SECONDS": "2.5",  # a call with its retries: longer than the grace, and than 429 asks to wait
    }


@pytest.fixture(scope="session")
def fleet(
    request: pytest.FixtureRequest,
    indexed_dir: Path,
    switch: ModelSwitch,
    server_redis: RedisProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Served]]:
    """Launch the servers that the collected tests name, all at once: each start keeps a core busy for seconds."""
    model = model_settings(switch)
    settings = {
        "plain": {"LIMITS__PER_MINUTE": "0", "FAQ": "missing.jsonl"},
        "talkative": {
            **model,
            "STREAM__HEARTBEAT_SECONDS": "0.3",
            "STREAM__GRACE_SECONDS": "1.5",
            "LIMITS__PER_MINUTE": str(PER_MINUTE),
        },
        "guarded": {
            **model,
            "REDIS__URL": server_redis.url,
            "REDIS__TIMEOUT_SECONDS": "0.5",
            "SERVER__API_KEYS": ",".join(KEYS),
            "SERVER__REQUIRE_KEY": "true",
            "SERVER__CORS_ORIGINS": ORIGIN,
            "LIMITS__PER_MINUTE": str(PER_MINUTE),
            "LIMITS__MAX_RUNS": "1",
            "LIMITS__QUEUE": "1",
            "LIMITS__QUEUE_SECONDS": "1",
            "STREAM__GRACE_SECONDS": "0.2",
            "STREAM__HEARTBEAT_SECONDS": "0.3",
        },
    }
    named = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    folder = tmp_path_factory.mktemp("fleet")
    with ExitStack() as stack:
        found = {
            name: stack.enter_context(serving(folder / name, indexed_dir, "--only", "api", **chosen))
            for name, chosen in settings.items()
        }
        for name in named & found.keys():
            found[name].launch()
        yield found


@pytest.fixture(scope="session")
def plain(fleet: dict[str, Served]) -> Served:
    """Return the server without a model, a key, a server beside it, or a limit; it has no FAQ file to index."""
    return fleet["plain"].start()


@pytest.fixture(scope="session")
def talkative(fleet: dict[str, Served]) -> Served:
    """Return the server with a model, with heartbeats and a grace to wait for, and a limit for each address."""
    return fleet["talkative"].start()


@pytest.fixture(scope="session")
def guarded(fleet: dict[str, Served]) -> Served:
    """Return the server with Redis and a model that needs a key for everything; one run at once, and one waits."""
    return fleet["guarded"].start()


@pytest.fixture
def client(plain: Served) -> Iterator[Client]:
    """Return a client of the server without a model."""
    with plain.client() as opened:
        yield opened


@pytest.fixture
def listener(talkative: Served) -> Iterator[Client]:
    """Return a client of the server with a model."""
    with talkative.client() as opened:
        yield opened


@pytest.fixture
def owner(guarded: Served) -> Iterator[Client]:
    """Return a client of the guarded server that has a key."""
    with guarded.client(Authorization=f"Bearer {KEYS[1]}") as opened:
        yield opened
