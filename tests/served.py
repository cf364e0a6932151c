"""Real `smartstore serve` processes, one for all tests of a configuration, and what talks to them."""

import codecs
import itertools
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import START_SECONDS, STUB, ModelServer, RedisProcess, free_port, wait_until

PROGRAM = str(Path(sys.executable).parent / "smartstore")
SERVE_SECONDS = 90.0  # a start takes 6 s alone, more beside others
END_SECONDS = 40.0
COMMAND_SECONDS = 120
LINE_END = re.compile("\r\n|\n|\r")
URL = re.compile(r"(http://\S+) 에서 답합니다")
MINOR = "미성년자도 판매 회원 등록이 가능한가요?"
RESTAURANT = "오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?"
UNANSWERED = "정산 대금을 비트코인으로 받을 수 있나요?"
KEYS = ["key-one", "key-two"]
ORIGIN = "https://shop.example"
PER_MINUTE = 12
UNPREFIXED = {"OPENAI_API_KEY", "OPENAI_BASE_URL"}
_addresses = itertools.count(1)


@dataclass(frozen=True)
class Event:
    """One server-sent event; a comment is named "comment" and has no id."""

    id: int
    name: str
    data: Any


def read_events(parts: Iterator[bytes]) -> Iterator[Event]:
    """Yield the events of a body, read as the HTML standard says: lines end in LF, CR or both, an empty one sends."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    rest, fields = "", dict[str, list[str]]()
    for part in parts:
        *lines, rest = LINE_END.split(rest + decode(part))
        for line in lines:
            name, _, value = line.partition(":")
            if line.startswith(":"):
                yield Event(0, "comment", value)
            elif line:
                fields.setdefault(name, []).append(value.removeprefix(" "))
            elif "data" in fields:
                yield Event(int(fields["id"][-1]), fields["event"][-1], json.loads("\n".join(fields["data"])))
                fields = {}
            else:
                fields = {}
    assert (rest, fields) == ("", {}), "the stream ends in the middle of an event"


def events_of(response: httpx.Response) -> Iterator[Event]:
    """Yield the events of a streamed response, heartbeats left out."""
    assert response.status_code == 200, response.read().decode()
    assert response.headers["content-type"].startswith("text/event-stream")
    return (event for event in read_events(response.iter_bytes()) if event.name != "comment")


def only(events: list[Event], name: str) -> Any:
    """Return the data of the one event of that name."""
    (found,) = [event.data for event in events if event.name == name]
    return found


def said(events: list[Event]) -> str:
    """Return the text of the tokens since the last restart."""
    restarts = [place for place, event in enumerate(events) if event.name == "restart"]
    return "".join(event.data["text"] for event in events[restarts[-1] if restarts else 0 :] if event.name == "token")


class Client(httpx.Client):
    """A client with a loopback address of its own, which a trusted proxy, the test, names."""

    def __init__(self, url: str, **headers: str) -> None:
        """Talk to the server at `url`, with these headers in every request."""
        super().__init__(
            base_url=url,
            headers={"X-Forwarded-For": new_address(), **{name.replace("_", "-"): of for name, of in headers.items()}},
            timeout=60.0,
            trust_env=False,
        )

    @contextmanager
    def chat(self, **body: Any) -> Iterator[Iterator[Event]]:
        """Ask, and yield the events as they come; leaving the block hangs up."""
        with self.stream("POST", "/api/chat", json=body) as response:
            yield events_of(response)

    def ask(self, question: str, **body: Any) -> list[Event]:
        """Ask, and return all events of the answer."""
        with self.chat(question=question, **body) as events:
            return list(events)

    def reply(self, question: str, **body: Any) -> dict[str, Any]:
        """Ask with ?stream=false, and return the document."""
        response = self.post("/api/chat?stream=false", json={"question": question, **body})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def resume(self, run_id: str, after: int | None = None) -> list[Event]:
        """Return what a run said after an event, to its end."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self.stream("GET", f"/api/runs/{run_id}/events", headers=headers) as response:
            return list(events_of(response))

    def turns(self, session_id: str) -> list[dict[str, Any]]:
        """Return the turns of a conversation."""
        response = self.get(f"/api/sessions/{session_id}")
        assert response.status_code == 200, response.text
        found: list[dict[str, Any]] = response.json()["turns"]
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Return a figure of /metrics, 0 where it is not shown yet."""
        shown = "".join(sorted(f'{label}="{of}"' for label, of in labels.items()))
        for line in self.get("/metrics").text.splitlines():
            found = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name and "".join(sorted(re.findall(r'\w+="[^"]*"', found[2] or ""))) == shown:
                return float(found[3])
        return 0.0


def new_address() -> str:
    """Return a loopback address that no client had before."""
    number = next(_addresses)
    return f"127.{1 + number // 65_536}.{number // 256 % 256}.{number % 256}"


@dataclass
class Served:
    """One `smartstore serve` over a data folder of its own; its stderr is kept in a file."""

    folder: Path
    settings: dict[str, str]
    url: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _logs: list[Path] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Return the whole environment of the program."""
        basic = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8"}
        return {**basic, "SMARTSTORE_DATA_DIR": str(self.folder / "data"), **self.settings}

    def start(self) -> None:
        """Start it on a free port, and return when it answers."""
        log = self.folder / f"{len(self._logs)}.log"
        self._logs.append(log)
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [PROGRAM, "serve", "--port", "0"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        wait_until(self._told, SERVE_SECONDS)
        wait_until(lambda: listens(int(self.url.rpartition(":")[2])), SERVE_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Return the exit code of the process, which was told to end."""
        assert self._process is not None
        return self._process.wait(timeout=END_SECONDS)

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
        return self._logs[-1].read_text(encoding="utf-8")

    def lines(self) -> list[dict[str, Any]]:
        """Return its log lines."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def _told(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        if found := URL.search(self.log()):
            self.url = found[1]
        return bool(found)


@contextmanager
def serving(folder: Path, indexed: Path, **settings: str) -> Iterator[Served]:
    """Serve a copy of an indexed folder until the block ends; at its end nothing must have gone wrong unforeseen."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(indexed, folder / "data")
    names = {name if name in UNPREFIXED else f"SMARTSTORE_{name}": value for name, value in settings.items()}
    served = Served(folder, names)
    try:
        served.start()
        yield served
        unforeseen = [line for line in served.lines() if line["level"] in ("error", "critical")]
        assert unforeseen == []
        assert "Traceback" not in served.log()
    finally:
        with suppress(ProcessLookupError, AssertionError):
            served.signal(signal.SIGKILL)
            served.wait()


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
def plain(indexed_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve without a model, a key, a server beside it, or a limit; what is asked to be indexed is not there."""
    settings = {"LIMITS__PER_MINUTE": "0", "FAQ": "missing.jsonl"}
    with serving(tmp_path_factory.mktemp("plain"), indexed_dir, **settings) as served:
        yield served


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


def model_settings(switch: ModelSwitch) -> dict[str, str]:
    """Return the settings of a bot whose model is behind the switch."""
    return {
        "OPENAI_API_KEY": "sk-secret-of-the-tests",
        "OPENAI_BASE_URL": switch.url,
        "OPENAI__MODEL": switch.NAME.decode(),
        "OPENAI__TIMEOUT_SECONDS": "1",
    }


@pytest.fixture(scope="session")
def talkative(indexed_dir: Path, switch: ModelSwitch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve with a model, heartbeats and a grace that a test can wait for, and a limit for each address."""
    settings = {
        **model_settings(switch),
        "STREAM__HEARTBEAT_SECONDS": "0.3",
        "STREAM__GRACE_SECONDS": "1.5",
        "LIMITS__PER_MINUTE": str(PER_MINUTE),
    }
    with serving(tmp_path_factory.mktemp("talkative"), indexed_dir, **settings) as served:
        yield served


@pytest.fixture(scope="session")
def server_redis() -> Iterator[RedisProcess]:
    """Start the redis-server of `guarded`; a test that ends it starts it again."""
    server = RedisProcess()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def guarded(
    indexed_dir: Path, switch: ModelSwitch, server_redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Serve with a model and Redis, a key needed for everything, one run at once, one waiting, and other limits."""
    settings = {
        **model_settings(switch),
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
    }
    with serving(tmp_path_factory.mktemp("guarded"), indexed_dir, **settings) as served:
        yield served


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


def scripted(client: Client, text: str) -> dict[str, Any]:
    """Return the body of a question that the scripted model answers with this text, whatever it says."""
    found = client.get("/api/search", params={"q": MINOR, "k": 1})
    return {"question": f"알려 주세요 [[reply: {text}]]", "faq_id": found.json()["results"][0]["id"]}
