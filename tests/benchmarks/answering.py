"""Time warm questions through the whole workflow, extractive, stage by stage, and how many are answered in a second.

    python tests/benchmarks/answering.py [FAQ FILE]

indexes the file (by default the sample) into a data folder of its own under the system's temporary folder, where the
next run finds it again, and asks every question once: titles of the FAQ, so that none is answered from a cache.
"""

import asyncio
import logging
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median, quantiles

from smartstore_indexing.faq import digest
from smartstore_indexing.settings import load_settings
from smartstore_workflows import Chatbot
from smartstore_workflows.app import build

RUNS, QUESTIONS, AT_ONCE = 3, 60, 50
TARGET_MS = 80.0


async def main(path: Path | None) -> None:
    """Index, warm up, measure and print."""
    settings = load_settings()
    source = (path or settings.faq).resolve()
    folder = Path(tempfile.gettempdir()) / f"smartstore-bench-{digest(str(source))}"
    settings = load_settings(data_dir=folder, model="extractive")
    async with build(settings) as services:
        summary = await services.builder.build(source)
    async with Chatbot(settings) as bot:
        await bot.warm_up()
        titles = [f"{faq.question} 알려 주세요" for faq in await bot.services.retriever.catalog()]
        questions = titles * (1 + (RUNS * QUESTIONS + AT_ONCE) // len(titles))
        questions = [f"{question} ({place})" for place, question in enumerate(questions[:: max(1, len(titles) // 400)])]
        for question in questions[-5:]:
            await bot.ask(question)
        print(
            f"FAQ {summary.faqs:,}건, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        )
        medians = []
        for run in range(RUNS):
            seconds, stages = await one_by_one(bot, questions[run * QUESTIONS : (run + 1) * QUESTIONS])
            medians.append(median(seconds) * 1000)
            print(
                f"run {run + 1}, n {len(seconds)}: p50 {median(seconds) * 1000:.1f} ms, "
                f"p95 {quantiles(seconds, n=20)[-1] * 1000:.1f} ms; stages p50 "
                + ", ".join(f"{name} {median(found):.1f}" for name, found in stages.items())
            )
        print(f"one question, median of {RUNS} runs: p50 {median(medians):.1f} ms (asked for: {TARGET_MS:.0f} ms)")
        asked = questions[RUNS * QUESTIONS : RUNS * QUESTIONS + AT_ONCE]
        started = time.perf_counter()
        await asyncio.gather(*(bot.ask(f"{question} 부탁드립니다") for question in asked))
        print(f"{len(asked)} at once: {len(asked) / (time.perf_counter() - started):.1f} questions/s")


async def one_by_one(bot: Chatbot, questions: list[str]) -> tuple[list[float], dict[str, list[float]]]:
    """Return the seconds of each question and the milliseconds of each stage."""
    seconds: list[float] = []
    stages: dict[str, list[float]] = defaultdict(list)
    for question in questions:
        started = time.perf_counter()
        reply = await bot.ask(question)
        seconds.append(time.perf_counter() - started)
        for name, milliseconds in reply.timings_ms.items():
            stages[name].append(milliseconds)
    return seconds, stages


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
