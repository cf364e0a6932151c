"""The stores of a process: in Redis where it is configured, for all processes, else in a local file."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from smartstore_indexing.settings import Settings
from smartstore_workflows.locking import LocalLocks, Locks, RedisLocks
from smartstore_workflows.memory import Conversations, SqliteConversations
from smartstore_workflows.records import RunRecords, SqliteRunRecords
from smartstore_workflows.redis_memory import RedisConversations
from smartstore_workflows.redis_records import RedisRunRecords
from smartstore_workflows.redis_server import RedisServer
from smartstore_workflows.sqlite import SqliteFile

FILE = "conversations.sqlite3"


@dataclass(frozen=True, slots=True)
class Stores:
    """What is kept from one question to the next; of `redis` and `file` one is open and the other None."""

    conversations: Conversations
    records: RunRecords
    locks: Locks
    redis: RedisServer | None = None
    file: SqliteFile | None = None


@asynccontextmanager
async def opened_stores(settings: Settings) -> AsyncGenerator[Stores, None]:
    """Open the stores that the settings ask for, and close them at the end.

    Raises:
        Misconfigured: the address of Redis cannot be read.
        StoreUnavailable: Redis does not answer, or the local file cannot be opened.
    """
    memory = settings.memory
    wait_seconds = settings.question_timeout_seconds
    if settings.redis.url.get_secret_value():
        server = await RedisServer.open(settings.redis)
        try:
            yield Stores(
                conversations=RedisConversations(
                    server, max_turns=memory.max_turns, max_tokens=memory.max_tokens, days=memory.days
                ),
                records=RedisRunRecords(server, days=memory.days, feedback_days=memory.feedback_days),
                locks=RedisLocks(server, wait_seconds=wait_seconds),
                redis=server,
            )
        finally:
            await server.close()
        return
    file = await SqliteFile.open(settings.data_dir / FILE)
    try:
        yield Stores(
            conversations=await SqliteConversations.open(
                file, max_turns=memory.max_turns, max_tokens=memory.max_tokens, days=memory.days
            ),
            records=await SqliteRunRecords.open(file, days=memory.days, feedback_days=memory.feedback_days),
            locks=LocalLocks(wait_seconds=wait_seconds),
            file=file,
        )
    finally:
        await file.close()
