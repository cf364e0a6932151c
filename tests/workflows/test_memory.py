"""Conversations in a local file: what it survives, what it says when it cannot be used, and the files of version 0.1.

What every store of conversations does is tested in tests/contract/test_conversations.py.
"""

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from smartstore_indexing.errors import StoreUnavailable
from smartstore_workflows.events import Turn
from smartstore_workflows.memory import DAY_SECONDS, SqliteConversations, trimmed
from smartstore_workflows.sqlite import SqliteFile
from smartstore_workflows.tokens import estimated_tokens

APPENDS = """
import asyncio, sys
from pathlib import Path
from smartstore_workflows.events import Turn
from smartstore_workflows.memory import SqliteConversations
from smartstore_workflows.sqlite import SqliteFile

async def main():
    file = await SqliteFile.open(Path(sys.argv[1]))
    store = await SqliteConversations.open(file, max_turns=100_000, max_tokens=3_000, days=3)
    for number in range(100_000):
        text = f"질문 {number} " + "가" * 2_000
        await store.append("여기", Turn(question=text, standalone=text, answer=text, kind="answered"))
        print(number, flush=True)

asyncio.run(main())
"""
# As version 0.1 made it.
OLD_SCHEMA = """
CREATE TABLE IF NOT EXISTS turns (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL,
    used_at REAL NOT NULL,
    turn TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS turns_of_session ON turns (session_id, number);
CREATE INDEX IF NOT EXISTS turns_by_use ON turns (used_at);
"""


def turn(question: str, answer: str = "답변입니다.") -> Turn:
    return Turn(question=question, standalone=f"{question} 혼자", answer=answer, kind="answered", faq_ids=("a", "b"))


@asynccontextmanager
async def opened(path: Path, *, max_turns: int = 20) -> AsyncIterator[SqliteConversations]:
    file = await SqliteFile.open(path)
    try:
        yield await SqliteConversations.open(file, max_turns=max_turns, max_tokens=100_000_000, days=3)
    finally:
        await file.close()


async def questions(store: SqliteConversations, session_id: str) -> list[str]:
    return [found.question for found in await store.turns(session_id)]


def change(path: Path, statement: str, *values: object) -> None:
    """Write to the file through a connection of the test's own."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def rows(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "conversations.sqlite3"


@pytest.fixture
def old_file(path: Path) -> Path:
    """Return a file of version 0.1 with two conversations, one of them too old."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(OLD_SCHEMA)
        now = time.time()
        stored = [
            ("여기", now - 20, turn("처음")),
            ("옛날", now - 4 * DAY_SECONDS, turn("옛")),
            ("여기", now, turn("다음")),
        ]
        connection.executemany(
            "INSERT INTO turns (session_id, used_at, turn) VALUES (?, ?, ?)",
            [(session_id, used_at, told.model_dump_json()) for session_id, used_at, told in stored],
        )
    return path


async def test_file_of_version_0_1_is_read_and_gone_on_with(old_file: Path) -> None:
    for _ in range(2):
        async with opened(old_file) as store:
            assert await store.turns("여기") == [turn("처음"), turn("다음")]
            assert [(told.session_id, told.turns) for told in await store.sessions(limit=9)] == [("여기", 2)]
            assert await store.known("여기")
            assert not await store.known("옛날")
    async with opened(old_file) as store:
        await store.append("여기", turn("지금"))
        assert await questions(store, "여기") == ["처음", "다음", "지금"]
        assert await store.forget("여기")
    assert rows(old_file, "SELECT * FROM turns") == []


async def test_what_version_0_1_wrote_meanwhile_is_found(path: Path) -> None:
    async with opened(path) as store:
        await store.append("여기", turn("질문"))
    change(
        path,
        "INSERT INTO turns (session_id, used_at, turn) VALUES ('저기', ?, ?)",
        time.time(),
        turn("옛 프로그램의 질문").model_dump_json(),
    )
    async with opened(path) as store:
        assert await questions(store, "저기") == ["옛 프로그램의 질문"]
        assert await questions(store, "여기") == ["질문"]


async def test_opening_deletes_what_is_too_old(path: Path) -> None:
    async with opened(path) as store:
        await store.append("옛날", turn("옛 질문"))
        change(path, "UPDATE sessions SET used_at = used_at - ?", 4 * DAY_SECONDS)
    async with opened(path):
        pass
    assert rows(path, "SELECT count(*) FROM turns UNION ALL SELECT count(*) FROM sessions") == [(0,), (0,)]


async def test_use_deletes_what_became_too_old_while_open(path: Path) -> None:
    async with opened(path) as store:
        await store.append("옛날", turn("옛 질문"))
        change(path, "UPDATE sessions SET used_at = used_at - ?", 4 * DAY_SECONDS)
        await store.begin("지금")
        assert rows(path, "SELECT session_id FROM sessions") == [("지금",)]
        assert rows(path, "SELECT * FROM turns") == []


async def test_two_open_stores_share_a_file(path: Path) -> None:
    async with opened(path) as first, opened(path) as second:
        await asyncio.gather(*(store.append("여기", turn("질문")) for store in (first, second) * 5))
        assert len(await first.turns("여기")) == len(await second.turns("여기")) == 10


def test_killed_process_loses_no_finished_turn(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", APPENDS, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        finished = [int(process.stdout.readline()) for _ in range(30)]
        process.kill()
        finished += [int(line) for line in process.stdout.read().splitlines()]

    async def kept() -> list[str]:
        async with opened(path, max_turns=100_000) as store:
            await store.append("여기", turn("다시 열린 뒤의 질문"))
            return await questions(store, "여기")

    with asyncio.Runner() as runner:
        found = runner.run(kept())
    numbers = [int(question.split()[1]) for question in found[:-1]]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) in (len(finished), len(finished) + 1)  # the one being written may have been finished unsaid
    assert found[-1] == "다시 열린 뒤의 질문"


@pytest.mark.parametrize("where", ["no folder", "a folder", "below a file"])
async def test_path_that_cannot_be_written_is_store_unavailable(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    paths = {"no folder": tmp_path / "none" / "c", "a folder": tmp_path, "below a file": tmp_path / "file" / "c"}
    with pytest.raises(StoreUnavailable, match="권한"):
        await SqliteFile.open(paths[where])


@pytest.mark.parametrize(
    "content", [b"this is no database" * 100, b"SQLite format 3\x00" + b"\xff" * 4096], ids=["text", "broken header"]
)
def test_corrupt_file_is_store_unavailable_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with asyncio.Runner() as runner, pytest.raises(StoreUnavailable):
        runner.run(SqliteFile.open(path))
    assert path.read_bytes() == content


async def test_file_of_another_program_is_store_unavailable_and_left_alone(path: Path) -> None:
    change(path, "CREATE TABLE turns (something TEXT)")
    with pytest.raises(StoreUnavailable):
        async with opened(path):
            pass
    assert rows(path, "SELECT name FROM sqlite_master") == [("turns",)]


async def test_file_that_breaks_while_open_is_store_unavailable(path: Path) -> None:
    async with opened(path) as store:
        await store.append("여기", turn("질문"))
        change(path, "DROP TABLE turns")
        with pytest.raises(StoreUnavailable):
            await store.turns("여기")
        with pytest.raises(StoreUnavailable):
            await store.append("여기", turn("질문"))
        with pytest.raises(StoreUnavailable):
            await store.forget("여기")


async def test_use_after_closing_is_store_unavailable(path: Path) -> None:
    async with opened(path) as store:
        pass
    with pytest.raises(StoreUnavailable):
        await store.turns("여기")
    with pytest.raises(StoreUnavailable):
        await store.append("여기", turn("질문"))


async def test_closing_waits_for_what_was_begun(path: Path) -> None:
    file = await SqliteFile.open(path)
    store = await SqliteConversations.open(file, max_turns=20, max_tokens=3_000, days=3)
    appended = asyncio.ensure_future(store.append("여기", turn("질문")))
    await asyncio.sleep(0)
    await file.close()
    await file.close()
    await appended
    async with opened(path) as again:
        assert await questions(again, "여기") == ["질문"]


@pytest.mark.parametrize(
    ("answers", "max_tokens", "left"),
    [
        ([10, 10, 10], 1_000, 3),
        ([10, 10, 10], 60, 3),
        ([10, 10, 10], 59, 2),
        ([500, 10], 100, 1),
        ([10, 500], 100, 1),
        ([10, 60, 10], 50, 1),
        ([], 100, 0),
    ],
    ids=["room for all", "just enough", "one too few", "long old one", "long new one", "no gaps", "none"],
)
def test_trimming_keeps_the_newest_turns_in_a_row(answers: list[int], max_tokens: int, left: int) -> None:
    turns = [turn("질문", "가" * characters) for characters in answers]
    assert trimmed(turns, max_tokens) == turns[len(turns) - left :]


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("가", 1), ("가나다", 3), ("abc", 1), ("abcd", 2), ("\ud800", 1)], ids=repr
)
def test_tokens_are_estimated_from_above(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens


async def test_failed_append_leaves_the_conversation_as_it_was(path: Path) -> None:
    async with opened(path, max_turns=2) as store:
        await store.append("여기", turn("0"))
        await store.append("여기", turn("처음"))
        change(path, "CREATE TRIGGER refuse BEFORE DELETE ON turns BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(StoreUnavailable):
            await store.append("여기", turn("다음"))
        change(path, "DROP TRIGGER refuse")
        assert await questions(store, "여기") == ["0", "처음"]
        await store.append("여기", turn("다음"))
        assert await questions(store, "여기") == ["처음", "다음"]
