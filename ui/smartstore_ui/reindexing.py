"""`smartstore reindex`: ask the workers for an index, and follow how it goes."""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path

from smartstore_indexing.opening import has_broker, opened_queues
from smartstore_indexing.settings import Settings, load_settings
from smartstore_indexing.summaries import IndexSummary
from smartstore_ui.api.index_jobs import IndexJob, IndexJobs
from smartstore_ui.indexing import ADDRESS, bars, indexed, print_summary
from smartstore_ui.remote_indexing import Show, ended

SILENCE_SECONDS = 10.0
REQUESTED = "색인을 요청했습니다. 작업 ID {job_id} (이 명령을 끝내도 요청은 남습니다)\n"
NOBODY = "아직 요청을 받은 워커가 없습니다. `smartstore worker index`가 실행 중인지 확인해 주세요.\n"


def run_reindex(source: str | None, *, full: bool, watch: bool) -> int:
    """Publish the request, and with `watch` print what was done; without a broker index at once.

    Raises:
        IndexFailed: the request that is watched was given up.
    """
    settings = load_settings()
    with bars(settings.embedding) as show:
        if has_broker(settings):
            done = asyncio.run(_requested(settings, source, show if watch else None, full=full))
        else:
            done = indexed(settings, source, show, full=full)
    if done is not None:
        print_summary(done)
    return 0


async def _requested(settings: Settings, source: str | None, show: Show | None, *, full: bool) -> IndexSummary | None:
    """Publish the request; return how it ended where that is to be shown, None where it is not."""
    async with opened_queues(settings) as queues:
        jobs = IndexJobs(queues)
        async with jobs.open():
            job = await jobs.add(_absolute(source), mode="full" if full else "incremental", requested_by="cli")
            sys.stderr.write(REQUESTED.format(job_id=job.job_id))
            return None if show is None else await _followed(jobs, job, show)


async def _followed(jobs: IndexJobs, job: IndexJob, show: Show) -> IndexSummary | None:
    asked_for_workers = False
    async with aclosing(jobs.follow(job, SILENCE_SECONDS)) as changes:
        async for told in changes:
            if told is not None and (summary := ended(told, show)) is not None:
                return summary
            if told is None and job.told.state == "queued" and not asked_for_workers:
                asked_for_workers = True
                sys.stderr.write(NOBODY)
    return None


def _absolute(source: str | None) -> str | None:
    """Return a path as it is for who works elsewhere."""
    return source if source is None or ADDRESS in source else str(Path(source).resolve())
