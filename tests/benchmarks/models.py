"""Time fifty streams at once of both model classes, and the longest that the event loop stands still meanwhile.

    python tests/benchmarks/models.py

starts the scripted model (first token after 50 ms, 20 ms a token, 30 tokens) and reads it through OpenAI's class and
vLLM's. The bound is issue 7's: 50 ms.
"""

import asyncio
import os
import platform
import sys
import time
from pathlib import Path
from statistics import median

from llama_index.core.base.llms.types import ChatMessage

sys.path.append(str(Path(__file__).parent.parent))
from served import scripted_model

from smartstore_indexing.model_settings import OpenAISettings, VllmSettings
from smartstore_workflows.chat_model import AnswerModel
from smartstore_workflows.openai_chat import openai_model
from smartstore_workflows.vllm_chat import vllm_model

RUNS, STREAMS, TICK_SECONDS = 5, 50, 0.002
ALLOWED_MS = 50


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
            asyncio.run(measured(name, model))


async def measured(name: str, model: AnswerModel) -> None:
    """Print the longest stall of each run, and the CPU that a stream takes in this process."""
    await said(model)  # what is imported at the first call is not counted
    stalls, costs = [], []
    for _ in range(RUNS):
        began = time.process_time()
        stalls.append(await longest_stall(model) * 1000)
        costs.append((time.process_time() - began) * 1000 / STREAMS)
    await model.close()
    shown = ", ".join(f"{stall:.0f}" for stall in stalls)
    print(f"{name}: longest stall of {STREAMS} streams at once, ms: {shown}; median {median(stalls):.0f}", end="")
    print(f" (<= {ALLOWED_MS}); {median(costs):.1f} ms of CPU a stream")


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


async def said(model: AnswerModel) -> str:
    """Return what the model says."""
    return "".join([piece async for piece in model.stream([ChatMessage("정산은?")]) if isinstance(piece, str)])


if __name__ == "__main__":
    main()
