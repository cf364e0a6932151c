"""What people think of an answer: kept with its run, and with its step so that the page shows it again."""

import uuid
from contextlib import suppress
from typing import Literal, Protocol

from chainlit.types import Feedback
from sqlalchemy import RowMapping, Select, delete, select

from smartstore_indexing.errors import UnknownResource
from smartstore_ui.chat.database import Database
from smartstore_ui.chat.rows import is_id, kept_text
from smartstore_ui.chat.tables import feedbacks, steps
from smartstore_ui.chat.threads import ThreadWriting

UNRATABLE = "이 답변은 평가할 수 없습니다. 오래되었거나 지워진 답변입니다."


class Ratings(Protocol):
    """Where thumbs are kept with their runs. Both raise UnknownResource when there is no such run."""

    async def rate(self, run_id: str, score: Literal[1, -1], comment: str | None) -> None:
        """Keep a thumb in place of an earlier one."""

    async def unrate(self, run_id: str) -> None:
        """Take the thumb back."""


class Thumbs:
    """The thumbs in an open database."""

    def __init__(self, database: Database, writing: ThreadWriting, ratings: Ratings) -> None:
        """Use a database, and the place where runs are rated."""
        self._database = database
        self._writing = writing
        self._ratings = ratings

    async def put(self, feedback: Feedback) -> str:
        """Keep a thumb, a step's only one, and return its id.

        Raises:
            UnknownResource: there is no such step, it is no run's, or the run is known no more.
            StoreUnavailable: the database does not answer.
        """
        async with self._writing.turn(feedback.threadId or feedback.forId):  # its step may be about to be written
            step = (
                await self._first(select(steps).where(steps.c.id == feedback.forId)) if is_id(feedback.forId) else None
            )
            if step is None or (run_id := _run_id(step)) is None:
                raise UnknownResource(UNRATABLE)
            comment = kept_text(feedback.comment) if feedback.comment else None
            await self._ratings.rate(run_id, 1 if feedback.value else -1, comment)
            said = {"value": feedback.value, "comment": comment}
            row = self._database.insert(feedbacks).values(
                step_id=step["id"], thread_id=step["thread_id"], id=str(uuid.uuid4()), **said
            )
            saved = row.on_conflict_do_update(index_elements=[feedbacks.c.step_id], set_=said)
            async with self._writing.transaction(step["thread_id"]) as connection:
                return str((await connection.execute(saved.returning(feedbacks.c.id))).scalar_one())

    async def remove(self, feedback_id: str) -> bool:
        """Take a thumb back from its run and its step; return whether there was one."""
        rated = select(steps).join(feedbacks, feedbacks.c.step_id == steps.c.id).where(feedbacks.c.id == feedback_id)
        step = await self._first(rated) if is_id(feedback_id) else None
        if step is None:
            return False
        async with self._writing.turn(step["thread_id"]):
            if run_id := _run_id(step):
                with suppress(UnknownResource):  # the run went before; its thumb goes too
                    await self._ratings.unrate(run_id)
            async with self._database.use() as connection:
                await connection.execute(delete(feedbacks).where(feedbacks.c.id == feedback_id))
        return True

    async def _first(self, query: Select[*tuple[object, ...]]) -> RowMapping | None:
        async with self._database.use() as connection:
            return (await connection.execute(query)).mappings().first()


def _run_id(step: RowMapping) -> str | None:
    run_id = step["fields"].get("metadata", {}).get("run_id")
    return run_id if isinstance(run_id, str) else None
