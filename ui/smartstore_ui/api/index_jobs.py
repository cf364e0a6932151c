"""Reindexing while the server answers: one job at a time, each with its progress, the last of them kept."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog

from smartstore_indexing.building import IndexBuilder, IndexSummary
from smartstore_indexing.errors import FaqError, Overloaded, UnknownResource
from smartstore_ui.api import answers
from smartstore_workflows.run_events import new_id

log = structlog.get_logger(__name__)
KEPT, MAX_QUEUED = 100, 8
BROKEN = "색인하는 중에 오류가 났습니다. 이전 색인이 그대로 쓰입니다."


@dataclass(slots=True)
class IndexJob:
    """One request to index, and how far it is."""

    job_id: str
    source: Path
    full: bool
    state: answers.State = "queued"
    stage: str = ""
    done: int = 0
    total: int = 0
    summary: IndexSummary | None = None
    error: tuple[str, str] | None = None  # its code and message
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ended(self) -> bool:
        """Tell whether the job is over."""
        return self.state in ("succeeded", "failed")

    def told(self) -> answers.Job:
        """Return what a client sees of the job."""
        return answers.Job(
            job_id=self.job_id,
            state=self.state,
            progress=answers.Progress(stage=self.stage, done=self.done, total=self.total),
            summary=answers.Summary(**asdict(self.summary)) if self.summary else None,
            error=answers.JobError(code=self.error[0], message=self.error[1]) if self.error else None,
        )

    def change(self, **fields: object) -> None:
        """Set fields and wake whoever follows."""
        for name, value in fields.items():
            setattr(self, name, value)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class IndexJobs:
    """The queue of index jobs of this process."""

    def __init__(self, builder: IndexBuilder) -> None:
        """Borrow the builder."""
        self._builder = builder
        self._jobs: OrderedDict[str, IndexJob] = OrderedDict()
        self._queue: asyncio.Queue[IndexJob] = asyncio.Queue(MAX_QUEUED)

    def add(self, source: Path, *, full: bool) -> IndexJob:
        """Queue a job; Overloaded when too many wait."""
        job = IndexJob(new_id(), source, full)
        try:
            self._queue.put_nowait(job)
        except asyncio.QueueFull as error:
            raise Overloaded("기다리는 색인 작업이 많습니다. 잠시 후 다시 요청해 주세요.", retry_after=30) from error
        self._jobs[job.job_id] = job
        while len(self._jobs) > KEPT:
            self._jobs.popitem(last=False)
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
            yield job.told()
            if job.ended:
                return
            while not changed.is_set():
                try:
                    async with asyncio.timeout(heartbeat_seconds):
                        await changed.wait()
                except TimeoutError:
                    yield None

    async def work(self) -> None:
        """Do the jobs, one after the other, for ever."""
        while True:
            await self._do(await self._queue.get())

    async def _do(self, job: IndexJob) -> None:
        def progress(stage: str, done: int, total: int) -> None:
            job.change(stage=stage, done=done, total=total)

        job.change(state="running")
        try:
            summary = await self._builder.build(job.source, full=job.full, progress=progress)
        except FaqError as error:
            job.change(state="failed", error=(error.code, error.message))
        except Exception:  # the edge of a job: the server stays up and the index in use stays
            log.exception("index job failed")
            job.change(state="failed", error=("internal", BROKEN))
        else:
            log.info("indexed", faqs=summary.faqs, version=summary.version, seconds=round(summary.seconds, 1))
            job.change(state="succeeded", summary=summary)
