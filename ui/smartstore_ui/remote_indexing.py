"""Indexing by the server that holds the data folder: the command asks its API, and shows its progress."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from smartstore_indexing.building import IndexSummary
from smartstore_indexing.errors import Conflict, TransientError
from smartstore_ui.api import answers

Show = Callable[[str, int, int], None]
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 60.0  # the server says something every 15 s
DATA = b"data: "


class IndexFailed(Conflict):
    """Raised when the server could not index; the index in use stays."""

    code = "index_failed"


def index_by_server(url: str, keys: frozenset[str], source: Path, show: Show, *, full: bool) -> IndexSummary:
    """Ask the server at `url` to index a file, and return what it did.

    Raises:
        IndexFailed: it refused, or could not.
        TransientError: it does not answer, or ended meanwhile.
    """
    headers = {"Authorization": f"Bearer {next(iter(keys))}"} if keys else {}
    timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
    wanted = {"source": str(source.resolve()), "mode": "full" if full else "incremental"}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False) as client:
            accepted = client.post("/api/index", json=wanted)
            if accepted.is_error:
                raise IndexFailed(answers.Error.model_validate_json(accepted.content).error.message)
            job_id = answers.JobAccepted.model_validate_json(accepted.content).job_id
            return _followed(client, job_id, show)
    except (httpx.HTTPError, ValueError) as error:  # ValueError: the answer is none of this server's
        raise TransientError(
            f"데이터 폴더를 쓰고 있는 서버({url})가 응답하지 않습니다. 서버를 확인한 뒤 다시 실행해 주세요."
        ) from error


def _followed(client: httpx.Client, job_id: str, show: Show) -> IndexSummary:
    with client.stream("GET", f"/api/index/{job_id}/events") as events:
        events.raise_for_status()
        for line in _lines(events.iter_bytes()):
            if not line.startswith(DATA):
                continue
            job = answers.Job.model_validate_json(line.removeprefix(DATA))
            if job.progress.stage:
                show(job.progress.stage, job.progress.done, job.progress.total)
            if job.error:
                raise IndexFailed(job.error.message)
            if job.summary:
                return IndexSummary(**job.summary.model_dump())
    raise TransientError("색인하던 서버가 끝났습니다. 서버를 다시 시작한 뒤 다시 실행해 주세요.")


def _lines(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines of a stream; httpx's own way takes characters of a file's name for line ends, as U+2028."""
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
