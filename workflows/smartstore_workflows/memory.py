"""Conversations in a local SQLite file: they survive a restart, live some days past their last use, and are bounded."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

import structlog
from pydantic import ValidationError

from smartstore_indexing.errors import StoreUnavailable
from smartstore_workflows.events import Turn

log = structlog.get_logger(__name__)
T = TypeVar("T")
DAY_SECONDS = 86_400.0
BUSY_SECONDS = 5.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS turns (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL,
    used_at REAL NOT NULL,
    turn TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS turns_of_session ON turns (session_id, number);
CREATE INDEX IF NOT EXISTS turns_by_use ON turns (used_at);
"""


class ConversationStore:
    """The turns of each session, oldest first. Every method raises StoreUnavailable when the file cannot be used."""

    def __init__(self, connection: sqlite3.Connection, *, max_turns: int, days: float) -> None:
        """Own an open connection; `open` makes one."""
        self._connection = connection
        self._max_turns = max_turns
        self._days = days
        self._lock = threading.Lock()

    @classmethod
    async def open(cls, path: Path, *, max_turns: int, days: float) -> Self:
        """Open the file, making it where there is none, and drop the conversations that were not used for `days`."""

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")  # survives a crash of the process
                connection.executescript(SCHEMA)
            except sqlite3.Error:
                connection.close()
                raise
            return connection

        store = cls(await _mapped(connect), max_turns=max_turns, days=days)
        await _mapped(store._drop_old)
        return store

    async def close(self) -> None:
        """Close the file."""
        await _mapped(self._locked(self._connection.close))

    async def turns(self, session_id: str) -> list[Turn]:
        """Return the turns of a session, none for one that is unknown or too old; a turn that is broken is left out."""
        select = "SELECT turn FROM turns WHERE session_id = ? AND used_at >= ? ORDER BY number"

        def read() -> list[tuple[str]]:
            return self._connection.execute(select, (session_id, time.time() - self._days * DAY_SECONDS)).fetchall()

        stored = [_turn(text) for (text,) in await _mapped(self._locked(read))]
        return [turn for turn in stored if turn is not None]

    async def append(self, session_id: str, turn: Turn) -> None:
        """Add a turn, renew the session's life, and drop its oldest turns beyond the bound: all of it or nothing."""

        def write() -> None:
            now = time.time()
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute(
                    "INSERT INTO turns (session_id, used_at, turn) VALUES (?, ?, ?)",
                    (session_id, now, turn.model_dump_json()),
                )
                self._connection.execute("UPDATE turns SET used_at = ? WHERE session_id = ?", (now, session_id))
                self._connection.execute(
                    "DELETE FROM turns WHERE session_id = ? AND number NOT IN "
                    "(SELECT number FROM turns WHERE session_id = ? ORDER BY number DESC LIMIT ?)",
                    (session_id, session_id, self._max_turns),
                )

        await _mapped(self._locked(write))

    async def forget(self, session_id: str) -> None:
        """Delete a session's turns; one that is unknown is no error."""

        def delete() -> None:
            self._connection.execute("DELETE FROM turns WHERE session_id = ?", (session_id,))

        await _mapped(self._locked(delete))

    def _drop_old(self) -> None:
        self._connection.execute("DELETE FROM turns WHERE used_at < ?", (time.time() - self._days * DAY_SECONDS,))

    def _locked(self, function: Callable[[], T]) -> Callable[[], T]:
        def call() -> T:
            with self._lock:
                return function()

        return call


def _turn(stored: str) -> Turn | None:
    try:
        return Turn.model_validate_json(stored)
    except ValidationError:  # one bad row must not end a conversation
        log.warning("stored turn not readable")
        return None


async def _mapped(function: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(function)
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(
            "대화 저장 파일을 열거나 쓸 수 없습니다. 데이터 폴더의 권한과 디스크 여유 공간을 확인해 주세요."
        ) from error
