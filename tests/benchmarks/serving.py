"""Time the served bot under load: what it adds to the model's own first token, and what its cache saves.

    python tests/benchmarks/serving.py [FAQ FILE]

starts the scripted model server at its default speed (first token after 200 ms, 20 ms a token), `smartstore serve`, and
the load in this process: closed loops that each ask one question after the other, every question different. The index
of the file (by default the sample) is kept under the system's temporary folder, where the next run finds it again.
"""

import asyncio
import itertools
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import median, quantiles

from smartstore_indexing.faq import digest
from smartstore_indexing.settings import load_settings

STUB = Path(__file__).parent.parent / "servers" / "stub_openai.py"
PROGRAM = Path(sys.executable).with_name("smartstore")
MODEL_FIRST_TOKEN_MS = 200.0
RUNS = 3
EACH = 5  # questions of each client
AT_ONCE = (1, 50, 200)
SINGLE = 25  # questions where one client asks
TARGETS = {1: "50 / 90", 50: "300 / 1,000", 200: "no error"}
ORIGINAL = {1: "740 / 846", 50: "11,638 / 18,939"}
REPEATS = 60
MISSES = 20
CLIENTS = 25  # that ask while memory is watched


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as its client saw it; milliseconds from the question on."""

    first_token: float
    whole: float
    kind: str
    cached: bool
    failed: bool


def main(path: Path | None) -> None:
    """Index, start everything, measure and print."""
    source = (path or load_settings().faq).resolve()
    folder = Path(tempfile.gettempdir()) / f"smartstore-bench-{digest(str(source))}"
    indexed = subprocess.run(
        [PROGRAM, "index", str(source)], env=environment(folder), check=True, capture_output=True, text=True
    )
    print(indexed.stdout.splitlines()[0])
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    asyncio.run(measure(folder))


async def measure(folder: Path) -> None:
    """Measure the served bot with the index of a folder."""
    with stub() as model_url, server(folder, model_url) as (port, pid):
        questions = fresh_questions()
        for at_once in AT_ONCE:
            before = cpu_seconds(pid)
            runs = [await load(port, questions, at_once) for _ in range(RUNS if at_once < AT_ONCE[-1] else 1)]
            report(at_once, runs)
            asked = sum(len(answers) for answers, _ in runs)
            print(f"  the server's CPU: {(cpu_seconds(pid) - before) / asked * 1000:.0f} ms a question")
        await memory(port, pid, questions)
    await caches(folder)


async def load(port: int, questions: Iterator[str], at_once: int) -> tuple[list[Answer], float]:
    """Return the answers of so many clients at once, and the seconds they took."""
    each = SINGLE if at_once == 1 else EACH

    async def client() -> list[Answer]:
        return [await ask(port, next(questions)) for _ in range(each)]

    started = time.perf_counter()
    answers = await asyncio.gather(*(client() for _ in range(at_once)))
    return list(itertools.chain.from_iterable(answers)), time.perf_counter() - started


def report(at_once: int, runs: list[tuple[list[Answer], float]]) -> None:
    """Print what the program added to the model's first token, over the answers that the model wrote."""
    p50s, p95s = [], []
    for answers, seconds in runs:
        by_model = [answer.first_token - MODEL_FIRST_TOKEN_MS for answer in answers if answer.kind == "answered"]
        p50s.append(median(by_model))
        p95s.append(quantiles(by_model, n=20)[-1])
        kinds = Counter("failed" if answer.failed else answer.kind for answer in answers)
        print(
            f"  {at_once} at once: added p50 {p50s[-1]:.0f} ms, p95 {p95s[-1]:.0f} ms, n {len(by_model)}, "
            f"{len(answers) / seconds:.1f} questions/s, {dict(kinds)}"
        )
    print(
        f"{at_once} at once, median of {len(runs)}: added p50 {median(p50s):.0f} / p95 {median(p95s):.0f} ms "
        f"(asked for {TARGETS[at_once]}; the original {ORIGINAL.get(at_once, 'not measured')})"
    )


async def memory(port: int, pid: int, questions: Iterator[str]) -> None:
    """Print the server's resident memory after 100 and after 1,000 more questions."""
    resident = {}
    for asked in (100, 1_000):
        await asyncio.gather(*(some(port, questions, asked // CLIENTS) for _ in range(CLIENTS)))
        resident[asked] = rss(pid)
    growth = resident[1_000] / resident[100] - 1
    print(f"RSS after 100 / 1,100 questions: {resident[100]:.0f} / {resident[1_000]:.0f} MiB, {growth:+.1%} (<= 10 %)")


async def some(port: int, questions: Iterator[str], count: int) -> None:
    """Ask so many questions, one after the other."""
    for _ in range(count):
        await ask(port, next(questions))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has taken, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]  # the kernel writes it


async def caches(folder: Path) -> None:
    """Print how long repeats take: from Redis, from the local file, by meaning, and with the cache off."""
    with redis() as url:
        ways = {
            "local": {},
            "Redis": {"SMARTSTORE_REDIS__URL": url},
            "no cache": {"SMARTSTORE_CACHE__ENABLED": "false"},
        }
        for name, settings in ways.items():
            with stub() as model_url, server(folder, model_url, **settings) as (port, _):
                question = "정산은 언제 되나요?"
                misses = [await ask(port, text) for text in itertools.islice(fresh_questions(), MISSES)]
                first = await ask(port, question)
                exact = [await ask(port, question) for _ in range(REPEATS)]
                likes = [
                    await ask(port, text) for text in ("정산은 언제 되나요", "정산 언제 되나요?", "정산이 언제 되나요?")
                ]
            print(
                f"{name}: first {first.whole:.0f} ms whole; repeats p50 {median(a.whole for a in exact):.1f} ms whole "
                f"(asked for 15), {sum(a.cached for a in exact)} of {len(exact)} cached; by meaning "
                f"{', '.join(f'{a.whole:.0f} ms' + (' cached' if a.cached else '') for a in likes)} (asked for 60); "
                f"misses p50 {median(a.whole for a in misses):.0f} ms whole, n {len(misses)}"
            )


async def ask(port: int, question: str) -> Answer:
    """Ask one question on a connection of its own, and return its answer."""
    body = json.dumps({"question": question}).encode()
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(
        b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    first, kind, cached, failed = 0.0, "none", False, False
    async for line in reader:
        if line.startswith(b"event: token") and not first:
            first = (time.perf_counter() - started) * 1000
        elif line.startswith(b"event: error"):
            failed = True
        elif line.startswith(b'data: {"kind"'):
            answer = json.loads(line[6:])
            kind, cached = answer["kind"], answer["cached"]
    whole = (time.perf_counter() - started) * 1000
    writer.close()
    return Answer(first, whole, kind, cached, failed or kind == "none")


def fresh_questions() -> Iterator[str]:
    """Yield questions of our own, each once; when all were asked, again with another ending."""
    text = resources.files("smartstore_workflows").joinpath("training_queries.jsonl").read_text(encoding="utf-8")
    asked = [json.loads(line)["query"] for line in text.splitlines()]
    endings = ("", " 알려 주세요", " 궁금해요", " 부탁드려요", " 급해요")
    return iter([f"{question}{ending}" for ending in endings for question in asked])


@contextmanager
def stub() -> Iterator[str]:
    """Yield the address of the scripted model server."""
    port = free_port()
    with running([sys.executable, str(STUB), "--port", str(port)], port, {}):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def server(folder: Path, model_url: str, **settings: str) -> Iterator[tuple[int, int]]:
    """Yield the port and process id of the served bot."""
    port = free_port()
    (folder / "conversations.sqlite3").unlink(missing_ok=True)
    names = {"OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": model_url, "SMARTSTORE_OPENAI__MODEL": "stub"}
    names |= environment(folder) | settings
    with running([str(PROGRAM), "serve", "--port", str(port)], port, names) as pid:
        yield port, pid


@contextmanager
def redis() -> Iterator[str]:
    """Yield the address of a redis-server that keeps nothing."""
    port, program = free_port(), shutil.which("redis-server")
    assert program, "redis-server is missing: `make setup-dev` installs it"
    with running([program, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", "/"], port, {}):
        yield f"redis://127.0.0.1:{port}/0"


def environment(folder: Path) -> dict[str, str]:
    """Return the program's environment."""
    return {"SMARTSTORE_DATA_DIR": str(folder), "SMARTSTORE_LIMITS__PER_MINUTE": "0", "HOME": str(folder)}


@contextmanager
def running(command: list[str], port: int, names: dict[str, str]) -> Iterator[int]:
    """Run a program until the block ends, and yield its process id once it listens."""
    with subprocess.Popen(
        command, env={"PATH": os.defpath, **names}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while not listens(port):
                assert process.poll() is None, f"{command[0]} ended"
                time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Tell whether something listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
