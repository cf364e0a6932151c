"""Conversations: what is remembered of each, in a local SQLite file here, in Redis in redis_memory.py.

They survive a restart, live some days past their last use, and are bounded.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import structlog
from pydantic import ValidationError

from smartstore_workflows.events import Turn
from smartstore_workflows.sqlite import SqliteFile
from smartstore_workflows.tokens import estimated_tokens

log = structlog.get_logger(__name__)
DAY_SECONDS = 86_400.0
TURN_TOKENS = 8  # around a turn's two messages; OpenAI's cookbook counts 3 or 4 a message
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS turns (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        session_id TEXT NOT NULL,
        used_at REAL NOT NULL,
        turn TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS turns_of_session ON turns (session_id, number)",
    "DROP INDEX IF EXISTS turns_by_use",  # version 0.1 had no table of sessions, and this index instead
    "CREATE TABLE IF NOT EXISTS sessions (session_id TEXT PRIMARY KEY, used_at REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS sessions_by_use ON sessions (used_at)",
)


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """One conversation: how many turns of it are kept, and when it was last used, in unix seconds."""

    session_id: str
    turns: int
    used_at: float


class Conversations(Protocol):
    """The turns of each session. Every method raises StoreUnavailable when the store cannot be used."""

    async def begin(self, session_id: str) -> None:
        """Make the session known from now on, and renew its life."""

    async def known(self, session_id: str) -> bool:
        """Tell whether the session was begun or added to, and neither forgotten nor unused for its days."""

    async def turns(self, session_id: str) -> list[Turn]:
        """Return the last turns of a session, oldest first, at most so many turns and tokens but always the newest.

        None for a session that is unknown; a turn that is broken is left out. Reading does not renew the life.
        """

    async def append(self, session_id: str, turn: Turn) -> None:
        """Add a turn, renew the session's life, and drop its oldest turns beyond the bound: all of it or nothing."""

    async def forget(self, session_id: str) -> bool:
        """Delete a session; return whether there was one."""

    async def sessions(self, *, limit: int, before: float | None = None) -> list[SessionSummary]:
        """Return at most `limit` sessions, the last used first; with `before`, those last used before that time."""


class SqliteConversations:
    """Conversations in a local file."""

    def __init__(self, file: SqliteFile, *, max_turns: int, max_tokens: int, days: float) -> None:
        """Use an open file; `open` makes its tables first."""
        self._file = file
        self._max_turns = max_turns
        self._max_tokens = max_tokens
        self._life = days * DAY_SECONDS

    @classmethod
    async def open(cls, file: SqliteFile, *, max_turns: int, max_tokens: int, days: float) -> Self:
        """Make the tables where there are none, and drop the conversations that were not used for `days`.

        Raises:
            StoreUnavailable: the file cannot be used, or is another program's.
        """
        store = cls(file, max_turns=max_turns, max_tokens=max_tokens, days=days)
        await file.write(store._prepare)
        return store

    async def begin(self, session_id: str) -> None:
        """Make the session known from now on, and renew its life."""
        await self._file.write(lambda connection: self._renew(connection, session_id))

    async def known(self, session_id: str) -> bool:
        """Tell whether the session was begun or added to, and neither forgotten nor unused for its days."""
        select = "SELECT 1 FROM sessions WHERE session_id = ? AND used_at >= ?"
        values = (session_id, self._oldest())
        return await self._file.read(lambda connection: connection.execute(select, values).fetchone()) is not None

    async def turns(self, session_id: str) -> list[Turn]:
        """Return the last turns of a session, oldest first; none for one that is unknown."""
        select = (
            "SELECT turn FROM turns JOIN sessions USING (session_id) WHERE session_id = ? AND sessions.used_at >= ? "
            "ORDER BY number DESC LIMIT ?"
        )
        values = (session_id, self._oldest(), self._max_turns)
        rows = await self._file.read(lambda connection: connection.execute(select, values).fetchall())
        stored = [_turn(text) for (text,) in reversed(rows)]
        return trimmed([turn for turn in stored if turn is not None], self._max_tokens)

    async def append(self, session_id: str, turn: Turn) -> None:
        """Add a turn, renew the session's life, and drop its oldest turns beyond the bound: all of it or nothing."""
        text = turn.model_dump_json()

        def add(connection: sqlite3.Connection) -> None:
            self._renew(connection, session_id)
            connection.execute(
                "INSERT INTO turns (session_id, used_at, turn) VALUES (?, ?, ?)", (session_id, time.time(), text)
            )
            connection.execute(
                "DELETE FROM turns WHERE session_id = ? AND number NOT IN "
                "(SELECT number FROM turns WHERE session_id = ? ORDER BY number DESC LIMIT ?)",
                (session_id, session_id, self._max_turns),
            )

        await self._file.write(add)

    async def forget(self, session_id: str) -> bool:
        """Delete a session; return whether there was one."""

        def delete(connection: sqlite3.Connection) -> bool:
            self._drop_old(connection)
            connection.execute("DELETE FROM turns WHERE session_id = ?", (session_id,))
            return connection.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,)).rowcount > 0

        return await self._file.write(delete)

    async def sessions(self, *, limit: int, before: float | None = None) -> list[SessionSummary]:
        """Return at most `limit` sessions, the last used first; with `before`, those last used before that time."""
        select = (
            "SELECT session_id, (SELECT count(*) FROM turns WHERE turns.session_id = sessions.session_id), used_at "
            "FROM sessions WHERE used_at >= ? AND used_at < ? ORDER BY used_at DESC LIMIT ?"
        )
        values = (self._oldest(), float("inf") if before is None else before, max(limit, 0))
        rows = await self._file.read(lambda connection: connection.execute(select, values).fetchall())
        return [SessionSummary(*row) for row in rows]

    def _prepare(self, connection: sqlite3.Connection) -> None:
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute(  # what version 0.1 wrote
            "INSERT INTO sessions SELECT session_id, max(used_at) FROM turns "
            "WHERE session_id NOT IN (SELECT session_id FROM sessions) GROUP BY session_id"
        )
        self._drop_old(connection)

    def _renew(self, connection: sqlite3.Connection, session_id: str) -> None:
        self._drop_old(connection)
        connection.execute("REPLACE INTO sessions (session_id, used_at) VALUES (?, ?)", (session_id, time.time()))

    def _drop_old(self, connection: sqlite3.Connection) -> None:
        old = (self._oldest(),)
        connection.execute(
            "DELETE FROM turns WHERE session_id IN (SELECT session_id FROM sessions WHERE used_at < ?)", old
        )
        connection.execute("DELETE FROM sessions WHERE used_at < ?", old)

    def _oldest(self) -> float:
        return time.time() - self._life


def trimmed(turns: Sequence[Turn], max_tokens: int) -> list[Turn]:
    """Return the newest turns whose questions and answers together take at most so many tokens, but at least one."""
    kept: list[Turn] = []
    for turn in reversed(turns):
        max_tokens -= estimated_tokens(turn.question) + estimated_tokens(turn.answer) + TURN_TOKENS
        if kept and max_tokens < 0:
            break
        kept.append(turn)
    return kept[::-1]


def _turn(stored: str) -> Turn | None:
    try:
        return Turn.model_validate_json(stored)
    except ValidationError:  # one bad row must not end a conversation
        log.warning("stored turn not readable")
        return None
