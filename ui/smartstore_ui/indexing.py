"""`smartstore index`: index a file with a progress bar and a closing summary."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from smartstore_indexing.building import IndexSummary
from smartstore_indexing.settings import Settings, load_settings
from smartstore_workflows.app import build

STAGES = {"embed": "임베딩", "write": "저장과 검사"}


def run_index(path: Path | None, *, full: bool, as_json: bool) -> int:
    """Index the file, by default the settings', and print what changed."""
    settings = load_settings()
    summary = asyncio.run(_index(settings, path or settings.faq, full=full))
    line = json.dumps(asdict(summary), ensure_ascii=False) if as_json else _summary(summary)
    sys.stdout.write(f"{line}\n")
    return 0


async def _index(settings: Settings, path: Path, *, full: bool) -> IndexSummary:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Where it is no terminal, a finished Progress would still print an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(STAGES[stage], total=total)
            bars.update(tasks[stage], completed=done)

        async with build(settings) as services:
            return await services.builder.build(path, full=full, progress=show)


def _summary(summary: IndexSummary) -> str:
    counts = (
        f"추가 {summary.added:,} · 변경 {summary.changed:,} · 삭제 {summary.removed:,} · 그대로 {summary.unchanged:,}"
    )
    duplicates = f" · 같은 질문이 다시 나와 뺀 행 {summary.duplicates:,}" if summary.duplicates else ""
    state = "새 색인을 사용합니다" if summary.switched else "바뀐 내용이 없어 기존 색인을 그대로 사용합니다"
    return (
        f"FAQ {summary.faqs:,}건: {counts}{duplicates} ({summary.seconds:.1f}초)\n{state}. 색인 버전 {summary.version}"
    )
