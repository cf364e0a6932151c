"""compose.yaml's services as processes of this machine: our roles with their own commands, beside real servers.

What a container engine would do is done here: hosts and ports become loopback's, mounts become folders, and a process
that ends by itself is started again, as `restart: unless-stopped` says. Not run: etcd, MinIO (milvus-lite is the vector
server), Attu, and the profiles.
"""

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from brokers import PROGRAMS, RabbitProcess
from composing import Service, environment, made_env, read, resolved, roles
from conftest import ModelServer, free_port, wait_until
from databases import PostgresProcess
from served import listens, scripted_model
from talking import Client

BIN = Path(sys.executable).parent
SERVERS = {"standalone": 19530, "redis": 6379, "rabbitmq": 5672, "postgres": 5432}
HTTP = "8000"
START_SECONDS, END_SECONDS, HEALTH_SECONDS = 120.0, 60.0, 15
LOOK_SECONDS, RESTART_SECONDS = 0.1, 0.5
MOST_RESTARTS = 1
MODEL = ("--ttft-ms", "20", "--token-ms", "10", "--tokens", "20")


@dataclass
class Process:
    """One service: its command, and its output in a file for each start."""

    name: str
    command: list[str]
    variables: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    kept: bool = False
    starts: int = 0

    def launch(self) -> None:
        """Start it where it does not run, and keep it running from now on."""
        self.kept = True
        if self.alive:
            return
        self.starts += 1
        with (self.folder / f"{self.starts}.log").open("wb") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End it as a machine that loses its power; it is started again."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=END_SECONDS)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it for good, as `docker compose stop`, and return its exit code."""
        self.kept = False
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=END_SECONDS)

    def run(self) -> int:
        """Run it to its end, and return its exit code."""
        self.launch()
        self.kept = False
        assert self.process is not None
        return self.process.wait(timeout=START_SECONDS)

    def log(self) -> str:
        """Return what it wrote, of all its starts."""
        texts = (path.read_text("utf-8", errors="replace") for path in sorted(self.folder.glob("*.log")))
        return "\n".join(texts)


@dataclass
class Topology:
    """Everything that runs, by the service's name."""

    folder: Path
    env: Path
    faq: Path
    model: ModelServer
    ports: dict[str, int]
    services: dict[str, Service]
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Return the operator's API key."""
        return read(self.env)["SMARTSTORE_SERVER__API_KEYS"]

    def url(self, role: str) -> str:
        return f"http://127.0.0.1:{self.ports[role]}"

    def client(self, **headers: str) -> Client:
        """Return a client of the API with an address of its own."""
        return Client(self.url("api"), **headers)

    def healthy(self, name: str) -> bool:
        """Run a service's own health check."""
        kind, *check = self.services[name]["healthcheck"]["test"]
        command = [self.here(part, name) for part in check] if kind == "CMD" else ["sh", "-c", *check]
        if kind == "CMD-SHELL":
            command = [part.replace("redis-cli", f"redis-cli -p {self.ports[name]}") for part in command]
        done = subprocess.run(
            command, env=self.processes[name].variables, capture_output=True, timeout=HEALTH_SECONDS, check=False
        )
        return done.returncode == 0

    def until_healthy(self, *names: str) -> None:
        """Return when these services are; fail as soon as one keeps ending."""
        most = {name: self.processes[name].starts + MOST_RESTARTS for name in names}
        for name in names:
            process = self.processes[name]
            deadline = time.monotonic() + START_SECONDS
            while not self.healthy(name):
                assert process.starts <= most[name], process.log()
                assert time.monotonic() < deadline, process.log()
                time.sleep(LOOK_SECONDS)

    def here(self, text: str, name: str) -> str:
        """Return a text of a service with what it names as it is on this machine."""
        home = self.folder / name
        for host, port in SERVERS.items():
            text = text.replace(f"{host}:{port}", f"127.0.0.1:{self.ports[host]}")
        text = text.replace(f"127.0.0.1:{HTTP}", f"127.0.0.1:{self.ports.get(name, 0)}").replace("0.0.0.0", "127.0.0.1")
        text = text.replace("/opt/smartstore/bin", str(BIN)).replace(f"/faq/{self.faq}", str(self.faq))
        return {"/data": str(home / "data"), "/faq": str(self.faq.parent), HTTP: str(self.ports.get(name, 0))}.get(
            text, text
        )

    def add_role(self, name: str) -> None:
        """Make a role's process of what compose.yaml and the image say."""
        home = self.folder / name
        for part in ("data", "tmp"):
            (home / part).mkdir(parents=True)
        given = environment(self.services[name], self.env)
        variables = {variable: self.here(value, name) for variable, value in given.items()}
        self.processes[name] = Process(
            name,
            [str(BIN / "smartstore"), *self.services[name]["command"]],
            variables | {"TMPDIR": str(home / "tmp")},
            home,
        )

    def add(self, name: str, command: list[str], variables: dict[str, str]) -> None:
        """Make a server's process."""
        home = self.folder / name
        home.mkdir()
        self.processes[name] = Process(name, command, {"PATH": os.defpath, "HOME": str(home)} | variables, home)

    def supervise(self, over: threading.Event) -> None:
        """Start again what ended by itself, until it is over."""
        while not over.wait(LOOK_SECONDS):
            for process in list(self.processes.values()):
                if process.kept and not process.alive and not over.wait(RESTART_SECONDS) and process.kept:
                    process.launch()


@contextmanager
def composed(folder: Path, faq: Path, model_speed: tuple[str, ...] = MODEL) -> Iterator[Topology]:
    """Yield the topology of an FAQ file, all of it up and healthy, started in compose.yaml's order."""
    with ExitStack() as stack:
        model = stack.enter_context(scripted_model(*model_speed))
        env, _ = made_env(
            folder,
            f"FAQ={faq}\nOPENAI_API_KEY=sk-secret-of-the-tests\nOPENAI_BASE_URL={model.url}\n",
            "SMARTSTORE_OPENAI__MODEL=stub\nSMARTSTORE_LIMITS__PER_MINUTE=0\n",
        )
        compose = resolved(read(env))
        postgres = PostgresProcess()
        stack.callback(postgres.remove)
        rabbit = RabbitProcess()
        stack.callback(rabbit.remove)
        ports = {name: free_port() for name in ("standalone", "redis", *roles(compose))}
        ports |= {"rabbitmq": rabbit.port, "postgres": postgres.port}
        found = Topology(folder, env, faq, model, ports, compose["services"])
        stack.callback(_end_all, found)
        over = threading.Event()
        supervisor = threading.Thread(target=found.supervise, args=(over,), daemon=True)
        stack.callback(supervisor.join)
        stack.callback(over.set)
        supervisor.start()
        _start_servers(found, rabbit, postgres)
        for name in roles(compose):
            found.add_role(name)
        found.processes["index-worker"].launch()
        found.until_healthy("index-worker")
        first = found.processes["first-index"]
        assert first.run() == 0, first.log() + found.processes["index-worker"].log()
        waiting = [name for name, of in roles(compose).items() if "first-index" in of["depends_on"]]
        for name in waiting:
            found.processes[name].launch()
        found.until_healthy(*waiting)
        yield found


def _start_servers(found: Topology, rabbit: RabbitProcess, postgres: PostgresProcess) -> None:
    """Start what stands where compose.yaml's servers do, with the users and passwords that it gives them."""
    folder, services, ports = found.folder, found.services, found.ports
    shims = folder / "shims"
    shims.mkdir()
    shim = shims / "docker-entrypoint.sh"
    where = shlex.join(["--port", str(ports["redis"]), "--bind", "127.0.0.1", "--dir", str(folder / "redis")])
    shim.write_text(f'#!/bin/sh\nexec "$@" {where}\n')
    shim.chmod(0o755)
    found.add(
        "redis", services["redis"]["command"], {"PATH": f"{shims}:{os.defpath}", **services["redis"]["environment"]}
    )
    options = ["--data-dir", str(folder / "standalone" / "data"), "--host", "127.0.0.1"]
    milvus = [str(BIN / "milvus-lite"), "server", *options, "--port", str(ports["standalone"])]
    found.add("standalone", milvus, {"GRPC_VERBOSITY": "NONE"})
    own = rabbit._environment()
    found.add("epmd", ["epmd", "-port", own["ERL_EPMD_PORT"], "-address", "127.0.0.1"], own)
    found.add("rabbitmq", [f"{PROGRAMS}/rabbitmq-server"], own | services["rabbitmq"]["environment"])
    for name in ("epmd", "redis", "standalone", "rabbitmq"):
        found.processes[name].launch()
    postgres.start()
    asyncio.run(_prepare(postgres, services["postgres"]["environment"]))
    wait_until(lambda: found.healthy("redis"), START_SECONDS)
    for name in ("standalone", "rabbitmq"):
        wait_until(lambda name=name: listens(ports[name]), START_SECONDS)  # type: ignore[misc]


async def _prepare(postgres: PostgresProcess, given: dict[str, str]) -> None:
    """Make the user and the database that the image of PostgreSQL would."""
    assert all(re.fullmatch(r"\w+", value) for value in given.values())
    connection = await asyncpg.connect(await postgres.emptied())
    await connection.execute(f"CREATE ROLE {given['POSTGRES_USER']} LOGIN PASSWORD '{given['POSTGRES_PASSWORD']}'")
    await connection.execute(f"CREATE DATABASE {given['POSTGRES_DB']} OWNER {given['POSTGRES_USER']}")
    await connection.close()


def _end_all(found: Topology) -> None:
    for process in found.processes.values():
        process.kept = False
        if process.alive:
            process.stop(signal.SIGKILL)
