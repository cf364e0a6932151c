"""Time answers through the queue: their first token against the direct path, one worker and two, and a killed one.

    python tests/benchmarks/queueing.py

starts a RabbitMQ, a Redis, a `milvus-lite server` with the sample FAQ, and the scripted model at its default speed
(first token after 200 ms, 20 ms a token), then `smartstore serve --only api` and `smartstore worker answer` on them.
The load is in this process: closed loops that each ask one question after the other, every question different.
"""

import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles

from serving import MODEL_FIRST_TOKEN_MS, PROGRAM, environment, free_port, fresh_questions, load, redis, running, stub

sys.path.append(str(Path(__file__).parent.parent))
from brokers import RabbitProcess

from smartstore_indexing.settings import load_settings

RUNS = 3
ALLOWED = {1: 25, 50: 100}  # milliseconds that the queue may add
CLIENTS = 100  # where the rate is measured; a worker answers 64 at once
KILLS = 4


def main() -> None:
    """Start everything, measure and print."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a TextIOWrapper
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    print(f"the load of others: {os.getloadavg()[0]:.1f}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smartstore-queueing-")))
        broker = RabbitProcess()
        stack.callback(broker.remove)
        broker.start()
        model_url = stack.enter_context(stub())
        settings = {
            "OPENAI_API_KEY": "sk-bench",
            "OPENAI_BASE_URL": model_url,
            "SMARTSTORE_OPENAI__MODEL": "stub",
            "SMARTSTORE_MILVUS__URI": stack.enter_context(milvus(folder / "milvus")),
            "SMARTSTORE_REDIS__URL": stack.enter_context(redis()),
            "SMARTSTORE_RABBITMQ__URL": broker.url,
        }
        index = [PROGRAM, "index", str(load_settings().faq)]
        subprocess.run(index, env=named(folder, "index", settings), check=True, capture_output=True)
        asyncio.run(measure(folder, settings))


async def measure(folder: Path, settings: dict[str, str]) -> None:
    """Print what the queue adds to the first token, the rates, and what killed workers cost."""
    questions = fresh_questions()
    with ExitStack() as stack:
        direct = stack.enter_context(door(folder, "direct", settings))
        stack.enter_context(worker(folder, "first", settings))
        queue = stack.enter_context(door(folder, "queue", {**settings, "SMARTSTORE_ANSWERS": "queue"}))
        for at_once, allowed in ALLOWED.items():
            added = []
            for _ in range(RUNS):  # in turn: what else the machine does then weighs on both
                before = await first_token(direct, questions, at_once, "direct")
                added.append(await first_token(queue, questions, at_once, "queue") - before)
            print(f"{at_once} at once: the queue adds {median(added):+.0f} ms to the first token's p50 (<= {allowed})")
        rates = [await rate(queue, questions)]
        second = stack.enter_context(worker(folder, "second", settings))
        rates.append(await rate(queue, questions))
        print(f"{CLIENTS} at once: one worker {rates[0]:.1f} answers/s, two {rates[1]:.1f}")
        costs = []
        for number in range(KILLS):
            costs += await killed(queue, questions, second)
            second = stack.enter_context(worker(folder, f"next-{number}", settings))
        print(f"a killed worker costs its client {', '.join(f'{cost:.2f}' for cost in costs)} s (<= 5)")


async def first_token(port: int, questions: Iterator[str], at_once: int, path: str) -> float:
    """Return the p50 of what a path adds to the model's first token, in milliseconds."""
    answers, seconds = await load(port, questions, at_once)
    added = [answer.first_token - MODEL_FIRST_TOKEN_MS for answer in answers if answer.kind == "answered"]
    print(
        f"  {path}, {at_once} at once: added p50 {median(added):.0f} ms, p95 {quantiles(added, n=20)[-1]:.0f} ms, "
        f"n {len(added)}, {len(answers) / seconds:.1f} answers/s, {sum(answer.failed for answer in answers)} failed"
    )
    return median(added)


async def rate(port: int, questions: Iterator[str]) -> float:
    """Return how many answers a second come with so many clients."""
    answers, seconds = await load(port, questions, CLIENTS)
    return sum(not answer.failed for answer in answers) / seconds


async def killed(port: int, questions: Iterator[str], pid: int) -> list[float]:
    """Kill a worker while it and another answer; return the seconds that each restarted answer stood still."""
    asking = [asyncio.create_task(gap(port, next(questions))) for _ in range(4)]
    await asyncio.sleep(0.7)
    os.kill(pid, signal.SIGKILL)
    return [cost for cost in await asyncio.gather(*asking) if cost]


async def gap(port: int, question: str) -> float:
    """Return the seconds from the last token before a restart to the first one after it, 0 without one."""
    body = json.dumps({"question": question}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(
        b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    last, restarted, cost = time.perf_counter(), False, 0.0
    async for line in reader:
        if line.startswith(b"event: error"):
            print("  a client saw an error")
        restarted |= line.startswith(b"event: restart")
        if line.startswith(b"event: token"):
            if restarted and not cost:
                cost = time.perf_counter() - last
            last = time.perf_counter()
    writer.close()
    return cost


def named(folder: Path, name: str, settings: dict[str, str]) -> dict[str, str]:
    """Return the environment of a process with a data folder of its own."""
    return environment(folder / name) | settings


@contextmanager
def milvus(folder: Path) -> Iterator[str]:
    """Yield the address of a Milvus that processes share."""
    port, program = free_port(), str(PROGRAM.with_name("milvus-lite"))
    command = [program, "server", "--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with running(command, port, {}):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def door(folder: Path, name: str, settings: dict[str, str]) -> Iterator[int]:
    """Yield the port of an API."""
    port = free_port()
    with running([str(PROGRAM), "serve", "--only", "api", "--port", str(port)], port, named(folder, name, settings)):
        yield port


@contextmanager
def worker(folder: Path, name: str, settings: dict[str, str]) -> Iterator[int]:
    """Yield the process id of an answer worker once it works."""
    log = folder / f"{name}.log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [PROGRAM, "worker", "answer"], env={"PATH": os.defpath, **named(folder, name, settings)}, stderr=stderr
        ) as process,
    ):
        try:
            while '"worker ready"' not in log.read_text(encoding="utf-8"):
                assert process.poll() is None, log.read_text(encoding="utf-8")
                time.sleep(0.1)
            yield process.pid
        finally:
            process.kill()


if __name__ == "__main__":
    main()
