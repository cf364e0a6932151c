"""Writing in a thread: one write after the other, in the order of the calls, each whole or not at all."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from chainlit.utils import timestamp_utc, utc_now
from sqlalchemy import ColumnElement, RowMapping, Table, and_, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from smartstore_indexing.errors import Conflict, Overloaded, StoreUnavailable, UnknownResource
from smartstore_ui.chat.database import AWAY, Database
from smartstore_ui.chat.rows import checked_id
from smartstore_ui.chat.tables import elements, feedbacks, steps, threads
from smartstore_workflows.locking import LocalLocks

WAIT_SECONDS = 30.0  # for the writes before; where the database does not answer, they fail within seconds
GONE = "지워졌거나 다른 사람의 대화입니다. 새 대화를 시작해 주세요."
OTHERS = "다른 대화의 메시지입니다. 새 대화를 시작해 주세요."


class ThreadWriting:
    """The threads of an open database, for those who write in them."""

    def __init__(self, database: Database) -> None:
        """Use an open database."""
        self._database = database
        self._locks = LocalLocks(wait_seconds=WAIT_SECONDS)

    @asynccontextmanager
    async def turn(self, thread_id: object) -> AsyncIterator[None]:
        """Wait for the writes of the thread that were called before, and keep those after waiting.

        Raises:
            InvalidRequest: that can be no id.
            StoreUnavailable: the writes before take too long.
        """
        try:
            async with self._locks.hold(checked_id(thread_id)):
                yield
        except Overloaded as error:
            raise StoreUnavailable(AWAY) from error

    @asynccontextmanager
    async def transaction(
        self, thread_id: str, *, user_id: str | None = None, active: bool = False
    ) -> AsyncIterator[AsyncConnection]:
        """Yield a transaction that holds the thread, made where there is none; with `active`, it is in use now.

        Raises:
            UnknownResource: the thread was deleted, or is not of the user who is named.
            StoreUnavailable: the database does not answer.
        """
        now = time.time()
        row = self._database.insert(threads).values(
            id=thread_id, created_at=timestamp_utc(now), used_at=now, details={}, deleted=False
        )
        allowed: list[ColumnElement[bool]] = [threads.c.deleted.is_(False)]
        if user_id is not None:
            allowed.append(or_(threads.c.user_id.is_(None), threads.c.user_id == user_id))
        held = row.on_conflict_do_update(
            index_elements=[threads.c.id],
            set_={"used_at": row.excluded.used_at if active else threads.c.used_at},
            where=and_(*allowed),
        )
        async with self._database.use() as connection:
            if (await connection.execute(held.returning(threads.c.id))).first() is None:
                raise UnknownResource(GONE)
            yield connection

    @asynccontextmanager
    async def writing(self, thread_id: str, *, user_id: str | None = None) -> AsyncIterator[AsyncConnection]:
        """Yield a transaction in its turn; raises what `turn` and `transaction` raise."""
        async with self.turn(thread_id), self.transaction(thread_id, user_id=user_id) as connection:
            yield connection


async def put_thread(connection: AsyncConnection, thread_id: str, columns: Mapping[str, object]) -> None:
    """Write columns of a thread; of its details, those that are None go, and those that are not named stay."""
    changed = dict(columns)
    if isinstance(details := changed.get("details"), dict):
        before = (await connection.execute(select(threads.c.details).where(threads.c.id == thread_id))).scalar_one()
        changed["details"] = {name: value for name, value in (before | details).items() if value is not None}
    if changed:
        await connection.execute(update(threads).where(threads.c.id == thread_id).values(**changed))


async def put_step(connection: AsyncConnection, thread_id: str, step_id: str, columns: Mapping[str, object]) -> None:
    """Write a step, keeping what the columns do not say; Conflict when the id is another thread's."""
    before = await _before(connection, steps, thread_id, step_id)
    if before is None:
        unsaid = {"created_at": utc_now(), "type": "undefined", "output": ""}
        await connection.execute(insert(steps).values(unsaid | dict(columns) | {"id": step_id, "thread_id": thread_id}))
        return
    fields = columns["fields"]
    assert isinstance(fields, dict)
    changed = {**columns, "fields": before["fields"] | fields}
    await connection.execute(update(steps).where(steps.c.id == step_id).values(**changed))


async def put_element(
    connection: AsyncConnection, thread_id: str, element_id: str, columns: Mapping[str, object]
) -> None:
    """Write an element in place of an earlier one; Conflict when the id is another thread's."""
    if await _before(connection, elements, thread_id, element_id) is None:
        await connection.execute(insert(elements).values(**columns, id=element_id, thread_id=thread_id))
    else:
        await connection.execute(update(elements).where(elements.c.id == element_id).values(**columns))


async def drop_step(connection: AsyncConnection, thread_id: str, step_id: str) -> None:
    """Delete a step of the thread with its feedback and its elements."""
    await connection.execute(delete(steps).where(steps.c.id == step_id, steps.c.thread_id == thread_id))
    for table in (feedbacks, elements):
        await connection.execute(delete(table).where(table.c.step_id == step_id, table.c.thread_id == thread_id))


async def _before(connection: AsyncConnection, table: Table, thread_id: str, row_id: str) -> RowMapping | None:
    row = (await connection.execute(select(table).where(table.c.id == row_id))).mappings().first()
    if row is not None and row["thread_id"] != thread_id:
        raise Conflict(OTHERS)  # a browser chooses ids: it must not write over another's
    return row
