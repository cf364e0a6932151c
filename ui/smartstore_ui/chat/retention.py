"""How long past chats are kept."""

import time

import structlog
from sqlalchemy import delete, exists, select

from smartstore_indexing.errors import StoreUnavailable
from smartstore_ui.chat.database import Database
from smartstore_ui.chat.tables import OF_THREAD, threads, users
from smartstore_workflows.memory import DAY_SECONDS

log = structlog.get_logger(__name__)
EVERY_SECONDS = 3_600.0
BATCH = 500


class Retention:
    """Drops threads that nobody wrote in for some days, and users who have none and did not come for as long."""

    def __init__(self, database: Database, *, days: float) -> None:
        """Use an open database."""
        self._database = database
        self._life = days * DAY_SECONDS
        self._next = 0.0

    def fades(self, used_at: float) -> bool:
        """Tell whether a user's last use is so long ago that this one is to be noted; not each is."""
        return time.time() - used_at > min(DAY_SECONDS, self._life / 2)

    async def drop_unused_now_and_then(self) -> None:
        """Drop what is unused when that was not done for an hour; a failure is logged."""
        if time.monotonic() < self._next:
            return
        try:
            await self.drop_unused()
        except StoreUnavailable as error:
            log.warning("unused pages not dropped", code=error.code)

    async def drop_unused(self) -> None:
        """Drop what is unused; StoreUnavailable when the database does not answer."""
        self._next = time.monotonic() + EVERY_SECONDS
        oldest = time.time() - self._life
        while await self._dropped_threads(oldest) == BATCH:
            pass
        nobodys = ~exists().where(threads.c.user_id == users.c.id)
        async with self._database.use() as connection:
            await connection.execute(delete(users).where(users.c.used_at < oldest, nobodys))

    async def _dropped_threads(self, oldest: float) -> int:
        unused = select(threads.c.id).where(threads.c.used_at < oldest).limit(BATCH).with_for_update()
        async with self._database.use() as connection:
            ids = (await connection.execute(unused)).scalars().all()
            for table in OF_THREAD:
                await connection.execute(delete(table).where(table.c.thread_id.in_(ids)))
            await connection.execute(delete(threads).where(threads.c.id.in_(ids)))
        return len(ids)
