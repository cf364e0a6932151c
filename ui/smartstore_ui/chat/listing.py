"""Which threads the sidebar lists, and which steps an opened one shows, as SQL."""

from chainlit.types import Pagination, ThreadDict, ThreadFilter
from chainlit.utils import timestamp_utc
from sqlalchemy import ColumnElement, RowMapping, Select, and_, exists, or_, select

from smartstore_indexing.cleaning import CONTROL
from smartstore_ui.chat.rows import is_id
from smartstore_ui.chat.tables import feedbacks, steps, threads, users

MAX_PAGE = 100
MAX_SEARCH = 200
MAX_STEPS = 2_000  # of an opened thread, the last ones
LISTED = (threads.c.id, threads.c.used_at, threads.c.user_id, threads.c.name, threads.c.tags)
MESSAGES = ("user_message", "assistant_message")


def page_size(pagination: Pagination) -> int:
    """Return how many threads a page has, at most 100."""
    return max(1, min(pagination.first, MAX_PAGE))


def listed(pagination: Pagination, filters: ThreadFilter) -> Select[*tuple[object, ...]]:
    """Return the query for a page of a user's threads and one more, the last active first."""
    fits = [threads.c.user_id == filters.userId, threads.c.deleted.is_(False)]
    if is_id(pagination.cursor):
        fits.append(_older_than(pagination.cursor))
    if searched := CONTROL.sub("", filters.search or "").strip()[:MAX_SEARCH]:
        fits.append(_says(searched))
    if filters.feedback is not None:
        rated = exists().where(feedbacks.c.thread_id == threads.c.id, feedbacks.c.value == filters.feedback)
        fits.append(rated)
    return (
        select(*LISTED, users.c.identifier)
        .outerjoin(users, users.c.id == threads.c.user_id)
        .where(*fits)
        .order_by(threads.c.used_at.desc(), threads.c.id.desc())
        .limit(page_size(pagination) + 1)
    )


def steps_of(thread_id: str) -> Select[*tuple[object, ...]]:
    """Return the query for the last steps of a thread with their feedback, the last first."""
    rated = (feedbacks.c.id.label("feedback_id"), feedbacks.c.value, feedbacks.c.comment)
    return (
        select(steps, *rated)
        .outerjoin(feedbacks, feedbacks.c.step_id == steps.c.id)
        .where(steps.c.thread_id == thread_id)
        .order_by(steps.c.created_at.desc(), steps.c.id.desc())
        .limit(MAX_STEPS)
    )


def _older_than(thread_id: str) -> ColumnElement[bool]:
    """Tell of a thread whether it comes after that one; when that one is unknown, all do."""
    last = threads.alias()
    comes_after = or_(
        threads.c.used_at < last.c.used_at, and_(threads.c.used_at == last.c.used_at, threads.c.id < last.c.id)
    )
    known = exists().where(last.c.id == thread_id)
    return or_(~known, exists().where(last.c.id == thread_id, comes_after))


def _says(words: str) -> ColumnElement[bool]:
    said = exists().where(
        steps.c.thread_id == threads.c.id,
        steps.c.type.in_(MESSAGES),
        steps.c.output.icontains(words, autoescape=True),
    )
    return or_(threads.c.name.icontains(words, autoescape=True), said)


def listed_thread(row: RowMapping) -> ThreadDict:
    """Return a thread of the sidebar, which sorts and groups by `createdAt`: here that is when it was last active."""
    return ThreadDict(
        id=row["id"],
        createdAt=timestamp_utc(row["used_at"]),
        name=row["name"],
        userId=row["user_id"],
        userIdentifier=row["identifier"],
        tags=row["tags"] or [],
        metadata={},
        steps=[],
        elements=[],
    )
