"""Indexing by the server that holds the data folder: the command asks its API, and shows its progress."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from smartstore_indexing.errors import Conflict, InvalidRequest, TransientError
from smartstore_indexing.loading import MAX_BYTES
from smartstore_indexing.summaries import IndexSummary
from smartstore_indexing.wiring import INCOMING
from smartstore_ui.api import answers
from smartstore_ui.api.requests import IndexBody

Show = Callable[[str, int, int], None]
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 60.0  # the server says something every 15 s
TOKEN_BYTES = 8
DATA = b"data: "


class IndexFailed(Conflict):
    """Raised when it was asked for and could not be done; the index in use stays."""

    code = "index_failed"


@contextmanager
def brought(source: Path, data_dir: Path) -> Iterator[Path]:
    """Yield a copy of a file in the data folder: the server takes files of few folders, and there only ours write.

    Raises:
        InvalidRequest: it cannot be read.
    """
    folder = data_dir / INCOMING / secrets.token_hex(TOKEN_BYTES)
    try:
        yield _copied(source, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def asked_of_server(url: str, keys: frozenset[str], wanted: IndexBody, show: Show) -> IndexSummary:
    """Ask the server at `url` to index or to roll back, and return what it did.

    Raises:
        IndexFailed: it refused, or could not.
        TransientError: it does not answer, or ended meanwhile.
    """
    headers = {"Authorization": f"Bearer {next(iter(keys))}"} if keys else {}
    timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False) as client:
            accepted = client.post("/api/index", json=wanted.model_dump())
            if accepted.is_error:
                raise IndexFailed(answers.Error.model_validate_json(accepted.content).error.message)
            job_id = answers.JobAccepted.model_validate_json(accepted.content).job_id
            return _followed(client, job_id, show)
    except (httpx.HTTPError, ValueError) as error:  # ValueError: the answer is none of this server's
        raise TransientError(
            f"데이터 폴더를 쓰고 있는 서버({url})가 응답하지 않습니다. 서버를 확인한 뒤 다시 실행해 주세요."
        ) from error


def ended(job: answers.Job, show: Show) -> IndexSummary | None:
    """Show how far a job is, and return what it did, None when it goes on; IndexFailed when it failed."""
    if job.progress.stage:
        show(job.progress.stage, job.progress.done, job.progress.total)
    if job.error:
        raise IndexFailed(job.error.message)
    return IndexSummary(**job.summary.model_dump()) if job.summary else None


def _copied(source: Path, folder: Path) -> Path:
    try:
        if source.is_file() and source.stat().st_size <= MAX_BYTES:
            folder.mkdir(parents=True)
            return Path(shutil.copyfile(source, folder / source.name)).resolve()
    except OSError as error:
        raise InvalidRequest(f"{source}: 파일을 읽거나 데이터 폴더에 복사할 수 없습니다 ({error.strerror}).") from error
    raise InvalidRequest(f"{source}: 파일이 없거나 너무 큽니다 (최대 {MAX_BYTES // 1024**2}MB). 경로를 확인해 주세요.")


def _followed(client: httpx.Client, job_id: str, show: Show) -> IndexSummary:
    with client.stream("GET", f"/api/index/{job_id}/events") as events:
        events.raise_for_status()
        for line in _lines(events.iter_bytes()):
            if line.startswith(DATA):
                job = answers.Job.model_validate_json(line.removeprefix(DATA))
                if (summary := ended(job, show)) is not None:
                    return summary
    raise TransientError("색인하던 서버가 끝났습니다. 서버를 다시 시작한 뒤 다시 실행해 주세요.")


def _lines(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines of a stream; httpx's own way takes characters of a file's name for line ends, as U+2028."""
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
