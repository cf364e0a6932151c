"""The tables of the page history, in SQLite and PostgreSQL alike.

No foreign keys: Chainlit writes in any order, and a thread's rows go together in one transaction.
"""

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, MetaData, Table, Text

schema = MetaData()

users = Table(
    "page_users",
    schema,
    Column("id", Text, primary_key=True),
    Column("identifier", Text, nullable=False, unique=True),
    Column("created_at", Text, nullable=False),  # times of this kind as Chainlit writes them, ISO 8601
    Column("used_at", Float, nullable=False, index=True),  # times of this kind in unix seconds
    Column("details", JSON, nullable=False),
)

threads = Table(
    "page_threads",
    schema,
    Column("id", Text, primary_key=True),
    Column("created_at", Text, nullable=False),
    Column("used_at", Float, nullable=False, index=True),
    Column("user_id", Text),
    Column("name", Text),
    Column("tags", JSON),
    Column("details", JSON, nullable=False),
    # The id of a deleted thread stays for a while: a write that comes late must not bring the thread back.
    Column("deleted", Boolean, nullable=False),
    Index("ix_page_threads_listed", "user_id", "used_at", "id"),
)

steps = Table(
    "page_steps",
    schema,
    Column("id", Text, primary_key=True),
    Column("thread_id", Text, nullable=False, index=True),
    Column("created_at", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("fields", JSON, nullable=False),  # the rest, by Chainlit's names
)

elements = Table(
    "page_elements",
    schema,
    Column("id", Text, primary_key=True),
    Column("thread_id", Text, nullable=False, index=True),
    Column("step_id", Text, index=True),
    Column("fields", JSON, nullable=False),
)

feedbacks = Table(
    "page_feedbacks",
    schema,
    Column("step_id", Text, primary_key=True),  # one a step
    Column("thread_id", Text, nullable=False, index=True),
    Column("id", Text, nullable=False, unique=True),
    Column("value", Integer, nullable=False),
    Column("comment", Text),
)

OF_THREAD = (feedbacks, elements, steps)  # rows that go with their thread
