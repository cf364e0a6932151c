"""Who has past chats."""

import time
import uuid

from chainlit.user import PersistedUser, User
from chainlit.utils import timestamp_utc
from sqlalchemy import RowMapping, select, update

from smartstore_ui.chat.database import Database
from smartstore_ui.chat.retention import Retention
from smartstore_ui.chat.rows import checked_id, is_id, kept_fields
from smartstore_ui.chat.tables import users


class People:
    """The users in an open database."""

    def __init__(self, database: Database, retention: Retention) -> None:
        """Use a database, and note there who still comes."""
        self._database = database
        self._retention = retention

    async def find(self, identifier: str) -> PersistedUser | None:
        """Return a user, None when unknown; StoreUnavailable when the database does not answer."""
        if not is_id(identifier):
            return None
        async with self._database.use() as connection:
            found = await connection.execute(select(users).where(users.c.identifier == identifier))
            row = found.mappings().first()
            if row and self._retention.fades(row["used_at"]):
                await connection.execute(update(users).where(users.c.id == row["id"]).values(used_at=time.time()))
        return _user_of(row) if row else None

    async def welcome(self, user: User) -> PersistedUser:
        """Return the user who signs in, made where there is none.

        Raises:
            InvalidRequest: the identifier can be none, or the metadata is too large.
            StoreUnavailable: the database does not answer.
        """
        now = time.time()
        row = self._database.insert(users).values(
            id=str(uuid.uuid4()),
            identifier=checked_id(user.identifier),
            created_at=timestamp_utc(now),
            used_at=now,
            details=kept_fields(user.metadata),
        )
        renewed = {"used_at": row.excluded.used_at, "details": row.excluded.details}
        saved = row.on_conflict_do_update(index_elements=[users.c.identifier], set_=renewed).returning(users)
        async with self._database.use() as connection:
            return _user_of((await connection.execute(saved)).mappings().one())


def _user_of(row: RowMapping) -> PersistedUser:
    return PersistedUser(
        id=row["id"], identifier=row["identifier"], createdAt=row["created_at"], metadata=row["details"]
    )
