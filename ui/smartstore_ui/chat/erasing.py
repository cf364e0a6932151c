"""Deleting a thread of the page history; without Chainlit, which takes seconds to import."""

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from smartstore_ui.chat.database import Database
from smartstore_ui.chat.tables import OF_THREAD, threads


async def drop_thread(connection: AsyncConnection, thread_id: str) -> None:
    """Delete all that a thread holds; its id stays until it would have been dropped unused."""
    for table in OF_THREAD:
        await connection.execute(delete(table).where(table.c.thread_id == thread_id))
    nothing: dict[str, object] = {"user_id": None, "name": None, "tags": None, "details": {}, "deleted": True}
    await connection.execute(update(threads).where(threads.c.id == thread_id).values(**nothing))


async def erased(database: Database, thread_id: str) -> bool:
    """Delete a thread and return whether there was one; StoreUnavailable when the database does not answer."""
    held = select(threads.c.id).where(threads.c.id == thread_id, threads.c.deleted.is_(False)).with_for_update()
    async with database.use() as connection:
        if (await connection.execute(held)).first() is None:
            return False
        await drop_thread(connection, thread_id)
        return True
