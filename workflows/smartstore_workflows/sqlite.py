"""The local SQLite file that the embedded stores share: one connection, used by one thread, never by the event loop."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from smartstore_indexing.errors import StoreUnavailable

T = TypeVar("T")
BUSY_SECONDS = 5.0  # another process may be writing
UNUSABLE = "대화 저장 파일을 열거나 쓸 수 없습니다. 데이터 폴더의 권한과 디스크 여유 공간을 확인해 주세요."


class SqliteFile:
    """An open file. What a store does with it runs in the file's own thread, one piece of work after the other."""

    def __init__(self, path: Path) -> None:
        """Name the file; `open` opens it."""
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open the file, making it where there is none; StoreUnavailable when that cannot be done."""
        file = cls(path)
        try:
            file._connection = await file._in_thread(file._connect)
        except StoreUnavailable:
            file._thread.shutdown(wait=False)
            raise
        return file

    async def close(self) -> None:
        """Close the file once what was begun has ended; closing it again does nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await self._in_thread(connection.close)
            finally:
                self._thread.shutdown(wait=False)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what the work returns; StoreUnavailable when the file cannot be used."""
        return await self._in_thread(partial(work, self._opened()))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do the work as one transaction, all of it or nothing, and return what it returns; raises what `read` raises.

        Whoever is cancelled meanwhile does not know which of the two it was.
        """
        return await self._in_thread(partial(_transaction, work, self._opened()))

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreUnavailable(UNUSABLE)
        return self._connection

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(UNUSABLE) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")  # survives a crash of the process
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _transaction(work: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    with connection:  # commits, or rolls back what an exception leaves half done
        connection.execute("BEGIN IMMEDIATE")
        return work(connection)
