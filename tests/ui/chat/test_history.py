"""The page history as Chainlit uses it, in a SQLite file and in PostgreSQL."""

import asyncio
import re
import signal
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import asyncpg
import chainlit as cl
import chainlit.data
import pytest
from chainlit.context import ChainlitContext, context_var, init_ws_context
from chainlit.element import CustomElement
from chainlit.session import HTTPSession, WebsocketSession
from chainlit.types import Feedback, Pagination, ThreadDict, ThreadFilter
from chainlit.user import PersistedUser, User
from databases import PostgresProcess
from sqlalchemy import func, select, update
from structlog.testing import capture_logs

from smartstore_indexing.errors import Conflict, InvalidRequest, Misconfigured, StoreUnavailable, UnknownResource
from smartstore_ui.chat.database import Database
from smartstore_ui.chat.history import PageHistory
from smartstore_ui.chat.tables import elements, feedbacks, steps, threads, users

DAYS = 30.0
PHONE = "010-1234-5678"
LONG = "가" * 20_000
IMPOSSIBLE_IDS: list[Any] = ["", "가" * 201, "a\0b", "\ud800", 7, None, {}]
HOSTILE_IDS: list[Any] = [*IMPOSSIBLE_IDS, "'; DROP TABLE page_threads; --", "%"]
HOSTILE_TEXTS = {
    "control": "\0\ud800글",
    "sql": "'); DROP TABLE page_steps; --",
    "json": '{"$ne": 1}',
    "format": "%s :id {0}",
}


@dataclass
class RunRatings:
    """The bot's ratings: runs that it knows, and their thumbs."""

    known: set[str] = field(default_factory=lambda: {"run"})
    thumbs: dict[str, tuple[int, str | None]] = field(default_factory=dict)

    async def rate(self, run_id: str, score: Literal[1, -1], comment: str | None) -> None:
        if run_id not in self.known:
            raise UnknownResource("없음")
        self.thumbs[run_id] = (score, comment)

    async def unrate(self, run_id: str) -> None:
        if run_id not in self.known:
            raise UnknownResource("없음")
        self.thumbs.pop(run_id, None)


@dataclass
class World:
    """An empty database and the bot beside it."""

    url: str
    ratings: RunRatings = field(default_factory=RunRatings)
    forgotten: list[str] = field(default_factory=list)
    forgets: bool = True

    async def forget(self, session_id: str) -> bool:
        if not self.forgets:
            raise StoreUnavailable("대화 저장소가 응답하지 않습니다.")
        self.forgotten.append(session_id)
        return True

    @asynccontextmanager
    async def open(self, *, days: float = DAYS) -> AsyncIterator[PageHistory]:
        history = await PageHistory.open(self.url, ratings=self.ratings, forget=self.forget, days=days)
        try:
            yield history
        finally:
            await history.close()

    async def change(self, *statements: Any) -> None:
        """Write to the database through a connection of the test's own."""
        async with raw(self.url) as database, database.use() as connection:
            for statement in statements:
                await connection.execute(statement)

    async def count(self, table: Any) -> int:
        async with raw(self.url) as database, database.use() as connection:
            return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())

    async def dump(self) -> str:
        """Return all that is stored, as text."""
        async with raw(self.url) as database, database.use() as connection:
            tables = (users, threads, steps, elements, feedbacks)
            return repr([(await connection.execute(select(table))).all() for table in tables])


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[Database]:
    database = await Database.open(url)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Return an empty world of this test's own."""
    if request.param == "sqlite":
        return World(f"sqlite+aiosqlite:///{tmp_path / 'pages.sqlite3'}")
    server: PostgresProcess = request.getfixturevalue("postgres")
    return World(await server.emptied())


@pytest.fixture
async def history(world: World) -> AsyncIterator[PageHistory]:
    async with world.open() as opened:
        yield opened


@contextmanager
def page(thread_id: str, user: PersistedUser | None = None) -> Iterator[None]:
    """Be on a page where something was said already."""
    session = HTTPSession(id=str(uuid.uuid4()), client_type="webapp", thread_id=thread_id, user=user)
    before = context_var.set(ChainlitContext(session))
    try:
        yield
    finally:
        context_var.reset(before)


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Return as soon as a condition holds; fail when it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        await asyncio.sleep(0.02)


def step(step_id: str = "step", thread_id: str = "thread", **changes: Any) -> Any:
    """Return a message as Chainlit hands it over."""
    message: dict[str, Any] = {
        "id": step_id,
        "threadId": thread_id,
        "parentId": None,
        "createdAt": "2026-01-01T00:00:00.000001Z",
    }
    message |= {
        "name": "챗봇",
        "type": "assistant_message",
        "output": "답변",
        "metadata": {},
        "tags": None,
        "end": None,
    }
    return message | changes


def element(element_id: str = "element", thread_id: str = "thread", **changes: Any) -> CustomElement:
    arguments: dict[str, Any] = {"name": "Card", "for_id": "step", "props": {"n": 1}} | changes
    return CustomElement(id=element_id, thread_id=thread_id, **arguments)


async def add_thread(history: PageHistory, user: PersistedUser, thread_id: str, *said: str, name: str = "제목") -> None:
    """Keep a thread of a user with what was said in it."""
    await history.update_thread(thread_id, name=name, user_id=user.id, tags=["openai"])
    with page(thread_id, user):
        for number, output in enumerate(said):
            await history.create_step(step(f"{thread_id}-{number}", thread_id, output=output))


async def opened(history: PageHistory, thread_id: str = "thread") -> ThreadDict:
    thread = await history.get_thread(thread_id)
    assert thread is not None
    return thread


async def listed(history: PageHistory, user: PersistedUser, *, first: int = 20, **filters: Any) -> list[str]:
    """Return the ids of all pages, one after the other."""
    ids: list[str] = []
    cursor = None
    while True:
        found = await history.list_threads(
            Pagination(first=first, cursor=cursor), ThreadFilter(userId=user.id, **filters)
        )
        ids += [thread["id"] for thread in found.data]
        assert len(found.data) <= first
        if not found.pageInfo.hasNextPage:
            return ids
        cursor = found.pageInfo.endCursor


@pytest.fixture
async def kim(history: PageHistory) -> PersistedUser:
    return await history.create_user(User(identifier="kim"))


@pytest.fixture
async def lee(history: PageHistory) -> PersistedUser:
    return await history.create_user(User(identifier="lee"))


async def test_whole_chat_is_kept_as_chainlit_drives_it(
    history: PageHistory, world: World, kim: PersistedUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chainlit.data, "_data_layer", history)
    monkeypatch.setattr(chainlit.data, "_data_layer_initialized", True)
    sent: list[str] = []

    async def send(event: str, data: object) -> None:
        sent.append(event)

    emit: Any = send  # Chainlit awaits it, though its type says no
    session = WebsocketSession(
        id=str(uuid.uuid4()), socket_id="socket", emit=emit, emit_call=emit, user_env={}, client_type="webapp", user=kim
    )
    before = context_var.set(init_ws_context(session))
    try:
        await cl.Message("안녕하세요, 무엇을 도와드릴까요?").send()
        assert await world.count(threads) == 0  # nobody has said anything
        question: Any = {
            "id": str(uuid.uuid4()),
            "output": "정산은 언제 되나요?",
            "type": "user_message",
            "name": "kim",
        }
        question |= {"createdAt": "2026-01-01T00:00:00Z", "threadId": "", "metadata": {"location": "here"}}
        await cl.context.emitter.process_message({"message": question, "fileReferences": None})
        async with cl.Step(name="on_message", type="run", parent_id=question["id"]) as run:
            run.metadata["run_id"] = "run"
            answer = await cl.Message("").send()
            for token in ("정산은 ", "구매확정 ", "다음 날입니다."):
                await answer.stream_token(token)
            await answer.update()
            await CustomElement(name="Card", props={"sources": [{"n": 1}]}).send(for_id=answer.id)
    finally:
        context_var.reset(before)
        await session.delete()

    async def complete() -> bool:
        thread = await history.get_thread(session.thread_id)
        return thread is not None and len(thread["steps"]) == 4 and bool(thread["elements"]) and bool(thread["name"])

    await eventually(complete)
    thread = await opened(history, session.thread_id)
    assert (thread["name"], thread["userId"], thread["userIdentifier"]) == ("정산은 언제 되나요?", kim.id, "kim")
    assert [said["output"] for said in thread["steps"]] == [
        "안녕하세요, 무엇을 도와드릴까요?",
        "정산은 언제 되나요?",
        "",
        "정산은 구매확정 다음 날입니다.",
    ]
    assert [said["type"] for said in thread["steps"]] == [
        "assistant_message",
        "user_message",
        "run",
        "assistant_message",
    ]
    assert thread["steps"][2]["metadata"] == {"run_id": "run"}
    assert thread["steps"][2]["end"]
    assert thread["steps"][3]["parentId"] == run.id
    (card,) = thread["elements"] or []
    assert (card["type"], card["forId"], card["props"]) == ("custom", answer.id, {"sources": [{"n": 1}]})
    assert "first_interaction" in sent


async def test_racing_writes_of_a_thread_happen_in_the_order_of_the_calls(history: PageHistory) -> None:
    async def race(thread_id: str) -> None:
        with page(thread_id):
            writes = [history.create_step(step(f"{thread_id}-step", thread_id, output="", input="질문"))]
            writes += [
                history.update_step(step(f"{thread_id}-step", thread_id, output=str(number), createdAt=None))
                for number in range(30)
            ]
            writes += [
                history.create_step(step(f"{thread_id}-gone", thread_id)),
                history.delete_step(f"{thread_id}-gone"),
            ]
            tasks = [asyncio.create_task(write) for write in writes]
        await asyncio.gather(*tasks)

    await asyncio.gather(*(race(f"thread-{number}") for number in range(5)))
    for number in range(5):
        (kept,) = (await opened(history, f"thread-{number}"))["steps"]
        assert (kept["output"], kept["input"]) == ("29", "질문")
        assert kept["createdAt"] == "2026-01-01T00:00:00.000001Z"


async def test_later_write_loses_nothing_that_it_does_not_say(history: PageHistory) -> None:
    with page("thread"):
        await history.create_step(
            step(metadata={"run_id": "run"}, input="질문", parentId="eltern", end="2026-01-01T00:00:01Z")
        )
        await history.update_step({"id": "step", "threadId": "thread", "output": "neu", "metadata": {}, "end": None})
    (kept,) = (await opened(history))["steps"]
    assert (kept["output"], kept["input"], kept["parentId"]) == ("neu", "질문", "eltern")
    assert (kept["metadata"], kept["end"], kept["type"]) == (
        {"run_id": "run"},
        "2026-01-01T00:00:01Z",
        "assistant_message",
    )


async def test_step_without_a_time_gets_one(history: PageHistory) -> None:
    with page("thread"):
        await history.create_step(step("erster"))
        await history.update_step(step("ohne Zeit", createdAt=None))
    first, second = (await opened(history))["steps"]
    assert (first["id"], second["id"]) == ("erster", "ohne Zeit")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", second["createdAt"] or "")


async def test_restart_keeps_everything(world: World) -> None:
    async with world.open() as history:
        kim = await history.create_user(User(identifier="kim", metadata={"provider": "google"}))
        await add_thread(history, kim, "thread", "질문", "답변")
        await history.update_thread("thread", metadata={"chat_profile": "openai", "chat_settings": {}})
        with page("thread"):
            await history.update_step(step("thread-1", metadata={"run_id": "run"}, tags=["a", "b"], isError=True))
            await history.create_element(element())
        await history.upsert_feedback(Feedback(forId="thread-1", value=1, threadId="thread"))
        before = await opened(history)
    async with world.open() as history:
        assert await opened(history) == before
        assert await history.get_user("kim") == kim
        assert await listed(history, kim) == ["thread"]
    assert before["metadata"] == {"chat_profile": "openai", "chat_settings": {}}
    assert before["tags"] == ["openai"]
    assert before["steps"][1]["tags"] == ["a", "b"]
    assert before["steps"][1]["isError"] is True


async def test_metadata_is_merged_and_none_takes_away(history: PageHistory, kim: PersistedUser) -> None:
    await add_thread(history, kim, "thread")
    await history.update_thread("thread", metadata={"a": 1, "b": [2]})
    await history.update_thread("thread", metadata={"a": None, "c": {"d": "e"}})
    await history.update_thread("thread", name="새 제목")
    thread = await opened(history)
    assert (thread["metadata"], thread["name"], thread["userId"]) == ({"b": [2], "c": {"d": "e"}}, "새 제목", kim.id)


async def test_personal_data_is_masked_in_all_that_is_written(history: PageHistory, world: World) -> None:
    said = f"제 번호는 {PHONE} 입니다"
    kim = await history.create_user(User(identifier="kim", metadata={"phone": PHONE}))
    await history.update_thread("thread", name=said, user_id=kim.id, tags=[said], metadata=None)
    await history.update_thread("thread", metadata={"last": {"question": [said]}})
    with page("thread", kim):
        await history.create_step(
            step(output=said, input=said, name=said, metadata={"run_id": "run", "turn": {"question": said}})
        )
        await history.create_element(element(name=said, props={"sources": [{"text": said}]}))
    await history.upsert_feedback(Feedback(forId="step", value=0, threadId="thread", comment=said))

    assert PHONE not in await world.dump()
    thread = await opened(history)
    assert thread["name"] == thread["steps"][0]["output"] == "제 번호는 [전화번호] 입니다"
    assert (thread["elements"] or [])[0]["props"] == {"sources": [{"text": "제 번호는 [전화번호] 입니다"}]}
    assert world.ratings.thumbs == {"run": (-1, "제 번호는 [전화번호] 입니다")}


async def test_random_ids_are_not_taken_for_personal_data(history: PageHistory) -> None:
    run_id = "a01012345678b01098765432cd4567ef"
    with page("thread"):
        await history.create_step(step(metadata={"run_id": run_id, "said": f"{run_id} {PHONE}"}))
    metadata = (await opened(history))["steps"][0]["metadata"]
    assert metadata["run_id"] == run_id
    assert PHONE not in metadata["said"]


async def test_long_texts_are_cut(history: PageHistory, kim: PersistedUser) -> None:
    await add_thread(history, kim, "thread", LONG + "나", name=LONG)
    thread = await opened(history)
    assert (thread["name"], thread["steps"][0]["output"]) == ("가" * 60, LONG)


async def test_users_never_see_each_others_threads(
    history: PageHistory, kim: PersistedUser, lee: PersistedUser
) -> None:
    await add_thread(history, kim, "kims", "비밀")
    await add_thread(history, lee, "lees", "비밀")
    assert (await listed(history, kim), await listed(history, lee)) == (["kims"], ["lees"])
    assert await listed(history, lee, search="비밀") == ["lees"]
    assert await history.get_thread_author("kims") == "kim"
    assert (await history.list_threads(Pagination(first=20), ThreadFilter())).data == []


async def test_thread_is_neither_taken_over_nor_written_in_by_another(
    history: PageHistory, kim: PersistedUser, lee: PersistedUser
) -> None:
    await add_thread(history, kim, "thread", "질문")
    with pytest.raises(UnknownResource):
        await history.update_thread("thread", name="훔침", user_id=lee.id)
    with page("thread", lee):
        await history.create_step(step("fremd", output="훔침"))
        await history.delete_step("thread-0")
    thread = await opened(history)
    assert (thread["name"], thread["userIdentifier"]) == ("제목", "kim")
    assert [said["output"] for said in thread["steps"]] == ["질문"]


async def test_ids_of_another_thread_are_not_written_over(
    history: PageHistory, kim: PersistedUser, lee: PersistedUser
) -> None:
    await add_thread(history, kim, "kims", "질문")
    with page("kims", kim):
        await history.create_element(element("karte", "kims"))
    with capture_logs() as logs, page("lees", lee):
        await history.update_step(step("kims-0", "lees", output="훔침"))
        await history.create_element(element("karte", "lees", props={"n": 666}))
        await history.delete_step("kims-0")
        await history.delete_element("karte")
    thread = await opened(history, "kims")
    assert [said["output"] for said in thread["steps"]] == ["질문"]
    assert [card["props"] for card in thread["elements"] or []] == [{"n": 1}]
    assert [log["code"] for log in logs] == [Conflict.code, Conflict.code]


async def test_hostile_id_is_an_unknown_one(history: PageHistory, kim: PersistedUser) -> None:
    await add_thread(history, kim, "thread", "질문")
    for hostile in HOSTILE_IDS:
        assert await history.get_thread(hostile) is None
        assert await history.get_thread_author(hostile) == ""
        assert await history.get_element(hostile, hostile) is None
        assert await history.get_user(hostile) is None
        assert await history.delete_feedback(hostile) is False
        if isinstance(hostile, str):  # Chainlit lets no other pass
            with pytest.raises((UnknownResource, InvalidRequest)):
                await history.upsert_feedback(Feedback(forId=hostile, value=1))
    assert await listed(history, kim) == ["thread"]


async def test_write_with_an_impossible_id_is_refused_or_logged(history: PageHistory, world: World) -> None:
    for impossible in IMPOSSIBLE_IDS:
        with capture_logs() as logs, page("thread"):
            await history.create_step(step("step", impossible))
            await history.update_step(step(impossible, "thread"))
            await history.delete_step(impossible)
            await history.delete_element(impossible)
            await history.update_thread(impossible, metadata={})
        assert [log["event"] for log in logs] == ["page history not written"] * 5
        with pytest.raises(InvalidRequest):
            await history.update_thread(impossible, name="제목")
        with pytest.raises(InvalidRequest):
            await history.delete_thread(impossible)
    assert world.forgotten == []
    assert await world.count(steps) == 0


@pytest.mark.parametrize("hostile", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS)
async def test_any_text_can_be_written_and_read(history: PageHistory, kim: PersistedUser, hostile: str) -> None:
    await add_thread(history, kim, "thread", hostile, name=hostile)
    with page("thread", kim):
        await history.create_element(element(name=hostile, props={hostile: hostile, "n": float("nan")}))
    visible = hostile.replace("\0", "").replace("\ud800", "")
    thread = await opened(history)
    assert (thread["name"], thread["steps"][0]["output"]) == (visible, visible)
    assert (thread["elements"] or [])[0]["props"] == {visible: visible, "n": None}
    assert await listed(history, kim, search=hostile) == ["thread"]


async def test_data_that_is_too_large_or_too_deep_is_not_kept(history: PageHistory, world: World) -> None:
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"in": deep}
    with capture_logs() as logs, page("thread"):
        await history.create_element(element(props={"text": "가" * 100_000}))
        await history.create_step(step(metadata=deep))
        await history.create_step(step(output="그래도"))
    assert [log["code"] for log in logs] == [InvalidRequest.code] * 2
    assert (await world.count(elements), await world.count(steps)) == (0, 1)


async def test_search_finds_what_was_said_or_named_and_takes_no_sign_for_a_pattern(
    history: PageHistory, kim: PersistedUser
) -> None:
    await add_thread(history, kim, "a", "수수료 10% 인가요?", name="수수료")
    await add_thread(history, kim, "b", "100원 단위_절사", name="It's A Name")
    with page("b", kim):
        await history.create_step(step("b-tool", "b", type="tool", output="도구의 말"))
    found = {
        words: await listed(history, kim, search=words)
        for words in ("%", "_", "10%", "it's a", "수수료", "도구", "'", "/")
    }
    assert found == {
        "%": ["a"],
        "_": ["b"],
        "10%": ["a"],
        "it's a": ["b"],
        "수수료": ["a"],
        "도구": [],
        "'": ["b"],
        "/": [],
    }
    assert await listed(history, kim, search="가" * 10_000) == []
    assert await listed(history, kim, search="%" * 10_000) == []
    assert await listed(history, kim, search=" \0 ") == ["b", "a"]


async def test_sixty_threads_come_page_by_page_the_last_active_first(history: PageHistory, kim: PersistedUser) -> None:
    ids = [f"thread-{number}" for number in range(60)]
    for thread_id in ids:
        await add_thread(history, kim, thread_id)
    with page("thread-7", kim):
        await history.create_step(step("neu", "thread-7"))
    await history.update_thread("thread-3", name="이름을 바꿔도 자리는 그대로")
    expected = ["thread-7", *(thread_id for thread_id in reversed(ids) if thread_id != "thread-7")]
    assert await listed(history, kim, first=20) == expected
    assert await listed(history, kim, first=7) == expected
    assert len((await history.list_threads(Pagination(first=-1), ThreadFilter(userId=kim.id))).data) == 1
    whole = await history.list_threads(Pagination(first=10_000), ThreadFilter(userId=kim.id))
    times = [thread["createdAt"] for thread in whole.data]
    assert times == sorted(times, reverse=True)
    assert all(thread["steps"] == [] for thread in whole.data)


async def test_page_goes_on_after_a_thread_that_was_deleted_meanwhile(history: PageHistory, kim: PersistedUser) -> None:
    for thread_id in "abcd":
        await add_thread(history, kim, thread_id)
    first = await history.list_threads(Pagination(first=2), ThreadFilter(userId=kim.id))
    assert [thread["id"] for thread in first.data] == ["d", "c"]
    await history.delete_thread("c")
    rest = await history.list_threads(Pagination(first=2, cursor=first.pageInfo.endCursor), ThreadFilter(userId=kim.id))
    assert [thread["id"] for thread in rest.data] == ["b", "a"]
    assert not rest.pageInfo.hasNextPage


async def test_threads_are_filtered_by_feedback(history: PageHistory, world: World, kim: PersistedUser) -> None:
    for thread_id, value in (("gut", 1), ("schlecht", 0), ("ohne", None)):
        await add_thread(history, kim, thread_id)
        with page(thread_id, kim):
            await history.create_step(step(f"{thread_id}-run", thread_id, type="run", metadata={"run_id": "run"}))
        if value is not None:
            await history.upsert_feedback(Feedback(forId=f"{thread_id}-run", value=value, threadId=thread_id))  # type: ignore[arg-type]  # 0 or 1
    assert await listed(history, kim, feedback=1) == ["gut"]
    assert await listed(history, kim, feedback=0) == ["schlecht"]


async def test_thumb_is_joined_with_its_run_replaced_and_taken_back(history: PageHistory, world: World) -> None:
    with page("thread"):
        await history.create_step(step(type="run", metadata={"run_id": "run"}))
    first = await history.upsert_feedback(Feedback(forId="step", value=1, threadId="thread", comment="좋아요"))
    assert world.ratings.thumbs == {"run": (1, "좋아요")}
    second = await history.upsert_feedback(Feedback(forId="step", value=0, threadId="thread", id=first))
    assert first == second
    assert world.ratings.thumbs == {"run": (-1, None)}
    assert (await opened(history))["steps"][0]["feedback"] == {
        "forId": "step",
        "id": first,
        "value": 0,
        "comment": None,
    }
    assert await history.delete_feedback(first)
    assert not await history.delete_feedback(first)
    assert world.ratings.thumbs == {}
    assert (await opened(history))["steps"][0]["feedback"] is None


async def test_thumb_waits_for_the_step_that_is_being_written(history: PageHistory, world: World) -> None:
    with page("thread"):
        writes = [asyncio.create_task(history.create_step(step(f"step-{number}"))) for number in range(20)]
        writes.append(asyncio.create_task(history.update_step(step("step-19", metadata={"run_id": "run"}))))
    await asyncio.sleep(0)  # the tasks have begun, as Chainlit's have when a thumb comes
    assert await history.upsert_feedback(Feedback(forId="step-19", value=1, threadId="thread"))
    await asyncio.gather(*writes)
    assert world.ratings.thumbs == {"run": (1, None)}


@pytest.mark.parametrize(
    "metadata",
    [{}, {"run_id": None}, {"run_id": 7}, {"run_id": "unbekannt"}],
    ids=["none", "null", "number", "unknown"],
)
async def test_step_of_no_known_run_cannot_be_rated(history: PageHistory, metadata: dict[str, Any]) -> None:
    with page("thread"):
        await history.create_step(step(metadata=metadata))
    for step_id in ("step", "unbekannt"):
        with pytest.raises(UnknownResource):
            await history.upsert_feedback(Feedback(forId=step_id, value=1, threadId="thread"))
    assert (await opened(history))["steps"][0]["feedback"] is None


async def test_thumb_goes_when_its_run_has_gone_before(history: PageHistory, world: World) -> None:
    with page("thread"):
        await history.create_step(step(metadata={"run_id": "run"}))
    feedback_id = await history.upsert_feedback(Feedback(forId="step", value=1, threadId="thread"))
    world.ratings.known.clear()
    assert await history.delete_feedback(feedback_id)
    assert (await opened(history))["steps"][0]["feedback"] is None


async def test_deleted_thread_goes_with_all_its_rows_and_the_conversation(
    history: PageHistory, world: World, kim: PersistedUser
) -> None:
    for thread_id in ("weg", "bleibt"):
        await add_thread(history, kim, thread_id, "질문")
        with page(thread_id, kim):
            await history.update_step(step(f"{thread_id}-0", thread_id, metadata={"run_id": "run"}))
            await history.create_element(element(f"{thread_id}-element", thread_id))
        await history.upsert_feedback(Feedback(forId=f"{thread_id}-0", value=1, threadId=thread_id))
    await history.delete_thread("weg")
    assert set(world.forgotten) == {"weg"}
    assert await history.get_thread("weg") is None
    assert await history.get_thread_author("weg") == ""
    assert await listed(history, kim) == ["bleibt"]
    assert [await world.count(table) for table in (steps, elements, feedbacks)] == [1, 1, 1]
    assert "weg-" not in await world.dump()
    await history.delete_thread("weg")


async def test_write_that_comes_late_does_not_bring_a_deleted_thread_back(
    history: PageHistory, world: World, kim: PersistedUser
) -> None:
    await add_thread(history, kim, "thread", "질문")
    await history.delete_thread("thread")
    with capture_logs() as logs, page("thread", kim):
        await history.update_step(step())
        await history.create_element(element())
        await history.update_thread("thread", metadata={"chat_profile": "openai"})
    assert [log["log_level"] for log in logs] == ["debug"] * 3
    with pytest.raises(UnknownResource):
        await history.update_thread("thread", name="제목", user_id=kim.id)
    assert await history.get_thread("thread") is None
    assert [await world.count(table) for table in (steps, elements)] == [0, 0]


async def test_nothing_is_deleted_when_the_conversation_cannot_be_forgotten(
    history: PageHistory, world: World, kim: PersistedUser
) -> None:
    await add_thread(history, kim, "thread", "질문")
    before = await opened(history)
    world.forgets = False
    with pytest.raises(StoreUnavailable):
        await history.delete_thread("thread")
    assert await opened(history) == before


async def test_deleted_step_takes_its_element_and_thumb_along(history: PageHistory, world: World) -> None:
    with page("thread"):
        await history.create_step(step(metadata={"run_id": "run"}))
        await history.create_element(element())
        await history.upsert_feedback(Feedback(forId="step", value=1, threadId="thread"))
        await history.delete_step("step")
    assert [await world.count(table) for table in (steps, elements, feedbacks)] == [0, 0, 0]


async def test_element_is_replaced_read_and_deleted_by_id(history: PageHistory) -> None:
    with page("thread"):
        await history.create_element(element())
        await history.create_element(element(props={"n": 2}))
        found = await history.get_element("thread", "element")
        assert found is not None
        assert (found["props"], found["name"], found["mime"]) == ({"n": 2}, "Card", "application/json")
        assert await history.get_element("anderswo", "element") is None
        await history.delete_element("element")
    assert await history.get_element("thread", "element") is None


async def test_cards_with_long_answers_are_kept_whole(history: PageHistory) -> None:
    cards = [{"n": n, "answer": "정산은 다음 영업일에 됩니다. " * 550} for n in range(5)]
    with page("thread"):
        await history.create_element(element(props={"sources": cards}))
    assert ((await opened(history))["elements"] or [])[0]["props"] == {"sources": cards}


async def test_element_with_a_file_is_not_kept(history: PageHistory, world: World) -> None:
    with page("thread"):
        await history.create_element(cl.Text(name="글", content="내용", thread_id="thread"))
        await history.create_element(element(url="https://example.org/x"))
        await history.create_element(element(path="/etc/hostname"))
    assert await world.count(elements) == 0


async def test_user_is_made_once_and_renewed(history: PageHistory, world: World) -> None:
    assert await history.get_user("kim") is None
    made = await asyncio.gather(*(history.create_user(User(identifier="kim", metadata={"n": 1})) for _ in range(10)))
    assert len({user.id for user in made}) == 1
    assert await world.count(users) == 1
    again = await history.create_user(User(identifier="kim", metadata={"n": 2}))
    found = await history.get_user("kim")
    assert found == again
    assert (found.id, found.metadata, found.createdAt) == (made[0].id, {"n": 2}, made[0].createdAt)


async def test_what_was_unused_for_its_days_is_dropped(world: World) -> None:
    async with world.open() as history:
        old, young = [await history.create_user(User(identifier=name)) for name in ("old", "young")]
        for user in (old, young):
            await add_thread(history, user, user.identifier, "질문")
        await history.create_user(User(identifier="visitor"))
        too_old = time.time() - (DAYS + 1) * 86_400
        await world.change(
            update(threads).where(threads.c.id == "old").values(used_at=too_old), update(users).values(used_at=too_old)
        )
        await history.get_user("young")  # who comes again stays
        await history.delete_thread("young")
    async with world.open() as history:
        assert await history.get_thread("old") is None
        assert await history.get_user("old") is None
        assert await history.get_user("visitor") is None
        assert await history.get_user("young") == young
        assert [await world.count(table) for table in (threads, steps)] == [1, 0]  # the deleted one's id


async def test_many_unused_threads_are_dropped_in_batches(world: World) -> None:
    async with world.open() as history:
        await history.update_thread("bleibt", name="제목")
    rows = [
        {"id": str(number), "created_at": "", "used_at": 0.0, "details": {}, "deleted": False}
        for number in range(1_200)
    ]
    await world.change(threads.insert().values(rows))
    async with world.open():
        assert await world.count(threads) == 1


async def test_page_that_nobody_has_opens_empty(history: PageHistory) -> None:
    assert await history.get_favorite_steps("kim") == []
    assert await history.build_debug_url() == ""
    assert await history.get_thread("unbekannt") is None
    assert await history.get_thread_author("unbekannt") == ""


async def test_two_processes_may_open_an_empty_database_at_once(world: World) -> None:
    opened_both = await asyncio.gather(*(Database.open(world.url) for _ in range(6)))
    for database in opened_both:
        await database.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "no url",
        "mysql://user:geheim@host/db",
        "sqlite+aiosqlite://",
        "sqlite:///:memory:",
        "postgresql://user:geheim@host",
        "postgresql://user:geheim@host:port/db",
        "postgresql://user:geheim@127.0.0.1/db?unknown=1",
    ],
)
async def test_address_that_cannot_be_used_is_misconfigured(url: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        await PageHistory.open(url, ratings=RunRatings(), forget=World("").forget, days=DAYS)
    assert "geheim" not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_address_is_read_as_libpq_reads_it(postgres: PostgresProcess) -> None:
    async with World(
        f"{(await postgres.emptied()).replace('postgresql', 'postgres')}?sslmode=disable"
    ).open() as history:
        assert await history.get_user("kim") is None


@pytest.mark.parametrize("content", [None, b"no database" * 1_000], ids=["folder missing", "no database"])
async def test_file_that_cannot_be_used_is_store_unavailable(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "nowhere" / "pages.sqlite3"
    if content:
        path.parent.mkdir()
        path.write_bytes(content)
    with pytest.raises(StoreUnavailable):
        await Database.open(f"sqlite+aiosqlite:///{path}")


async def unavailable(history: PageHistory, user: PersistedUser) -> None:
    """Claim that each thing a person asks for says within five seconds that it cannot be had, and writes are logged."""
    asked: list[Callable[[], Awaitable[object]]] = [
        lambda: history.list_threads(Pagination(first=20), ThreadFilter(userId=user.id)),
        lambda: history.get_thread("thread"),
        lambda: history.get_thread_author("thread"),
        lambda: history.get_user("kim"),
        lambda: history.create_user(User(identifier="kim")),
        lambda: history.update_thread("thread", name="새 제목"),
        lambda: history.delete_thread("thread"),
        lambda: history.upsert_feedback(Feedback(forId="thread-0", value=1, threadId="thread")),
        lambda: history.delete_feedback("feedback"),
    ]
    for ask in asked:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await ask()
        assert time.monotonic() - began < 5
    with capture_logs() as logs, page("thread", user):
        await history.create_step(step(output="비밀"))
        await history.update_thread("thread", metadata={"last": "비밀"})
    assert [log["event"] for log in logs] == ["page history not written"] * 2
    assert "비밀" not in repr(logs)


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[None]:
    """Keep everyone else from writing."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite+aiosqlite:///"))) as file:
            file.execute("BEGIN IMMEDIATE")
            yield
        return
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("BEGIN; LOCK TABLE page_threads IN EXCLUSIVE MODE")
        yield
    finally:
        await connection.close()


async def test_database_that_another_holds_is_waited_for_but_not_for_ever(
    history: PageHistory, world: World, kim: PersistedUser
) -> None:
    await add_thread(history, kim, "thread", "질문")
    async with locked(world.url):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await history.update_thread("thread", name="새 제목")
        assert 1 < time.monotonic() - began < 5
        with (
            page("thread", kim),
            capture_logs() as logs,
        ):  # the writes that wait for one another do not wait as long each
            await asyncio.gather(*(history.create_step(step(f"step-{number}")) for number in range(10)))
        assert len(logs) == 10
        assert time.monotonic() - began < 8

    async def renamed() -> bool:
        with suppress(StoreUnavailable):
            await history.update_thread("thread", name="새 제목")
            return True
        return False

    await eventually(renamed)
    assert (await opened(history))["name"] == "새 제목"


async def test_postgres_that_is_stopped_and_started_again(own_postgres: PostgresProcess) -> None:
    async with World(await own_postgres.emptied()).open() as history:
        kim = await history.create_user(User(identifier="kim"))
        await add_thread(history, kim, "thread", "질문")
        before = await opened(history)
        await asyncio.to_thread(own_postgres.stop)
        await unavailable(history, kim)
        await asyncio.to_thread(own_postgres.start)
        assert await opened(history) == before
        await asyncio.to_thread(own_postgres.stop)
        await asyncio.to_thread(own_postgres.start)
        assert await opened(history) == before  # though the pool's connections are those of before
        await history.update_thread("thread", name="새 제목")


async def test_postgres_that_accepts_and_says_nothing(own_postgres: PostgresProcess) -> None:
    async with World(await own_postgres.emptied()).open() as history:
        own_postgres.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            with page("thread"):
                await asyncio.gather(*(history.create_step(step(f"step-{number}")) for number in range(20)))
            with pytest.raises(StoreUnavailable):
                await asyncio.gather(*(history.get_user("kim") for _ in range(20)))
            assert time.monotonic() - began < 8
        finally:
            own_postgres.signal(signal.SIGCONT)

        async def back() -> bool:
            try:
                return await history.get_user("kim") is None
            except StoreUnavailable:
                return False

        await eventually(back)
