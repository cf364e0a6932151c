"""Real worker processes, a Milvus that processes share, and FAQ files whose every answer names its edition."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import settings_for, wait_until
from milvuses import MilvusProcess

from smartstore_indexing.index_worker import PREFETCH
from smartstore_indexing.milvus import Collections
from smartstore_indexing.opening import opened_queues
from smartstore_indexing.queues import INDEX
from smartstore_indexing.reading import IndexReader, Snapshot
from smartstore_indexing.setting_groups import IndexSettings, MilvusSettings, RabbitMQSettings
from smartstore_indexing.settings import Settings
from smartstore_indexing.wiring import index_worker_of, opened_builder

PROGRAMS = Path(sys.executable).parent
WORKER_SECONDS = 90.0  # a start takes 6 s alone, more beside others
END_SECONDS = 40.0
ROWS = 40
NOUNS = ("정산", "배송", "반품", "쿠폰", "리뷰", "적립금", "톡톡", "원산지")
ASKS = ("언제 되나요?", "어디에서 설정하나요?", "왜 보이지 않나요?", "누가 할 수 있나요?", "어떻게 취소하나요?")


@pytest.fixture(scope="session")
def milvus() -> Iterator[MilvusProcess]:
    """Start a Milvus for all tests; each takes an alias of its own."""
    server = MilvusProcess()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def edition(folder: Path, number: int, rows: int = ROWS) -> Path:
    """Write a FAQ file whose answers all name that edition."""
    asked = [f"{noun} {kind} {ask}" for kind in ("관리는", "내역은", "기준은") for noun in NOUNS for ask in ASKS][:rows]
    lines = (
        {"question": question, "answer": f"{number}판의 답입니다. {question} 메뉴를 봅니다."} for question in asked
    )
    path = folder / f"edition-{number}.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def editions_in(snapshot: Snapshot) -> set[str]:
    """Return the editions that the answers of an index name."""
    return {faq.answer.partition("판")[0] for faq in snapshot.catalog}


@dataclass
class Shared:
    """What processes share in a test: settings that name the tests' servers, and a folder of sources."""

    folder: Path
    settings: Settings

    @property
    def environment(self) -> dict[str, str]:
        """Return the whole environment of a process."""
        settings = self.settings
        return {
            "PATH": os.defpath,
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "SMARTSTORE_DATA_DIR": str(settings.data_dir),
            "SMARTSTORE_FAQ": str(settings.faq),
            "SMARTSTORE_MILVUS__URI": settings.milvus.uri,
            "SMARTSTORE_MILVUS__ALIAS": settings.milvus.alias,
            "SMARTSTORE_RABBITMQ__URL": settings.rabbitmq.url.get_secret_value(),
            "SMARTSTORE_RABBITMQ__PREFIX": settings.rabbitmq.prefix,
            "SMARTSTORE_RABBITMQ__HEARTBEAT_SECONDS": str(settings.rabbitmq.heartbeat_seconds),
            "SMARTSTORE_INDEX__FOLDERS": settings.index.folders,
        }

    @asynccontextmanager
    async def collections(self) -> AsyncIterator[Collections]:
        """Yield the collections behind the test's alias."""
        milvus = self.settings.milvus
        found = await Collections.open(uri=milvus.uri, token="", alias=milvus.alias, timeout_seconds=30)
        try:
            yield found
        finally:
            await found.close()

    def worker(self, name: str) -> "WorkerProcess":
        """Start an index worker."""
        return WorkerProcess(self, name).start()

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command of the program to its end."""
        return subprocess.run(
            [PROGRAMS / "smartstore", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WORKER_SECONDS + END_SECONDS,
            check=False,
        )


def sharing(folder: Path, milvus: MilvusProcess, rabbitmq: RabbitMQSettings) -> Shared:
    """Return what processes share in a folder, behind an alias named as their queues."""
    sources = folder / "sources"
    sources.mkdir()
    settings = settings_for(
        folder / "data",
        faq=edition(sources, 0),
        milvus=MilvusSettings(uri=milvus.uri, alias=rabbitmq.prefix.replace("-", "_")),
        rabbitmq=rabbitmq,
        index=IndexSettings(folders=str(sources)),
    )
    return Shared(sources, settings)


@pytest.fixture
def shared(tmp_path: Path, milvus: MilvusProcess, rabbit_settings: RabbitMQSettings) -> Shared:
    """Return what the processes of one test share."""
    return sharing(tmp_path, milvus, rabbit_settings)


@dataclass
class WorkerProcess:
    """A `smartstore worker index`; its stderr is kept in a file."""

    shared: Shared
    name: str
    _process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> "WorkerProcess":
        """Start it; `ready` waits for it."""
        with self._log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [PROGRAMS / "smartstore", "worker", "index"],
                cwd=self.shared.folder,
                env=self.shared.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        return self

    def ready(self) -> None:
        """Return as soon as it says that it works."""
        wait_until(lambda: "worker ready" in self.said() or not self.alive, WORKER_SECONDS)
        assert self.alive, self.log()

    @property
    def alive(self) -> bool:
        assert self._process is not None
        return self._process.poll() is None

    def kill(self) -> None:
        """End it as a machine that loses its power."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=END_SECONDS)

    def terminate(self) -> int:
        """End it in good order, and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=END_SECONDS)

    def lines(self) -> list[dict[str, Any]]:
        """Return its log lines."""
        whole, _, _ = self.log().rpartition("\n")  # the last one may be half written
        return [json.loads(line) for line in whole.split("\n") if line.startswith("{")]

    def said(self) -> list[str]:
        """Return what its log lines tell of."""
        return [line["event"] for line in self.lines()]

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    @property
    def _log(self) -> Path:
        return self.shared.folder.parent / f"{self.name}.log"


@asynccontextmanager
async def working(shared: Shared) -> AsyncIterator[None]:
    """Work on index requests within the block, in this process."""
    settings, stopping = shared.settings, asyncio.Event()
    async with opened_builder(settings) as builder, opened_queues(settings) as queues:
        worker = index_worker_of(settings, builder=builder, queues=queues)
        consumer = queues.consume(INDEX, worker, prefetch=PREFETCH, stopping=stopping, drain_seconds=20.0)
        task = asyncio.create_task(consumer)
        try:
            yield
        finally:
            stopping.set()
            await task


async def whole(collections: Collections, embedder: str) -> Snapshot:
    """Return the index in use, having counted its nodes."""
    snapshot = await IndexReader(collections=collections, embedder=embedder).snapshot()
    assert await collections.count(snapshot.collection) == 2 * len(snapshot.catalog)
    return snapshot
