"""`smartstore eval`: measure the whole workflow on labelled files; a table, or JSON."""

import asyncio
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from smartstore_indexing.settings import load_settings
from smartstore_workflows import Chatbot
from smartstore_workflows.evaluation import LabelledSet, Metrics, judge, metrics, read_set

TITLES = {"queries": "검색 질문", "multiturn": "이어지는 질문", "scope": "범위 판단", "unanswerable": "답이 없는 질문"}
NAMES = {
    "mrr": "MRR",
    "refused": "잘못 거절",
    "not_found": "찾지 못함",
    "out_refused": "범위 밖을 거절",
    "in_kept": "범위 안을 받음",
}


def run_eval(files: Sequence[Path], *, as_json: bool) -> int:
    """Measure each file and print the figures."""
    sets = [read_set(path) for path in files]
    report = asyncio.run(_measure(sets))
    if as_json:
        sys.stdout.write(json.dumps(report, ensure_ascii=False) + "\n")
    else:
        _print(report)
    return 0


async def _measure(sets: Sequence[LabelledSet]) -> dict[str, object]:
    measured: list[dict[str, object]] = []
    async with Chatbot(load_settings()) as bot:
        snapshot = await bot.services.reader.snapshot()
        console = Console(stderr=True)
        # Where it is no terminal, a finished Progress would still print an empty line.
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
            for labelled in sets:
                bar = partial(bars.update, bars.add_task(escape(labelled.file), total=len(labelled.lines)), advance=1)
                judged = await judge(labelled, bot.outcome, snapshot.catalog, advance=bar)
                figures = metrics(labelled.kind, judged)
                measured.append(
                    {"file": labelled.file, "kind": labelled.kind, "n": len(judged), "metrics": _rounded(figures)}
                )
        index = {"faqs": snapshot.manifest.faqs, "version": snapshot.manifest.version}
    return {"index": index, "sets": measured}


def _rounded(figures: Metrics) -> Metrics:
    return {name: round(figure, 4) for name, figure in figures.items()}


def _print(report: dict[str, object]) -> None:
    console = Console()
    index, sets = report["index"], report["sets"]
    assert isinstance(index, dict)
    assert isinstance(sets, list)
    console.print(f"색인: FAQ {index['faqs']:,}건 (버전 {index['version']})")
    for measured in sets:
        title = f"{escape(measured['file'])} · {TITLES[measured['kind']]} {measured['n']}건"
        table = Table(title=title, title_justify="left")
        for name in measured["metrics"]:
            table.add_column(NAMES.get(name, name), justify="right")
        table.add_row(*(f"{figure:.3f}" for figure in measured["metrics"].values()))
        console.print(table)
