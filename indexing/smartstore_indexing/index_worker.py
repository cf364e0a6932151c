"""The handler of the index queue: builds what is asked for, one at a time, and tells how it goes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog

from smartstore_indexing import messages
from smartstore_indexing.building import IndexBuilder, Progress
from smartstore_indexing.errors import Conflict, FaqError, InvalidRequest, PermanentError, StoreUnavailable
from smartstore_indexing.messages import IndexFailed, IndexProgress, IndexRequested, IndexSucceeded, read
from smartstore_indexing.queues import INDEX_FAILED, INDEX_PROGRESS, INDEX_SUCCEEDED, Delivery, Queues
from smartstore_indexing.summaries import IndexSummary

log = structlog.get_logger(__name__)
PREFETCH = 64  # requests that one build may answer
PROGRESS_SECONDS = 0.3
MAX_MESSAGE = 1_000
BROKEN = "색인하는 중에 오류가 났습니다. 이전 색인이 그대로 쓰입니다."
HOPELESS = (InvalidRequest, Conflict, PermanentError)
Fetch = Callable[[str | None], AbstractAsyncContextManager[Path]]


@dataclass(slots=True)
class _Round:
    """Requests of one source that one build answers, and how it ended."""

    requests: list[IndexRequested] = field(default_factory=list)
    ended: IndexSummary | Exception | None = None


class IndexWorker:
    """Handles index requests.

    A request that waits while a build goes on is answered, with all others of its source, by the next one. One that
    comes again when its index is in use already is answered at once.
    """

    def __init__(self, *, builder: IndexBuilder, queues: Queues, fetch: Fetch, attempts: int) -> None:
        """Borrow the parts; `fetch` brings a source here, a message is tried `attempts` times."""
        self._builder = builder
        self._queues = queues
        self._fetch = fetch
        self._attempts = attempts
        self._building = asyncio.Lock()
        self._rounds: dict[str | None, _Round] = {}

    async def __call__(self, delivery: Delivery) -> None:
        """Meet a request; what is raised tells the queue what becomes of its message, as `queues.handled` reads it."""
        request = read(IndexRequested, delivery.body)
        try:
            summary = await self._met(request)
        except Exception as error:
            await self._tell_failure(request, error, delivery.attempt)
            if isinstance(error, Conflict):  # a new index that failed its check: another try makes the same one
                raise PermanentError(error.message) from error
            raise
        told = messages.IndexSummary(**asdict(summary))
        await self._publish(INDEX_SUCCEEDED, IndexSucceeded(request_id=request.request_id, summary=told))

    async def _met(self, request: IndexRequested) -> IndexSummary:
        async with self._building:
            met = await self._builder.met(request.request_id)
        if met is not None:
            return met
        mine = self._rounds.setdefault(request.source, _Round())
        mine.requests.append(request)
        async with self._building:
            if mine.ended is None:
                if self._rounds.get(request.source) is mine:
                    del self._rounds[request.source]  # who comes from now on waits for the next build
                mine.ended = await self._ended(mine)
        if isinstance(mine.ended, Exception):
            raise mine.ended
        return mine.ended

    async def _ended(self, mine: _Round) -> IndexSummary | Exception:
        """Build for all requests of a round; return what was done, or what went wrong."""
        try:
            async with self._telling(mine) as progress, self._fetch(mine.requests[0].source) as path:
                summary = await self._builder.build(
                    path,
                    full=any(request.mode == "full" for request in mine.requests),
                    progress=progress,
                    requests=[request.request_id for request in mine.requests],
                )
        except Exception as error:  # noqa: BLE001  each of the messages raises it
            return error
        log.info(
            "indexed",
            faqs=summary.faqs,
            version=summary.version,
            requests=len(mine.requests),
            seconds=round(summary.seconds, 1),
        )
        return summary

    @asynccontextmanager
    async def _telling(self, mine: _Round) -> AsyncIterator[Progress]:
        """Yield what takes a build's progress; the latest of each stage is told, a few times a second, in the block."""
        latest, changed = {"read": (0, 0)}, asyncio.Event()
        changed.set()

        def progress(stage: str, done: int, total: int) -> None:
            latest[stage] = (done, total)
            changed.set()

        async def tell() -> None:
            while True:
                await changed.wait()
                stage = next(iter(latest))
                done, total = latest.pop(stage)
                if not latest:
                    changed.clear()
                for request in mine.requests:
                    await self._tell_progress(request, stage, done, total)
                await asyncio.sleep(PROGRESS_SECONDS)

        telling = asyncio.create_task(tell())
        try:
            yield progress
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell_progress(self, request: IndexRequested, stage: str, done: int, total: int) -> None:
        message = IndexProgress(request_id=request.request_id, stage=stage, done=done, total=total)
        with suppress(StoreUnavailable):  # the work goes on unseen
            await self._publish(INDEX_PROGRESS, message)

    async def _tell_failure(self, request: IndexRequested, error: Exception, attempt: int) -> None:
        """Say that the request was given up, or that it will be tried again."""
        code = error.code if isinstance(error, FaqError) else "internal"
        log.warning("index request failed", code=code, attempt=attempt)
        if attempt < self._attempts and not isinstance(error, HOPELESS):
            await self._tell_progress(request, "retry", attempt, self._attempts)
            return
        message = error.message if isinstance(error, FaqError) else BROKEN
        failed = IndexFailed(request_id=request.request_id, code=code, message=message[:MAX_MESSAGE])
        await self._publish(INDEX_FAILED, failed)

    async def _publish(self, routing_key: str, message: IndexProgress | IndexSucceeded | IndexFailed) -> None:
        await self._queues.publish(routing_key, messages.written(message), message_id=message.request_id)
