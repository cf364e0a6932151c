"""The page's past chats: Chainlit's data layer, over a SQLite file or PostgreSQL.

Chainlit writes steps and elements in background tasks; those of one thread are written here in the order of the calls,
and one that fails is logged. What a person asks for (list, open, rename, rate, delete) raises instead.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self, TypeVar, cast

import structlog
from chainlit.context import context
from chainlit.data.base import BaseDataLayer
from chainlit.data.utils import queue_until_user_message
from chainlit.element import CustomElement, Element, ElementDict
from chainlit.step import StepDict
from chainlit.types import Feedback, PageInfo, PaginatedResponse, Pagination, ThreadDict, ThreadFilter
from chainlit.user import PersistedUser, User
from sqlalchemy import delete, select

from smartstore_indexing.errors import FaqError, StoreUnavailable, UnknownResource
from smartstore_ui.chat.database import Database
from smartstore_ui.chat.erasing import drop_thread
from smartstore_ui.chat.listing import listed, listed_thread, page_size, steps_of
from smartstore_ui.chat.people import People
from smartstore_ui.chat.retention import Retention
from smartstore_ui.chat.rows import (
    MAX_NAME,
    checked_id,
    element_of,
    element_row,
    is_id,
    kept_fields,
    kept_json,
    kept_text,
    step_of,
    step_row,
)
from smartstore_ui.chat.tables import elements, threads, users
from smartstore_ui.chat.threads import ThreadWriting, drop_step, put_element, put_step, put_thread
from smartstore_ui.chat.thumbs import Ratings, Thumbs

log = structlog.get_logger(__name__)
Write = TypeVar("Write", bound=Callable[..., Awaitable[None]])


def _queued(write: Write) -> Write:
    """Let a write wait until the person has said something: an empty chat is no chat."""
    return cast("Write", queue_until_user_message()(write))  # Chainlit's has no type


@contextmanager
def _in_background(call: str) -> Iterator[None]:
    try:
        yield
    except UnknownResource:  # a deleted thread's page is still open
        log.debug("page history not written", call=call, code=UnknownResource.code)
    except FaqError as error:
        log.warning("page history not written", call=call, code=error.code, cause=type(error.__cause__).__name__)


def _user_id() -> str | None:
    user = context.session.user
    return user.id if isinstance(user, PersistedUser) else None


class PageHistory(BaseDataLayer):
    """Past chats in an open database."""

    def __init__(
        self, *, database: Database, ratings: Ratings, forget: Callable[[str], Awaitable[object]], retention: Retention
    ) -> None:
        """Own a database; `open` opens one."""
        self._database = database
        self._forget = forget
        self._retention = retention
        self._writing = ThreadWriting(database)
        self._people = People(database, retention)
        self._thumbs = Thumbs(database, self._writing, ratings)

    @classmethod
    async def open(cls, url: str, *, ratings: Ratings, forget: Callable[[str], Awaitable[object]], days: float) -> Self:
        """Open the database, make its tables, and drop the threads that were unused for `days`.

        `forget` deletes the bot's conversation of a thread, which has the thread's id.

        Raises:
            Misconfigured: the address cannot be read, or is of another kind of database.
            StoreUnavailable: the database does not answer.
        """
        database = await Database.open(url)
        retention = Retention(database, days=days)
        try:
            await retention.drop_unused()
        except StoreUnavailable:
            await database.close()
            raise
        return cls(database=database, ratings=ratings, forget=forget, retention=retention)

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()

    async def build_debug_url(self) -> str:
        """Return nothing: there is no page of this kind."""
        return ""

    async def get_user(self, identifier: str) -> PersistedUser | None:
        """Return a user, None when unknown."""
        return await self._people.find(identifier)

    async def create_user(self, user: User) -> PersistedUser:
        """Return the user who signs in, made where there is none; InvalidRequest when the identifier can be none."""
        return await self._people.welcome(user)

    async def get_thread_author(self, thread_id: str) -> str:
        """Return the identifier of a thread's user, "" when there is no such thread or it is nobody's."""
        if not is_id(thread_id):
            return ""
        owned = (
            select(users.c.identifier)
            .join(threads, threads.c.user_id == users.c.id)
            .where(threads.c.id == thread_id, threads.c.deleted.is_(False))
        )
        async with self._database.use() as connection:
            return (await connection.execute(owned)).scalar() or ""

    async def list_threads(self, pagination: Pagination, filters: ThreadFilter) -> PaginatedResponse[ThreadDict]:
        """Return a page of the threads of `filters.userId`, the last active first, without steps.

        Pages go on after `pagination.cursor`, a thread's id.
        """
        rows = []
        if filters.userId:
            async with self._database.use() as connection:
                rows = list((await connection.execute(listed(pagination, filters))).mappings())
        first = page_size(pagination)
        page = [listed_thread(row) for row in rows[:first]]
        ends = (page[0]["id"], page[-1]["id"]) if page else (None, None)
        info = PageInfo(hasNextPage=len(rows) > first, startCursor=ends[0], endCursor=ends[1])
        return PaginatedResponse(pageInfo=info, data=page)

    async def get_thread(self, thread_id: str) -> ThreadDict | None:
        """Return a thread with its steps, oldest first, their feedback, and its elements; None when there is none."""
        if not is_id(thread_id):
            return None
        whose = select(threads, users.c.identifier).outerjoin(users, users.c.id == threads.c.user_id)
        async with self._database.use() as connection:
            found = await connection.execute(whose.where(threads.c.id == thread_id, threads.c.deleted.is_(False)))
            thread = found.mappings().first()
            if thread is None:
                return None
            said = await connection.execute(steps_of(thread_id))
            shown = await connection.execute(select(elements).where(elements.c.thread_id == thread_id))
        return ThreadDict(
            id=thread_id,
            createdAt=thread["created_at"],
            name=thread["name"],
            userId=thread["user_id"],
            userIdentifier=thread["identifier"],
            tags=thread["tags"] or [],
            metadata=thread["details"],
            steps=[step_of(row) for row in said.mappings()][::-1],
            elements=[element_of(row) for row in shown.mappings()],
        )

    async def update_thread(
        self,
        thread_id: str,
        name: str | None = None,
        user_id: str | None = None,
        metadata: dict[str, object] | None = None,
        tags: list[str] | None = None,
    ) -> None:
        """Write what is given of a thread, made where there is none; raises only without metadata.

        Raises:
            InvalidRequest: the id can be none.
            UnknownResource: it was deleted, or is another user's.
            StoreUnavailable: the database does not answer.
        """
        columns: dict[str, object] = {"user_id": user_id} if user_id else {}
        if name is not None:
            columns["name"] = kept_text(name, MAX_NAME)
        if tags is not None:
            columns["tags"] = kept_json(tags)
        if metadata is None:
            await self._put_thread(thread_id, user_id, columns)
            await self._retention.drop_unused_now_and_then()
            return
        with _in_background("update_thread"):  # a page was left; raising would keep its session for ever
            await self._put_thread(thread_id, user_id, columns | {"details": kept_fields(metadata)})

    async def delete_thread(self, thread_id: str) -> None:
        """Delete the bot's conversation, then the thread; nothing is deleted when `forget` raises, as it then does."""
        await self._forget(checked_id(thread_id))
        with suppress(UnknownResource):  # deleted before
            async with self._writing.writing(thread_id) as connection:
                await drop_thread(connection, thread_id)
        await self._forget(thread_id)  # a page that was being opened meanwhile may have given it back

    async def _put_thread(self, thread_id: str, user_id: str | None, columns: dict[str, object]) -> None:
        async with self._writing.writing(thread_id, user_id=user_id) as connection:
            await put_thread(connection, thread_id, columns)

    @_queued
    async def create_step(self, step_dict: StepDict) -> None:
        """Write a step, in the background."""
        with _in_background("create_step"):
            await self._put_step(step_dict)

    @_queued
    async def update_step(self, step_dict: StepDict) -> None:
        """Write a step again, in the background."""
        with _in_background("update_step"):
            await self._put_step(step_dict)

    @_queued
    async def delete_step(self, step_id: str) -> None:
        """Delete a step of the page's thread, in the background."""
        thread_id = context.session.thread_id
        with _in_background("delete_step"):
            async with self._writing.writing(thread_id, user_id=_user_id()) as connection:
                await drop_step(connection, thread_id, checked_id(step_id))

    async def _put_step(self, step: StepDict) -> None:
        thread_id, step_id = checked_id(step.get("threadId")), checked_id(step.get("id"))
        async with self._writing.turn(thread_id):
            columns = await asyncio.to_thread(step_row, step)
            async with self._writing.transaction(thread_id, user_id=_user_id(), active=True) as connection:
                await put_step(connection, thread_id, step_id, columns)

    async def get_favorite_steps(self, user_id: str) -> list[StepDict]:
        """Return none: the page offers no favourites."""
        del user_id
        return []

    @_queued
    async def create_element(self, element: Element) -> None:
        """Write an element that consists of its properties, in the background; others need a file, and are not kept."""
        if not isinstance(element, CustomElement) or element.path or element.url:
            log.debug("page element with a file not kept", type=element.type)
            return
        with _in_background("create_element"):
            thread_id, element_id = checked_id(element.thread_id), checked_id(element.id)
            async with self._writing.turn(thread_id):
                columns = await asyncio.to_thread(element_row, element)
                async with self._writing.transaction(thread_id, user_id=_user_id()) as connection:
                    await put_element(connection, thread_id, element_id, columns)

    async def get_element(self, thread_id: str, element_id: str) -> ElementDict | None:
        """Return an element of a thread, None when there is none."""
        if not is_id(thread_id) or not is_id(element_id):
            return None
        wanted = select(elements).where(elements.c.id == element_id, elements.c.thread_id == thread_id)
        async with self._database.use() as connection:
            row = (await connection.execute(wanted)).mappings().first()
        return element_of(row) if row else None

    @_queued
    async def delete_element(self, element_id: str, thread_id: str | None = None) -> None:
        """Delete an element of a thread, by default the page's, in the background."""
        of = thread_id or context.session.thread_id
        with _in_background("delete_element"):
            own = (elements.c.id == checked_id(element_id), elements.c.thread_id == of)
            async with self._writing.writing(of, user_id=_user_id()) as connection:
                await connection.execute(delete(elements).where(*own))

    async def upsert_feedback(self, feedback: Feedback) -> str:
        """Keep a thumb with its run and its step and return its id; UnknownResource when there is no such run."""
        return await self._thumbs.put(feedback)

    async def delete_feedback(self, feedback_id: str) -> bool:
        """Take a thumb back from its run and its step; return whether there was one."""
        return await self._thumbs.remove(feedback_id)
