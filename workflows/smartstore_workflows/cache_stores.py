"""Where answers that may be given again are kept: in the local SQLite file, or in the Redis that processes share.

Redis holds each answer under its name, the names of a scope's answers by their first FAQ, and all names by their age.
A name may outlive its answer, which is then not found.
"""

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Self, cast

import numpy as np
import structlog
from pydantic import ValidationError

from smartstore_indexing.errors import StoreUnavailable
from smartstore_indexing.faq import digest
from smartstore_workflows.caching import MOST_ALIKE, AnswerKey
from smartstore_workflows.events import RememberedAnswer
from smartstore_workflows.memory import DAY_SECONDS
from smartstore_workflows.redis_server import RedisServer
from smartstore_workflows.sqlite import SqliteFile

log = structlog.get_logger(__name__)
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS answers (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        index_version TEXT NOT NULL,
        scope TEXT NOT NULL,
        faq_id TEXT NOT NULL,
        written_at REAL NOT NULL,
        answer TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS answers_by_faq ON answers (scope, faq_id)",
    "CREATE INDEX IF NOT EXISTS answers_by_age ON answers (written_at)",
)
READ_AT_ONCE = 500  # answers, of 2 to 5 KB
ANSWER, ALIKE, NAMES, VECTOR = "answer", "answers-of", "answers", "vector"
# KEYS: the answer, its FAQ's names, all names. ARGV: the answer, its name, its life in ms, now, how many are kept, how
# many of an FAQ, and what stands before an answer's name in its key.
PUT = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[2])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
local over = redis.call('ZCARD', KEYS[3]) - ARGV[5]
if over > 0 then
    local oldest = redis.call('ZPOPMIN', KEYS[3], over)
    for i = 1, #oldest, 2 do redis.call('DEL', ARGV[7] .. oldest[i]) end
end
"""


class SqliteAnswers:
    """Answers in a local file; what each method returns and raises is told by `caching.AnswerStore`."""

    def __init__(self, file: SqliteFile, *, most: int, days: float) -> None:
        """Use an open file; `open` makes its table first."""
        self._file = file
        self._most = most
        self._life = days * DAY_SECONDS

    @classmethod
    async def open(cls, file: SqliteFile, *, most: int, days: float) -> Self:
        """Make the table where there is none; StoreUnavailable when the file cannot be used."""

        def prepare(connection: sqlite3.Connection) -> None:
            for statement in SCHEMA:
                connection.execute(statement)

        await file.write(prepare)
        return cls(file, most=most, days=days)

    async def get(self, key: AnswerKey) -> RememberedAnswer | None:
        """Return the answer that is kept under a key, None where there is none, or a broken or too old one."""
        select = "SELECT answer FROM answers WHERE name = ? AND written_at >= ?"
        values = (key.name, self._oldest())
        row = await self._file.read(lambda connection: connection.execute(select, values).fetchone())
        return _answer(row[0]) if row else None

    async def backed_by(self, scope: str, faq_ids: Sequence[str], *, limit: int) -> list[RememberedAnswer]:
        """Return at most `limit` answers of a scope whose first FAQ is one of these, the newest first."""
        select = (
            f"SELECT answer FROM answers WHERE scope = ? AND faq_id IN ({', '.join('?' * len(faq_ids))}) "  # noqa: S608
            "AND written_at >= ? ORDER BY number DESC LIMIT ?"
        )
        values = (scope, *faq_ids, self._oldest(), limit)
        rows = await self._file.read(lambda connection: connection.execute(select, values).fetchall())
        return _answers(text for (text,) in rows)

    async def put(self, key: AnswerKey, answer: RememberedAnswer) -> None:
        """Keep an answer, and drop those of other index versions, what is too old, and the oldest beyond the bound."""
        values = (key.name, key.index_version, key.scope, faq_of(answer), time.time(), answer.model_dump_json())

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "REPLACE INTO answers (name, index_version, scope, faq_id, written_at, answer) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                values,
            )
            connection.execute(
                "DELETE FROM answers WHERE index_version != ? OR written_at < ? "
                "OR number <= (SELECT max(number) FROM answers) - ?",
                (key.index_version, self._oldest(), self._most),
            )

        await self._file.write(write)

    async def forget(self, questions: Collection[str]) -> None:
        """Delete the answers that were written for these questions, word for word."""
        delete = (
            "DELETE FROM answers WHERE CASE WHEN json_valid(answer) THEN json_extract(answer, '$.question') END = ?"
        )
        rows = [(question,) for question in questions]
        await self._file.write(lambda connection: connection.executemany(delete, rows))

    def _oldest(self) -> float:
        return time.time() - self._life


class RedisAnswers:
    """Answers in Redis; what each method returns and raises is told by `caching.AnswerStore`."""

    def __init__(self, server: RedisServer, *, most: int, days: float) -> None:
        """Use a server; whoever opened it closes it."""
        self._server = server
        self._most = most
        self._life_ms = round(days * DAY_SECONDS * 1_000)

    async def get(self, key: AnswerKey) -> RememberedAnswer | None:
        """Return the answer that is kept under a key, None where there is none, or a broken or too old one."""
        async with self._server.use() as client:
            text = await client.get(self._server.key(ANSWER, key.name))
        return _answer(text) if text else None

    async def backed_by(self, scope: str, faq_ids: Sequence[str], *, limit: int) -> list[RememberedAnswer]:
        """Return at most `limit` answers of a scope whose first FAQ is one of these, the newest first."""
        async with self._server.use() as client:
            async with client.pipeline(transaction=False) as pipe:
                for faq_id in faq_ids:
                    pipe.zrevrange(self._server.key(ALIKE, scope, faq_id), 0, limit - 1, withscores=True)
                found = cast("list[tuple[bytes, float]]", chain.from_iterable(await pipe.execute()))
            names = [name.decode() for name, _ in sorted(found, key=lambda named: -named[1])[:limit]]
            texts = await client.mget([self._server.key(ANSWER, name) for name in names]) if names else []
        return _answers(text for text in texts if text)

    async def put(self, key: AnswerKey, answer: RememberedAnswer) -> None:
        """Keep an answer, and drop the oldest beyond the bound; each goes by itself when it is too old."""
        keys = (
            self._server.key(ANSWER, key.name),
            self._server.key(ALIKE, key.scope, faq_of(answer)),
            self._server.key(NAMES),
        )
        values = (answer.model_dump_json(), key.name, self._life_ms, repr(time.time()), self._most, MOST_ALIKE)
        async with self._server.use() as client:
            await client.eval(PUT, 3, *keys, *map(str, values), self._server.key(ANSWER, ""))

    async def forget(self, questions: Collection[str]) -> None:
        """Delete the answers that were written for these questions, word for word."""
        async with self._server.use() as client:
            names = cast("list[bytes]", await client.zrange(self._server.key(NAMES), 0, -1))
            keys = [self._server.key(ANSWER, name.decode()) for name in names]
            for few in batched(keys, READ_AT_ONCE):
                texts = await client.mget(few)
                found = ((key, _answer(text)) for key, text in zip(few, texts, strict=True) if text)
                if gone := [key for key, answer in found if answer and answer.question in questions]:
                    await client.delete(*gone)


class RedisVectors:
    """The vectors of questions in Redis, as float32 bytes; what embedding.SharedVectors asks for."""

    def __init__(self, server: RedisServer, *, embedder: str, dimensions: int, days: float) -> None:
        """Use a server; vectors of another embedder, which is named, stay apart. 0 `dimensions` are not known."""
        self._server = server
        self._embedder = embedder
        self._bytes = dimensions * np.dtype(np.float32).itemsize
        self._life_ms = round(days * DAY_SECONDS * 1_000)

    async def get(self, questions: Sequence[str]) -> list[np.ndarray | None]:
        """Return each question's vector, float32, None where none is kept, or all None when Redis is away."""
        try:
            async with self._server.use() as client:
                found = cast("list[bytes | None]", await client.mget([self._key(question) for question in questions]))
        except StoreUnavailable as error:
            log.warning("cached vectors not read", code=error.code)
            return [None] * len(questions)
        return [np.frombuffer(held, np.float32) if held and self._is_whole(held) else None for held in found]

    async def put(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep the vectors of questions; nothing is kept when Redis is away."""
        try:
            async with self._server.use() as client, client.pipeline(transaction=False) as pipe:
                for question, vector in vectors.items():
                    pipe.set(self._key(question), vector.astype(np.float32).tobytes(), px=self._life_ms)
                await pipe.execute()
        except StoreUnavailable as error:
            log.warning("vectors not cached", code=error.code)

    def _is_whole(self, held: bytes) -> bool:
        return len(held) == self._bytes if self._bytes else not len(held) % np.dtype(np.float32).itemsize

    def _key(self, question: str) -> str:
        return self._server.key(VECTOR, digest(self._embedder, question))


def batched(keys: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Yield the keys, so many at a time."""
    return (keys[place : place + size] for place in range(0, len(keys), size))


def faq_of(answer: RememberedAnswer) -> str:
    """Return the FAQ that an answer is found by: the first that was found for its question."""
    return answer.passages[0].faq_id


def _answers(texts: Iterable[str | bytes]) -> list[RememberedAnswer]:
    return [answer for text in texts if (answer := _answer(text)) is not None]


def _answer(text: str | bytes) -> RememberedAnswer | None:
    try:
        return RememberedAnswer.model_validate_json(text)
    except ValidationError:  # it is written anew when it is asked for
        log.warning("cached answer not readable")
        return None
