"""`smartstore index`: index a file with a progress bar and a closing summary."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from smartstore_indexing.building import IndexSummary
from smartstore_indexing.errors import FolderInUse
from smartstore_indexing.settings import Settings, load_settings
from smartstore_ui.remote_indexing import index_by_server
from smartstore_workflows.app import build

STAGES = {"embed": "임베딩", "write": "저장과 검사"}


def run_index(path: Path | None, *, full: bool, as_json: bool) -> int:
    """Index the file, by default the settings', and print what changed."""
    settings = load_settings()
    source = path or settings.faq
    with _bars() as bars:
        try:
            summary = asyncio.run(_index(settings, source, bars, full=full))
        except FolderInUse as holder:
            if not holder.url:
                raise
            summary = index_by_server(holder.url, settings.server.keys, source, bars.show, full=full)
    line = json.dumps(asdict(summary), ensure_ascii=False) if as_json else _summary(summary)
    sys.stdout.write(f"{line}\n")
    return 0


class Bars:
    """A progress bar for each stage."""

    def __init__(self, progress: Progress) -> None:
        """Take the display."""
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(STAGES[stage], total=total)
        self._progress.update(self._tasks[stage], completed=done)


@contextmanager
def _bars() -> Iterator[Bars]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Where it is no terminal, a finished Progress would still print an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bars(progress)


async def _index(settings: Settings, source: Path, bars: Bars, *, full: bool) -> IndexSummary:
    async with build(settings) as services:
        return await services.builder.build(source, full=full, progress=bars.show)


def _summary(summary: IndexSummary) -> str:
    counts = (
        f"추가 {summary.added:,} · 변경 {summary.changed:,} · 삭제 {summary.removed:,} · 그대로 {summary.unchanged:,}"
    )
    duplicates = f" · 같은 질문이 다시 나와 뺀 행 {summary.duplicates:,}" if summary.duplicates else ""
    state = "새 색인을 사용합니다" if summary.switched else "바뀐 내용이 없어 기존 색인을 그대로 사용합니다"
    return (
        f"FAQ {summary.faqs:,}건: {counts}{duplicates} ({summary.seconds:.1f}초)\n{state}. 색인 버전 {summary.version}"
    )
