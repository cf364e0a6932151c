"""`smartstore index`: index a file with a progress bar and a closing summary, or go back to the index before."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from smartstore_indexing.embedding_settings import EmbeddingSettings
from smartstore_indexing.errors import FolderInUse, InvalidRequest
from smartstore_indexing.index_sources import fetched
from smartstore_indexing.settings import Settings, load_settings
from smartstore_indexing.summaries import IndexSummary
from smartstore_ui.api.index_jobs import Mode
from smartstore_ui.api.requests import IndexBody
from smartstore_ui.remote_indexing import Show, asked_of_server, brought
from smartstore_workflows.app import build

STAGES = {"embed": "임베딩", "write": "저장과 검사"}
PLAN = "plan"
ADDRESS = "://"
LEAST_DOLLARS = 0.0001


def run_index(path: Path | None, *, full: bool, as_json: bool, rollback: bool) -> int:
    """Index the file, by default the settings', or roll back, and print what changed."""
    if rollback and (path or full):
        raise InvalidRequest("--rollback은 이전 색인으로 되돌리기만 합니다. 파일이나 --full 없이 실행해 주세요.")
    settings = load_settings()
    if rollback:
        summary = _rolled_back(settings)
    else:
        with bars(settings.embedding) as show:
            summary = indexed(settings, str(path or settings.faq), show, full=full)
    print_summary(summary, as_json=as_json, rollback=rollback)
    return 0


def indexed(settings: Settings, source: str | None, show: Show, *, full: bool) -> IndexSummary:
    """Index a path, an https address, or with None the settings' file: here, or by the server that holds the folder."""
    try:
        return asyncio.run(_index(settings, source or str(settings.faq), show, full=full))
    except FolderInUse as holder:
        if not holder.url:
            raise
        url, keys = holder.url, settings.server.keys
    mode: Mode = "full" if full else "incremental"
    if source is None or ADDRESS in source:
        return asked_of_server(url, keys, IndexBody(source=source, mode=mode), show)
    with brought(Path(source), settings.data_dir) as copy:
        return asked_of_server(url, keys, IndexBody(source=str(copy), mode=mode), show)


def print_summary(summary: IndexSummary, *, as_json: bool = False, rollback: bool = False) -> None:
    """Print what was done."""
    if as_json:
        line = json.dumps(asdict(summary), ensure_ascii=False)
    elif rollback:
        line = f"이전 색인으로 되돌렸습니다. FAQ {summary.faqs:,}건, 색인 버전 {summary.version}"
    else:
        line = _summary(summary)
    sys.stdout.write(f"{line}\n")


def plan(embedding: EmbeddingSettings, texts: int, tokens: int) -> str:
    """Return what is said before texts of about so many tokens are embedded: calls, tokens, and where known a price."""
    calls = -(-texts // embedding.batch)
    rounded = round(tokens, 2 - len(str(tokens)))  # to two digits: the number is an estimate
    line = f"임베딩할 글 {texts:,}개, 호출 {calls:,}번, 약 {rounded:,}토큰"
    if embedding.price is None:
        return line
    dollars = tokens * embedding.price / 1_000_000
    return f"{line} (예상 비용 {f'${dollars:.4f}' if dollars >= LEAST_DOLLARS else f'${LEAST_DOLLARS} 미만'})"


class Bars:
    """A progress bar for each stage, and above them what embedding will cost."""

    def __init__(self, progress: Progress, embedding: EmbeddingSettings) -> None:
        """Take the display."""
        self._progress = progress
        self._embedding = embedding
        self._planned = False
        self._tasks: dict[str, TaskID] = {}

    def show(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is; those that are over at once have no bar."""
        if stage == PLAN and self._embedding.kind == "openai" and not self._planned:
            self._planned = True
            self._progress.console.print(plan(self._embedding, done, total), soft_wrap=True, highlight=False)
        if stage not in STAGES:
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(STAGES[stage], total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)


@contextmanager
def bars(embedding: EmbeddingSettings) -> Iterator[Show]:
    """Yield what shows progress on a terminal, and says anywhere what embedding will cost."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Where it is no terminal, a finished Progress would still print an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bars(progress, embedding).show


def _rolled_back(settings: Settings) -> IndexSummary:
    try:
        return asyncio.run(_roll_back(settings))
    except FolderInUse as holder:
        if not holder.url:
            raise
        return asked_of_server(holder.url, settings.server.keys, IndexBody(mode="rollback"), lambda *_: None)


async def _roll_back(settings: Settings) -> IndexSummary:
    async with build(settings) as services:
        return await services.builder.rollback()


async def _index(settings: Settings, source: str, show: Show, *, full: bool) -> IndexSummary:
    async with build(settings) as services, _here(source) as path:
        return await services.builder.build(path, full=full, progress=show)


@asynccontextmanager
async def _here(source: str) -> AsyncIterator[Path]:
    if ADDRESS not in source:
        yield Path(source)  # of any folder: who types the command may read it
        return
    async with fetched(source, allowed_folders=()) as path:
        yield path


def _summary(summary: IndexSummary) -> str:
    counts = (
        f"추가 {summary.added:,} · 변경 {summary.changed:,} · 삭제 {summary.removed:,} · 그대로 {summary.unchanged:,}"
    )
    duplicates = f" · 같은 질문이 다시 나와 뺀 행 {summary.duplicates:,}" if summary.duplicates else ""
    state = "새 색인을 사용합니다" if summary.switched else "바뀐 내용이 없어 기존 색인을 그대로 사용합니다"
    return (
        f"FAQ {summary.faqs:,}건: {counts}{duplicates} ({summary.seconds:.1f}초)\n{state}. 색인 버전 {summary.version}"
    )
