import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smartstore_indexing.errors import StoreUnavailable
from smartstore_workflows.events import Turn
from smartstore_workflows.memory import DAY_SECONDS, ConversationStore

APPENDS = """
import asyncio, sys
from pathlib import Path
from smartstore_workflows.events import Turn
from smartstore_workflows.memory import ConversationStore

async def main():
    store = await ConversationStore.open(Path(sys.argv[1]), max_turns=100_000, days=3)
    for number in range(100_000):
        text = f"질문 {number} " + "가" * 2_000
        await store.append("여기", Turn(question=text, standalone=text, answer=text, kind="answered"))
        print(number, flush=True)

asyncio.run(main())
"""


def turn(question: str) -> Turn:
    return Turn(
        question=question,
        standalone=f"{question} 혼자",
        answer="답변입니다.\n\n- 하나 [1]",
        kind="answered",
        faq_ids=("a", "b"),
        offered=("c",),
    )


@asynccontextmanager
async def opened(path: Path, *, max_turns: int = 20, days: float = 3.0) -> AsyncIterator[ConversationStore]:
    store = await ConversationStore.open(path, max_turns=max_turns, days=days)
    try:
        yield store
    finally:
        await store.close()


async def questions(store: ConversationStore, session_id: str) -> list[str]:
    return [found.question for found in await store.turns(session_id)]


def change(path: Path, statement: str, *values: object) -> None:
    """Write to the file through a connection of the test's own."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def age(path: Path, days: float) -> None:
    change(path, "UPDATE turns SET used_at = used_at - ?", days * DAY_SECONDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "conversations.sqlite3"


async def test_turns_come_back_whole_and_oldest_first(path: Path) -> None:
    given_turns = [turn(f"질문 {number}") for number in range(5)]
    async with opened(path) as store:
        for given_turn in given_turns:
            await store.append("여기", given_turn)
        assert await store.turns("여기") == given_turns


async def test_unknown_session_has_no_turns(path: Path) -> None:
    async with opened(path) as store:
        assert await store.turns("없음") == []


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_text_comes_back_as_it_was(tmp_path: Path, question: str, session_id: str) -> None:
    async def round_trip() -> list[Turn]:
        async with opened(tmp_path / "any.sqlite3") as store:
            await store.forget(session_id)
            await store.append(session_id, turn(question))
            return await store.turns(session_id)

    with asyncio.Runner() as runner:
        assert runner.run(round_trip()) == [turn(question)]


@pytest.mark.parametrize("bound", [1, 2, 5])
async def test_oldest_turns_go_when_the_bound_is_reached(path: Path, bound: int) -> None:
    async with opened(path, max_turns=bound) as store:
        for number in range(7):
            await store.append("여기", turn(str(number)))
            await store.append("저기", turn(f"저기 {number}"))
        assert await questions(store, "여기") == [str(number) for number in range(7)][-bound:]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM turns").fetchone() == (2 * bound,)


async def test_conversation_survives_reopening(path: Path) -> None:
    async with opened(path) as store:
        await store.append("여기", turn("처음"))
    async with opened(path) as store:
        await store.append("여기", turn("다음"))
        assert await questions(store, "여기") == ["처음", "다음"]


async def test_conversation_ends_when_it_was_not_used_for_its_days(path: Path) -> None:
    async with opened(path, days=3) as store:
        await store.append("여기", turn("오래된 질문"))
        age(path, 2.9)
        assert await questions(store, "여기") == ["오래된 질문"]
        age(path, 0.2)
        assert await questions(store, "여기") == []


async def test_use_renews_the_life_of_the_whole_conversation(path: Path) -> None:
    async with opened(path, days=3) as store:
        await store.append("여기", turn("처음"))
        await store.append("저기", turn("잊힐 질문"))
        age(path, 2)
        await store.append("여기", turn("다음"))
        age(path, 2)
        assert await questions(store, "여기") == ["처음", "다음"]
        assert await questions(store, "저기") == []


async def test_opening_deletes_what_is_too_old(path: Path) -> None:
    async with opened(path, days=3) as store:
        await store.append("옛날", turn("옛 질문"))
        age(path, 4)
        await store.append("지금", turn("새 질문"))
    async with opened(path, days=3):
        pass
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT session_id FROM turns").fetchall() == [("지금",)]


async def test_forgetting_takes_one_session_and_leaves_the_others(path: Path) -> None:
    async with opened(path) as store:
        await store.append("여기", turn("잊을 질문"))
        await store.append("저기", turn("남을 질문"))
        await store.forget("여기")
        await store.forget("모르는 대화")
        assert await questions(store, "여기") == []
        assert await questions(store, "저기") == ["남을 질문"]


async def test_concurrent_appends_to_one_session_are_all_kept_whole(path: Path) -> None:
    given_turns = [turn(f"{number} " + "가" * 3_000) for number in range(20)]
    async with opened(path) as store:
        await asyncio.gather(*(store.append("여기", given_turn) for given_turn in given_turns))
        found = await store.turns("여기")
    assert sorted(found, key=lambda kept: int(kept.question.split()[0])) == given_turns


async def test_two_open_stores_share_a_file(path: Path) -> None:
    async with opened(path) as first, opened(path) as second:
        await asyncio.gather(*(store.append("여기", turn("질문")) for store in (first, second) * 5))
        assert len(await first.turns("여기")) == len(await second.turns("여기")) == 10


async def test_many_sessions_never_mix(path: Path) -> None:
    names = [f"대화 {number}" for number in range(30)]
    async with opened(path, max_turns=3) as store:
        await asyncio.gather(*(store.append(name, turn(f"{name}의 {number}")) for number in range(3) for name in names))
        for name in names:
            assert sorted(await questions(store, name)) == [f"{name}의 {number}" for number in range(3)]


async def test_name_of_a_session_is_text_and_no_sql(path: Path) -> None:
    async with opened(path) as store:
        await store.append("여기", turn("질문"))
        await store.forget("' OR '1'='1")
        assert await store.turns("%") == []
        assert await questions(store, "여기") == ["질문"]


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
        await ConversationStore.open(paths[where], max_turns=20, days=3)


@pytest.mark.parametrize(
    "content", [b"this is no database" * 100, b"SQLite format 3\x00" + b"\xff" * 4096], ids=["text", "broken header"]
)
def test_corrupt_file_is_store_unavailable_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with asyncio.Runner() as runner, pytest.raises(StoreUnavailable):
        runner.run(ConversationStore.open(path, max_turns=20, days=3))
    assert path.read_bytes() == content


async def test_file_of_another_program_is_store_unavailable(path: Path) -> None:
    change(path, "CREATE TABLE turns (something TEXT)")
    with pytest.raises(StoreUnavailable):
        await ConversationStore.open(path, max_turns=20, days=3)


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


@pytest.mark.parametrize("stored", ["", "no JSON", "{}", '{"question": "반만'], ids=["empty", "text", "object", "cut"])
async def test_broken_turn_is_left_out_and_the_conversation_goes_on(path: Path, stored: str) -> None:
    async with opened(path) as store:
        await store.append("여기", turn("앞"))
        change(path, "INSERT INTO turns (session_id, used_at, turn) VALUES (?, ?, ?)", "여기", time.time(), stored)
        await store.append("여기", turn("뒤"))
        assert await questions(store, "여기") == ["앞", "뒤"]


async def test_failed_append_leaves_the_conversation_as_it_was(path: Path) -> None:
    async with opened(path, max_turns=2) as store:
        await store.append("여기", turn("처음"))
        change(path, "CREATE TRIGGER refuse BEFORE UPDATE ON turns BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(StoreUnavailable):
            await store.append("여기", turn("다음"))
        change(path, "DROP TRIGGER refuse")
        assert await questions(store, "여기") == ["처음"]
        await store.append("여기", turn("다음"))
        assert await questions(store, "여기") == ["처음", "다음"]


async def test_cancelled_append_is_kept_whole_or_not_at_all(path: Path) -> None:
    async with opened(path) as store:
        task = asyncio.ensure_future(store.append("여기", turn("질문")))
        await asyncio.wait({task}, timeout=0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.append("여기", turn("다음"))
        assert await store.turns("여기") in ([turn("다음")], [turn("질문"), turn("다음")])
