"""Time both model classes: the longest that the event loop stands still in fifty streams at once, and a hang-up.

    python tests/benchmarks/models.py

starts the scripted model (first token after 50 ms, 20 ms a token, 30 tokens) and reads it through OpenAI's class and
vLLM's; a hang-up is timed from closing a stream until the server notices. The bounds are issue 7's: 50 ms, 1 s.
"""

import asyncio
import gc
import os
import platform
import sys
import time
from contextlib import aclosing
from pathlib import Path
from statistics import median

from llama_index.core.base.llms.types import ChatMessage

sys.path.append(str(Path(__file__).parent.parent))
from conftest import ModelServer
from modelling import stats
from served import scripted_model

from smartstore_indexing.model_settings import OpenAISettings, VllmSettings
from smartstore_workflows.chat_model import AnswerModel
from smartstore_workflows.openai_chat import openai_model
from smartstore_workflows.vllm_chat import vllm_model

RUNS, STREAMS, TICK_SECONDS = 5, 50, 0.002
ALLOWED_MS, HANG_UP_MS = 50, 1_000


def main() -> None:
    """Measure both and print."""
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    with scripted_model("--ttft-ms", "50", "--token-ms", "20", "--tokens", "30") as server:
        openai = OpenAISettings(model="stub", max_retries=0)
        vllm = VllmSettings(model="stub", url=server.url, max_retries=0)
        for name, model in (
            ("OpenAI", openai_model(openai, key="sk-test", base_url=server.url)),
            ("vLLM", vllm_model(vllm, model="stub")),
        ):
            asyncio.run(measured(name, model, server))


async def measured(name: str, model: AnswerModel, server: ModelServer) -> None:
    """Print the longest stall of each run, and the CPU that a stream takes in this process."""
    await said(model)  # what is imported at the first call is not counted
    gc.collect()
    gc.freeze()  # as `smartstore serve` does when it is ready
    stalls, costs = [], []
    for _ in range(RUNS):
        began = time.process_time()
        stalls.append(await longest_stall(model) * 1000)
        costs.append((time.process_time() - began) * 1000 / STREAMS)
    noticed = [await hang_up(model, server) * 1000 for _ in range(RUNS)]
    await model.close()
    shown = ", ".join(f"{stall:.0f}" for stall in stalls)
    print(f"{name}: longest stall of {STREAMS} streams at once, ms: {shown}; median {median(stalls):.0f}", end="")
    print(f" (<= {ALLOWED_MS}); {median(costs):.1f} ms of CPU a stream")
    shown = ", ".join(f"{seconds:.0f}" for seconds in noticed)
    print(f"{name}: hang-up noticed after, ms: {shown}; median {median(noticed):.0f} (<= {HANG_UP_MS})")


async def longest_stall(model: AnswerModel) -> float:
    """Return the longest that a task which wants to run every 2 ms had to wait, in seconds."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            longest = max(longest, time.perf_counter() - before - TICK_SECONDS)

    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(said(model) for _ in range(STREAMS)))
    ticking.cancel()
    return longest


async def hang_up(model: AnswerModel, server: ModelServer) -> float:
    """Return after how many seconds the server notices that a stream was left in its middle."""
    before = stats(server)["disconnected"]
    async with aclosing(model.stream([ChatMessage(f"[[reply: {'가나다 ' * 2_000}]]")])) as pieces:
        await anext(pieces)
        began = time.perf_counter()
    while stats(server)["disconnected"] == before:  # noqa: ASYNC110  another process notices
        await asyncio.sleep(TICK_SECONDS)
    return time.perf_counter() - began


async def said(model: AnswerModel) -> str:
    """Return what the model says."""
    return "".join([piece async for piece in model.stream([ChatMessage("정산은?")]) if isinstance(piece, str)])


if __name__ == "__main__":
    main()
