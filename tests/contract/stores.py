"""What the contract tests share: each kind of store opened, aged and broken into, and waiting without blocking."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from smartstore_indexing.setting_groups import RedisSettings
from smartstore_workflows.events import Turn
from smartstore_workflows.memory import DAY_SECONDS, Conversations, SqliteConversations
from smartstore_workflows.records import RunRecords, SqliteRunRecords
from smartstore_workflows.redis_memory import RedisConversations
from smartstore_workflows.redis_records import RedisRunRecords
from smartstore_workflows.redis_server import RedisServer
from smartstore_workflows.sqlite import SqliteFile

KINDS = ["sqlite", "redis"]


def turn(question: str, answer: str = "답변입니다.\n\n- 하나 [1]") -> Turn:
    return Turn(
        question=question,
        standalone=f"{question} 혼자",
        answer=answer,
        kind="answered",
        faq_ids=("a", "b"),
        offered=("c",),
    )


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Return as soon as a condition holds; fail when it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not hold in time")
        await asyncio.sleep(0.02)


def server_of(url: str, prefix: str = "test") -> RedisSettings:
    return RedisSettings(url=SecretStr(url), prefix=prefix)


@asynccontextmanager
async def redis_server(settings: RedisSettings) -> AsyncIterator[RedisServer]:
    server = await RedisServer.open(settings)
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def sqlite_file(path: Path) -> AsyncIterator[SqliteFile]:
    file = await SqliteFile.open(path)
    try:
        yield file
    finally:
        await file.close()


@dataclass(frozen=True)
class SqliteWorld:
    """Stores in a file."""

    path: Path

    @asynccontextmanager
    async def conversations(
        self, *, max_turns: int = 20, max_tokens: int = 1_000_000, days: float = 3.0
    ) -> AsyncIterator[Conversations]:
        async with sqlite_file(self.path) as file:
            yield await SqliteConversations.open(file, max_turns=max_turns, max_tokens=max_tokens, days=days)

    @asynccontextmanager
    async def records(self, *, days: float = 3.0, feedback_days: float = 365.0) -> AsyncIterator[RunRecords]:
        async with sqlite_file(self.path) as file:
            yield await SqliteRunRecords.open(file, days=days, feedback_days=feedback_days)

    async def age(self, days: float) -> None:
        self.change("UPDATE sessions SET used_at = used_at - ?", days * DAY_SECONDS)

    async def insert_broken(self, session_id: str, stored: str) -> None:
        self.change("INSERT INTO turns (session_id, used_at, turn) VALUES (?, ?, ?)", session_id, time.time(), stored)

    async def stored_turns(self) -> int:
        with closing(sqlite3.connect(self.path)) as connection:
            return int(connection.execute("SELECT count(*) FROM turns").fetchone()[0])

    def change(self, statement: str, *values: object) -> None:
        """Write to the file through a connection of the test's own."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(statement, values)


@dataclass(frozen=True)
class RedisWorld:
    """Stores in Redis."""

    settings: RedisSettings

    @asynccontextmanager
    async def conversations(
        self, *, max_turns: int = 20, max_tokens: int = 1_000_000, days: float = 3.0
    ) -> AsyncIterator[Conversations]:
        async with redis_server(self.settings) as server:
            yield RedisConversations(server, max_turns=max_turns, max_tokens=max_tokens, days=days)

    @asynccontextmanager
    async def records(self, *, days: float = 3.0, feedback_days: float = 365.0) -> AsyncIterator[RunRecords]:
        async with redis_server(self.settings) as server:
            yield RedisRunRecords(server, days=days, feedback_days=feedback_days)

    async def age(self, days: float) -> None:
        async with redis_server(self.settings) as server, server.use() as client:
            for session_id in await client.zrange(server.key("chats"), 0, -1):
                await client.zincrby(server.key("chats"), -days * DAY_SECONDS, session_id)
            async for chat in client.scan_iter(f"{server.key('chat')}:*"):
                await client.pexpire(chat, await client.pttl(chat) - round(days * DAY_SECONDS * 1_000))

    async def insert_broken(self, session_id: str, stored: str) -> None:
        async with redis_server(self.settings) as server, server.use() as client:
            await client.rpush(server.key("chat", session_id), stored)

    async def stored_turns(self) -> int:
        async with redis_server(self.settings) as server, server.use() as client:
            chats = [chat async for chat in client.scan_iter(f"{server.key('chat')}:*")]
            return sum([await client.llen(chat) for chat in chats]) // 2


World = SqliteWorld | RedisWorld
