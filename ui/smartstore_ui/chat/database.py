"""The database of the page history, a SQLite file or PostgreSQL. It may go away: calls then fail within seconds."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

import asyncpg
from sqlalchemy import URL, Table, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from smartstore_indexing.errors import Misconfigured, StoreUnavailable
from smartstore_indexing.settings import Settings
from smartstore_ui.chat.tables import schema

CONNECT_SECONDS = 2.0
CALL_SECONDS = 2.5  # one transaction; ending a connection that does not answer takes asyncpg up to 2 s more
REST_SECONDS = 1.0  # after a failure that took longer than that, before the database is tried again
BUSY_SECONDS = 2.0  # another process may be writing in the file
CONNECTIONS = {"sqlite": 1, "postgresql": 8}  # SQLite lets one write; waiting here is in turn, and waiting there is not
DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
HISTORY_FILE = "pages.sqlite3"  # in the data folder
# One process at a time makes the tables.
ALONE: Final = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(7301206)"}
AWAY = (
    "대화 기록을 지금 읽거나 쓸 수 없습니다. 잠시 뒤에 다시 시도해 주세요. 계속되면 SMARTSTORE_CHAT__HISTORY_URL의 "
    "데이터베이스가 켜져 있는지, SQLite 파일이면 폴더의 권한과 여유 공간을 확인해 주세요."
)
UNREADABLE = (
    "SMARTSTORE_CHAT__HISTORY_URL을 읽을 수 없습니다. sqlite+aiosqlite:///파일 또는 "
    "postgresql://사용자:비밀번호@호스트/데이터베이스 형식으로 써 주세요."
)


def history_url(settings: Settings) -> str:
    """Return the address of the pages' database, by default a file in the data folder."""
    return settings.chat.history_url.get_secret_value() or f"sqlite+aiosqlite:///{settings.data_dir / HISTORY_FILE}"


class Database:
    """An open database with our tables in it."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Own an engine; `open` makes one."""
        self._engine = engine
        self._resting_until = 0.0

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect, and make the tables that are not there.

        Raises:
            Misconfigured: the address cannot be read, or is of another kind of database.
            StoreUnavailable: the database does not answer, or does not let us in.
        """
        database = cls(_engine(url))
        try:
            async with database.use() as connection:
                await connection.execute(text(ALONE[connection.dialect.name]))
                await connection.run_sync(schema.create_all)
        except TypeError as error:  # what the driver says of a parameter that it does not know
            await database.close()
            raise Misconfigured(UNREADABLE) from error
        except BaseException:
            await database.close()
            raise
        return database

    @asynccontextmanager
    async def use(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction, all of which is written or nothing.

        Raises:
            StoreUnavailable: the database does not answer in time, or refuses.
        """
        began = time.monotonic()
        if began < self._resting_until:
            raise StoreUnavailable(AWAY)
        try:
            async with asyncio.timeout(CALL_SECONDS), self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            ended = time.monotonic()
            if ended - began > REST_SECONDS:  # those that wait behind must not wait as long, one after the other
                self._resting_until = ended + REST_SECONDS
            raise StoreUnavailable(AWAY) from error

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """Return an insert that can say what happens to a row that is there already."""
        return postgresql.insert(table) if self._engine.dialect.name == "postgresql" else sqlite.insert(table)

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()


def _engine(url: str) -> AsyncEngine:
    try:
        parsed = make_url(url)
        parsed = parsed.set(drivername=DRIVERS[parsed.drivername])
    except (ArgumentError, ValueError, KeyError):
        raise Misconfigured(UNREADABLE) from None  # the cause would show the password
    if not parsed.database or parsed.database.startswith(":"):  # each connection would have a memory of its own
        raise Misconfigured(UNREADABLE)
    if parsed.get_backend_name() == "sqlite":
        engine = _pooled(parsed, {"timeout": BUSY_SECONDS})
        event.listen(engine.sync_engine, "connect", _tune)
        return engine
    return _pooled(
        _of_asyncpg(parsed),
        {
            "timeout": CONNECT_SECONDS,
            "command_timeout": CALL_SECONDS,
            "server_settings": {
                "application_name": "smartstore-chatbot",
                "statement_timeout": str(round(CALL_SECONDS * 1000)),
            },
        },
    )


def _pooled(url: URL, arguments: dict[str, object]) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=CONNECTIONS[url.get_backend_name()],
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args=arguments,
    )


def _of_asyncpg(url: URL) -> URL:
    """Return the address with libpq's sslmode, as providers print it, under asyncpg's name."""
    mode = url.query.get("sslmode")
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode}) if mode else url


def _tune(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")  # survives a crash of the process
    cursor.close()
