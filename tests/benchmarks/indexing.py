"""Time indexing from nothing, again with nothing changed, and after one FAQ changed.

    python tests/benchmarks/indexing.py [FAQ FILE]

works in a temporary folder that it removes. One run: from nothing it takes minutes for thousands of FAQs.
"""

import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from smartstore_indexing.loading import load
from smartstore_indexing.settings import load_settings
from smartstore_indexing.summaries import IndexSummary
from smartstore_workflows.app import build


async def index(folder: Path, source: Path) -> tuple[IndexSummary, float]:
    """Return the summary of one indexing run and its wall time in seconds, opening and closing included."""
    started = time.perf_counter()
    async with build(load_settings(data_dir=folder)) as services:
        summary = await services.builder.build(source)
    return summary, time.perf_counter() - started


def with_one_change(source: Path, target: Path) -> None:
    """Write the FAQ as .jsonl with one more sentence in one answer."""
    rows = [asdict(row) for row in load(source)]
    rows[len(rows) // 2]["answer"] = "안내가 바뀌었습니다. " + rows[len(rows) // 2]["answer"]
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main(path: Path | None) -> None:
    """Measure and print."""
    source = path or load_settings().faq
    with tempfile.TemporaryDirectory() as name:
        folder, changed = Path(name) / "data", Path(name) / "changed.jsonl"
        with_one_change(source, changed)
        print(f"{source.name}, {os.cpu_count()} cores")
        for what, file in (("from nothing", source), ("nothing changed", source), ("one FAQ changed", changed)):
            summary, seconds = asyncio.run(index(folder, file))
            print(
                f"{what}: {summary.seconds:.1f} s by the summary's clock, {seconds:.1f} s in all (imports excluded); "
                f"added {summary.added}, changed {summary.changed}, removed {summary.removed}, "
                f"unchanged {summary.unchanged}, embedded {summary.embedded} of {summary.faqs}"
            )


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
