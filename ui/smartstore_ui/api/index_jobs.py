"""Requests to index, of this process and all others on the same queues: published, and followed by their events."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Literal

import structlog
from pydantic import ValidationError

from smartstore_indexing import messages
from smartstore_indexing.errors import InvalidRequest, StoreUnavailable, UnknownResource
from smartstore_indexing.messages import IndexFailed, IndexProgress, IndexRequested, IndexSucceeded
from smartstore_indexing.queues import INDEX_FAILED, INDEX_PROGRESS, INDEX_REQUESTED, INDEX_SUCCEEDED, Queues
from smartstore_indexing.summaries import IndexSummary
from smartstore_ui.api import answers
from smartstore_workflows.background import beside
from smartstore_workflows.run_events import new_id

log = structlog.get_logger(__name__)
KEPT = 1_000  # as many as the queue holds
RECONNECT_SECONDS = 1.0
Event = IndexRequested | IndexProgress | IndexSucceeded | IndexFailed
EVENTS: dict[str, type[Event]] = {
    INDEX_REQUESTED: IndexRequested,
    INDEX_PROGRESS: IndexProgress,
    INDEX_SUCCEEDED: IndexSucceeded,
    INDEX_FAILED: IndexFailed,
}
Mode = Literal["incremental", "full"]


class IndexJob:
    """One request to index, and how far it is: `told` is what a client sees of it."""

    def __init__(self, job_id: str) -> None:
        """Begin as one that waits."""
        self.told = answers.Job(job_id=job_id, state="queued", progress=answers.Progress(stage="", done=0, total=0))
        self.changed = asyncio.Event()

    @property
    def job_id(self) -> str:
        """Return the id of the request."""
        return self.told.job_id

    @property
    def ended(self) -> bool:
        """Tell whether the job is over."""
        return self.told.state in ("succeeded", "failed")

    def hear(self, message: Event) -> None:
        """Take an event of this request, and wake whoever follows."""
        match message:
            case IndexProgress():
                progress = answers.Progress(stage=message.stage, done=message.done, total=message.total)
                self._become(state="running", progress=progress, summary=None, error=None)
            case IndexSucceeded():
                summary = answers.Summary(**message.summary.model_dump())
                self._become(state="succeeded", summary=summary, error=None)
            case IndexFailed():
                error = answers.JobError(code=message.code, message=message.message)
                self._become(state="failed", summary=None, error=error)

    def _become(self, **fields: object) -> None:
        self.told = self.told.model_copy(update=fields)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class IndexJobs:
    """The latest index jobs, whichever process took the request and whichever works on it."""

    def __init__(self, queues: Queues) -> None:
        """Borrow the queues."""
        self._queues = queues
        self._jobs: OrderedDict[str, IndexJob] = OrderedDict()
        self._refused: deque[str] = deque(maxlen=KEPT)
        self._tried = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hear the jobs' events within the block; while the broker is away none is heard.

        Raises:
            Misconfigured: the broker refuses us.
        """
        with suppress(StoreUnavailable):
            await self._queues.ping()  # what it says is wrong is said before anybody waits
        async with beside(self._listen()):
            await self._tried.wait()
            yield

    async def add(self, source: str | None, *, mode: Mode, requested_by: str) -> IndexJob:
        """Ask for an index of a source, None for the configured one.

        Raises:
            InvalidRequest: the source is too long, or no text.
            Overloaded: too many requests wait.
            StoreUnavailable: the broker does not answer.
        """
        try:
            wanted = IndexRequested(request_id=new_id(), source=source, mode=mode, requested_by=requested_by)
        except ValidationError as error:
            raise InvalidRequest("색인할 파일의 경로나 주소가 올바르지 않습니다.") from error
        job = self._job(wanted.request_id)
        try:
            await self._queues.publish(INDEX_REQUESTED, messages.written(wanted), message_id=job.job_id)
        except BaseException:
            self._jobs.pop(job.job_id, None)
            self._refused.append(job.job_id)  # its event may come all the same
            raise
        return job

    async def add_done(self, summary: IndexSummary) -> IndexJob:
        """Return a job for what was done already, of which the other processes are told."""
        job = self._job(new_id())
        done = IndexSucceeded(request_id=job.job_id, summary=messages.IndexSummary(**asdict(summary)))
        job.hear(done)
        with suppress(StoreUnavailable):
            await self._queues.publish(INDEX_SUCCEEDED, messages.written(done), message_id=job.job_id)
        return job

    def get(self, job_id: str) -> IndexJob:
        """Return a job; UnknownResource when there is none of that id."""
        job = self._jobs.get(job_id)
        if job is None:
            raise UnknownResource("그런 색인 작업이 없습니다.")
        return job

    async def follow(self, job: IndexJob, heartbeat_seconds: float) -> AsyncGenerator[answers.Job | None, None]:
        """Yield the job whenever it changes, up to its end, and None whenever it did not for a heartbeat."""
        while True:
            changed = job.changed
            yield job.told
            if job.ended:
                return
            while not changed.is_set():
                try:
                    async with asyncio.timeout(heartbeat_seconds):
                        await changed.wait()
                except TimeoutError:
                    yield None

    def _job(self, job_id: str) -> IndexJob:
        """Return the job of that id, made where there is none; the oldest goes where there are too many."""
        job = self._jobs.setdefault(job_id, IndexJob(job_id))
        while len(self._jobs) > KEPT:
            self._jobs.popitem(last=False)
        return job

    async def _listen(self) -> None:
        while True:
            try:
                async with self._queues.subscribe(*EVENTS) as events:
                    self._tried.set()
                    async for routing_key, body in events:
                        self._hear(routing_key, body)
            except StoreUnavailable as error:
                log.warning("index events not heard", code=error.code)
            self._tried.set()
            await asyncio.sleep(RECONNECT_SECONDS)

    def _hear(self, routing_key: str, body: bytes) -> None:
        try:
            message = messages.read(EVENTS[routing_key], body)
        except InvalidRequest:
            return  # its sender is told by the dead letters
        if message.request_id not in self._refused:
            self._job(message.request_id).hear(message)
