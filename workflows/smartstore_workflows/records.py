"""What finished runs were, and what people thought of them: in a local SQLite file here, in Redis in redis_records.py.

A record goes some days after its run, one that was rated some more days after its rating.
"""

import sqlite3
import time
from typing import Literal, Protocol, Self

import structlog
from pydantic import ValidationError

from smartstore_workflows.events import Kind, Value
from smartstore_workflows.memory import DAY_SECONDS
from smartstore_workflows.sqlite import SqliteFile

log = structlog.get_logger(__name__)
Score = Literal[1, -1]
SESSION = "CASE WHEN json_valid(run) THEN json_extract(run, '$.session_id') END"
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS runs (
        run_id TEXT PRIMARY KEY,
        created_at REAL NOT NULL,
        run TEXT NOT NULL,
        rated_at REAL,
        rating TEXT
    )""",
    "CREATE INDEX IF NOT EXISTS runs_unrated ON runs (created_at) WHERE rated_at IS NULL",
    "CREATE INDEX IF NOT EXISTS runs_rated ON runs (rated_at) WHERE rated_at IS NOT NULL",
    f"CREATE INDEX IF NOT EXISTS runs_of_session ON runs ({SESSION})",
)

LIVES = "(rated_at >= ? OR (rated_at IS NULL AND created_at >= ?))"
OF_SESSION = f"{SESSION} = ?"


class Rating(Value):
    """A thumb up (1) or down (-1), what was said with it, personal data masked, and when, in unix seconds."""

    score: Score
    comment: str | None = None
    rated_at: float


class RunRecord(Value):
    """One finished run, personal data masked; `created_at` is in unix seconds, `citations` are FAQ ids.

    `unsupported` is what a model claimed in its answer and no FAQ says that it cites.
    """

    run_id: str
    session_id: str
    question: str
    standalone: str
    kind: Kind
    text: str
    citations: tuple[str, ...] = ()
    model: str
    cached: bool
    degraded: bool
    unsupported: tuple[str, ...] = ()
    created_at: float
    rating: Rating | None = None


class RunRecords(Protocol):
    """The records of runs. Every method raises StoreUnavailable when the store cannot be used."""

    async def add(self, record: RunRecord) -> None:
        """Keep a run; one of the same id is replaced, and its rating stays."""

    async def get(self, run_id: str) -> RunRecord | None:
        """Return a run with its rating; None for one that is unknown, too old, or broken."""

    async def rate(self, run_id: str, score: Score, comment: str | None) -> bool:
        """Give a run its rating in place of an earlier one, and a longer life; return False when it is unknown."""

    async def unrate(self, run_id: str) -> bool:
        """Take a run's rating away, so that it goes with its age again; return False when the run is unknown."""

    async def rated(self, *, limit: int) -> list[RunRecord]:
        """Return at most `limit` rated runs, the last rated first."""

    async def of_session(self, session_id: str) -> list[RunRecord]:
        """Return all runs of a session."""

    async def forget(self, session_id: str) -> None:
        """Delete the runs of a session, their ratings among them."""


class SqliteRunRecords:
    """Records in a local file."""

    def __init__(self, file: SqliteFile, *, days: float, feedback_days: float) -> None:
        """Use an open file; `open` makes its table first."""
        self._file = file
        self._life = days * DAY_SECONDS
        self._rated_life = feedback_days * DAY_SECONDS

    @classmethod
    async def open(cls, file: SqliteFile, *, days: float, feedback_days: float) -> Self:
        """Make the table where there is none; StoreUnavailable when the file cannot be used."""

        def prepare(connection: sqlite3.Connection) -> None:
            for statement in SCHEMA:
                connection.execute(statement)

        await file.write(prepare)
        return cls(file, days=days, feedback_days=feedback_days)

    async def add(self, record: RunRecord) -> None:
        """Keep a run, and drop those that are too old."""
        values = (record.run_id, record.created_at, run_json(record))

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(f"DELETE FROM runs WHERE NOT {LIVES}", self._oldest())  # noqa: S608  no value
            connection.execute(
                "INSERT INTO runs (run_id, created_at, run) VALUES (?, ?, ?) "
                "ON CONFLICT (run_id) DO UPDATE SET created_at = excluded.created_at, run = excluded.run",
                values,
            )

        await self._file.write(insert)

    async def get(self, run_id: str) -> RunRecord | None:
        """Return a run with its rating; None for one that is unknown, too old, or broken."""
        select = f"SELECT run, rating FROM runs WHERE run_id = ? AND {LIVES}"  # noqa: S608  no value
        values = (run_id, *self._oldest())
        row = await self._file.read(lambda connection: connection.execute(select, values).fetchone())
        return record_of(*row) if row else None

    async def rate(self, run_id: str, score: Score, comment: str | None) -> bool:
        """Give a run its rating in place of an earlier one, and a longer life; return False when it is unknown."""
        rating = Rating(score=score, comment=comment, rated_at=time.time())
        update = f"UPDATE runs SET rated_at = ?, rating = ? WHERE run_id = ? AND {LIVES}"  # noqa: S608  no value
        values = (rating.rated_at, rating.model_dump_json(), run_id, *self._oldest())
        return await self._file.write(lambda connection: connection.execute(update, values).rowcount > 0)

    async def unrate(self, run_id: str) -> bool:
        """Take a run's rating away, so that it goes with its age again; return False when the run is unknown."""
        update = "UPDATE runs SET rated_at = NULL, rating = NULL WHERE run_id = ?"
        return await self._file.write(lambda connection: connection.execute(update, (run_id,)).rowcount > 0)

    async def rated(self, *, limit: int) -> list[RunRecord]:
        """Return at most `limit` rated runs, the last rated first."""
        select = (
            f"SELECT run, rating FROM runs WHERE rated_at IS NOT NULL AND {LIVES} "  # noqa: S608  no value
            "ORDER BY rated_at DESC LIMIT ?"
        )
        values = (*self._oldest(), max(limit, 0))
        rows = await self._file.read(lambda connection: connection.execute(select, values).fetchall())
        return [record for record in (record_of(*row) for row in rows) if record is not None]

    async def of_session(self, session_id: str) -> list[RunRecord]:
        """Return all runs of a session."""
        select = f"SELECT run, rating FROM runs WHERE {OF_SESSION}"  # noqa: S608  no value
        rows = await self._file.read(lambda connection: connection.execute(select, (session_id,)).fetchall())
        return [record for record in (record_of(*row) for row in rows) if record is not None]

    async def forget(self, session_id: str) -> None:
        """Delete the runs of a session, their ratings among them."""
        delete = f"DELETE FROM runs WHERE {OF_SESSION}"  # noqa: S608  no value
        await self._file.write(lambda connection: connection.execute(delete, (session_id,)))

    def _oldest(self) -> tuple[float, float]:
        now = time.time()
        return now - self._rated_life, now - self._life


def run_json(record: RunRecord) -> str:
    """Return what is stored of a run beside its rating."""
    return record.model_dump_json(exclude={"rating"})


def record_of(run: str | bytes, rating: str | bytes | None) -> RunRecord | None:
    """Return the record of what is stored, None when it cannot be read."""
    try:
        record = RunRecord.model_validate_json(run)
        return record.model_copy(update={"rating": Rating.model_validate_json(rating)}) if rating else record
    except ValidationError:
        log.warning("stored run not readable")
        return None
