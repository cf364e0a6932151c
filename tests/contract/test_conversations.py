"""What every store of conversations does, in a local file and in Redis, and what only the one or the other can."""

import asyncio
import signal
import time
from pathlib import Path

import pytest
from conftest import RedisProcess
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import KINDS, RedisWorld, SqliteWorld, World, eventually, redis_server, server_of, turn

from smartstore_indexing.errors import StoreUnavailable
from smartstore_indexing.setting_groups import RedisSettings
from smartstore_workflows.events import Turn
from smartstore_workflows.memory import DAY_SECONDS, Conversations
from smartstore_workflows.redis_server import CONNECTIONS

TEXTS = st.text(st.characters(codec="utf-8"))
# What names mean something to a store that is not careful: separators, patterns, quotes, wildcards.
IDS = st.text(st.sampled_from("a:*?[]%_'\"\\{} 가\n\0") | st.characters(codec="utf-8"), min_size=1, max_size=12)


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path, redis_settings: RedisSettings) -> World:
    """Return an empty world of this test's own."""
    return SqliteWorld(tmp_path / "store.sqlite3") if request.param == "sqlite" else RedisWorld(redis_settings)


async def questions(store: Conversations, session_id: str) -> list[str]:
    return [found.question for found in await store.turns(session_id)]


async def names(store: Conversations, *, limit: int = 100, before: float | None = None) -> list[str]:
    return [summary.session_id for summary in await store.sessions(limit=limit, before=before)]


async def test_turns_come_back_whole_and_oldest_first(world: World) -> None:
    given_turns = [turn(f"질문 {number}") for number in range(5)]
    async with world.conversations() as store:
        for given_turn in given_turns:
            await store.append("여기", given_turn)
        assert await store.turns("여기") == given_turns


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=TEXTS, answer=TEXTS, session_id=IDS)
def test_any_text_comes_back_as_it_was(world: World, question: str, answer: str, session_id: str) -> None:
    async def round_trip() -> list[Turn]:
        async with world.conversations() as store:
            await store.forget(session_id)
            await store.append(session_id, turn(question, answer))
            return await store.turns(session_id)

    with asyncio.Runner() as runner:
        assert runner.run(round_trip()) == [turn(question, answer)]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(IDS, min_size=2, max_size=6, unique=True))
def test_no_session_sees_or_loses_what_is_anothers_whatever_their_names(world: World, ids: list[str]) -> None:
    first, *others = ids

    async def mix() -> None:
        async with world.conversations() as store:
            assert not await store.known(first)
            for session_id in others:
                await store.append(session_id, turn(f"{session_id}의 질문"))
            assert not await store.known(first)
            assert await store.turns(first) == []
            assert not await store.forget(first)
            assert sorted(await names(store)) == sorted(others)
            for session_id in others:
                assert await questions(store, session_id) == [f"{session_id}의 질문"]
                assert await store.forget(session_id)
            assert await names(store) == []

    with asyncio.Runner() as runner:
        runner.run(mix())


async def test_session_is_known_from_its_beginning_on(world: World) -> None:
    async with world.conversations() as store:
        assert not await store.known("여기")
        await store.begin("여기")
        assert await store.known("여기")
        assert await store.turns("여기") == []
        assert not await store.known("저기")


async def test_added_to_session_is_known_though_it_was_never_begun(world: World) -> None:
    async with world.conversations() as store:
        await store.append("여기", turn("질문"))
        assert await store.known("여기")


async def test_beginning_again_keeps_the_turns(world: World) -> None:
    async with world.conversations() as store:
        await store.append("여기", turn("질문"))
        await store.begin("여기")
        assert await questions(store, "여기") == ["질문"]


@pytest.mark.parametrize("bound", [1, 2, 5])
async def test_oldest_turns_go_when_the_bound_is_reached(world: World, bound: int) -> None:
    async with world.conversations(max_turns=bound) as store:
        for number in range(7):
            await store.append("여기", turn(str(number)))
            await store.append("저기", turn(f"저기 {number}"))
        assert await questions(store, "여기") == [str(number) for number in range(7)][-bound:]
    assert await world.stored_turns() == 2 * bound


async def test_bound_that_was_lowered_holds_for_what_is_stored(world: World) -> None:
    async with world.conversations(max_turns=5) as store:
        for number in range(5):
            await store.append("여기", turn(str(number)))
    async with world.conversations(max_turns=2) as store:
        assert await questions(store, "여기") == ["3", "4"]


async def test_newest_turns_are_read_up_to_their_tokens(world: World) -> None:
    async with world.conversations(max_tokens=250) as store:
        for number in range(4):
            await store.append("여기", turn(str(number), "가" * 100))
        assert await questions(store, "여기") == ["2", "3"]
        await store.append("여기", turn("긴 답", "가" * 10_000))
        assert await questions(store, "여기") == ["긴 답"]
    assert await world.stored_turns() == 5


async def test_conversation_survives_reopening(world: World) -> None:
    async with world.conversations() as store:
        await store.append("여기", turn("처음"))
    async with world.conversations() as store:
        await store.append("여기", turn("다음"))
        assert await questions(store, "여기") == ["처음", "다음"]


async def test_session_ends_when_it_was_not_used_for_its_days(world: World) -> None:
    async with world.conversations(days=3) as store:
        await store.append("여기", turn("오래된 질문"))
        await store.begin("저기")
        await world.age(2.9)
        assert await questions(store, "여기") == ["오래된 질문"]
        assert await store.known("저기")
        await world.age(0.2)
        assert await questions(store, "여기") == []
        assert not await store.known("여기")
        assert not await store.known("저기")
        assert await names(store) == []
        assert not await store.forget("여기")


async def test_session_that_ended_begins_without_its_turns(world: World) -> None:
    async with world.conversations(days=3) as store:
        await store.append("여기", turn("오래된 질문"))
        await world.age(3.1)
        await store.begin("여기")
        assert await store.turns("여기") == []
        await store.append("여기", turn("새 질문"))
        assert await questions(store, "여기") == ["새 질문"]


async def test_session_ends_by_the_clock(world: World) -> None:
    async with world.conversations(days=0.2 / DAY_SECONDS) as store:
        await store.append("여기", turn("질문"))

        async def gone() -> bool:
            return not await store.known("여기")

        await eventually(gone)
        assert await store.turns("여기") == []


@pytest.mark.parametrize("use", ["begin", "append"])
async def test_use_renews_the_life_of_the_whole_conversation(world: World, use: str) -> None:
    async with world.conversations(days=3) as store:
        await store.append("여기", turn("처음"))
        await store.append("저기", turn("잊힐 질문"))
        await world.age(2)
        await (store.begin("여기") if use == "begin" else store.append("여기", turn("다음")))
        await world.age(2)
        assert (await questions(store, "여기"))[0] == "처음"
        assert await questions(store, "저기") == []


async def test_reading_does_not_renew_the_life(world: World) -> None:
    async with world.conversations(days=3) as store:
        await store.append("여기", turn("질문"))
        await world.age(2)
        await store.turns("여기")
        await store.known("여기")
        await store.sessions(limit=10)
        await world.age(2)
        assert not await store.known("여기")


async def test_forgetting_takes_one_session_and_tells_whether_there_was_one(world: World) -> None:
    async with world.conversations() as store:
        await store.append("여기", turn("잊을 질문"))
        await store.append("저기", turn("남을 질문"))
        await store.begin("빈 대화")
        assert await store.forget("여기")
        assert not await store.forget("여기")
        assert await store.forget("빈 대화")
        assert not await store.forget("모르는 대화")
        assert await store.turns("여기") == []
        assert not await store.known("여기")
        assert await questions(store, "저기") == ["남을 질문"]


async def test_sessions_are_listed_by_their_last_use_a_page_at_a_time(world: World) -> None:
    async with world.conversations(max_turns=2) as store:
        before = time.time()
        for number in range(5):
            await store.append(str(number), turn("질문"))
        await store.begin("5")
        for _ in range(3):
            await store.append("1", turn("질문"))
        pages, last = [], None
        while page := await store.sessions(limit=2, before=last):
            pages.append([(summary.session_id, summary.turns) for summary in page])
            last = page[-1].used_at
            assert before <= last <= time.time()
        assert pages == [[("1", 2), ("5", 0)], [("4", 1), ("3", 1)], [("2", 1), ("0", 1)]]
        assert await store.sessions(limit=0) == []


async def test_many_concurrent_appends_to_one_session_are_all_kept_whole(world: World) -> None:
    given_turns = [turn(f"{number} " + "가" * 3_000, f"{number}의 답") for number in range(50)]
    async with world.conversations(max_turns=50) as store:
        await asyncio.gather(*(store.append("여기", given_turn) for given_turn in given_turns))
        found = await store.turns("여기")
    assert sorted(found, key=lambda kept: int(kept.question.split()[0])) == given_turns


async def test_many_sessions_at_once_never_mix(world: World) -> None:
    ids = [f"대화 {number}" for number in range(50)]
    async with world.conversations(max_turns=3) as store:
        await asyncio.gather(*(store.append(name, turn(f"{name}의 {number}")) for number in range(3) for name in ids))
        found = await asyncio.gather(*(questions(store, name) for name in ids))
        assert [sorted(asked) for asked in found] == [[f"{name}의 {number}" for number in range(3)] for name in ids]


async def test_readers_see_whole_turns_while_others_write(world: World) -> None:
    async with world.conversations(max_turns=5) as store:

        async def write() -> None:
            for number in range(30):
                await store.append("여기", turn(f"질문 {number}", f"답 {number}"))

        writing = asyncio.gather(write(), write())
        while not writing.done():
            for found in await store.turns("여기"):
                assert found.question.replace("질문", "답") == found.answer
        await writing
        assert len(await store.turns("여기")) == 5


async def test_cancelled_call_hands_its_answer_to_nobody_else(world: World) -> None:
    ids = [f"대화 {number}" for number in range(20)]
    async with world.conversations() as store:
        await asyncio.gather(*(store.append(name, turn(f"{name}의 질문")) for name in ids))
        for turns_of_the_loop in range(12):
            cancelled = [asyncio.ensure_future(store.turns(name)) for name in ids]
            for _ in range(turns_of_the_loop):
                await asyncio.sleep(0)
            for task in cancelled:
                task.cancel()
            found = await asyncio.gather(*(questions(store, name) for name in ids))
            assert found == [[f"{name}의 질문"] for name in ids]
            await asyncio.gather(*cancelled, return_exceptions=True)


async def test_cancelled_call_stays_cancelled_whenever_it_comes(world: World) -> None:
    async with world.conversations() as store:
        for turns_of_the_loop in range(6):
            task = asyncio.ensure_future(store.turns("여기"))
            for _ in range(turns_of_the_loop):
                await asyncio.sleep(0)
            assert not task.cancel() or (await asyncio.wait({task}) and task.cancelled())


async def test_cancelled_append_is_kept_whole_or_not_at_all(world: World) -> None:
    async with world.conversations() as store:
        for number in range(10):
            task = asyncio.ensure_future(store.append("여기", turn(f"질문 {number}", f"답 {number}")))
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
        await store.append("여기", turn("다음", "끝"))
        found = await store.turns("여기")
        assert found[-1] == turn("다음", "끝")
        assert [kept.answer for kept in found[:-1]] == [kept.question.replace("질문", "답") for kept in found[:-1]]


@pytest.mark.parametrize("stored", ["", "no JSON", "{}", '{"question": "반만'], ids=["empty", "text", "object", "cut"])
async def test_broken_item_is_left_out_and_the_conversation_goes_on(world: World, stored: str) -> None:
    async with world.conversations() as store:
        await store.append("여기", turn("앞"))
        await world.insert_broken("여기", stored)
        await store.append("여기", turn("뒤"))
        assert await questions(store, "여기") == ["앞", "뒤"]


async def test_half_a_pair_joins_no_other_half(redis_settings: RedisSettings) -> None:
    world = RedisWorld(redis_settings)
    async with world.conversations() as store, redis_server(redis_settings) as server:
        for question in ("하나", "둘", "셋", "넷"):
            await store.append("여기", turn(question))
        async with server.use() as client:
            chat = server.key("chat", "여기")
            await client.lset(chat, 3, "gone")  # the answer of the second
            await client.lrem(chat, 1, await client.lindex(chat, 4))  # the question of the third
            await client.lset(chat, 3, await client.lindex(chat, 2))  # now a question stands before another's answer
        assert await questions(store, "여기") == ["하나", "넷"]


async def test_more_calls_than_connections_wait_for_their_turn(redis_settings: RedisSettings) -> None:
    async with RedisWorld(redis_settings).conversations(max_turns=200) as store:
        await asyncio.gather(*(store.append("여기", turn(str(number))) for number in range(3 * CONNECTIONS)))
        assert len(await store.turns("여기")) == 3 * CONNECTIONS


async def test_chats_of_another_prefix_are_anothers(redis_settings: RedisSettings) -> None:
    other = redis_settings.model_copy(update={"prefix": redis_settings.prefix + "-other"})
    async with RedisWorld(redis_settings).conversations() as ours, RedisWorld(other).conversations() as theirs:
        await ours.append("여기", turn("질문"))
        assert not await theirs.known("여기")
        assert await names(theirs) == []


async def test_every_key_of_a_conversation_ends_by_itself_or_is_the_one_list(redis_settings: RedisSettings) -> None:
    async with RedisWorld(redis_settings).conversations(days=1) as store, redis_server(redis_settings) as server:
        await store.append("여기", turn("질문"))
        async with server.use() as client:
            assert 86_390 < await client.ttl(server.key("chat", "여기")) <= 86_400
            keys = {key async for key in client.scan_iter(f"{redis_settings.prefix}:*")}
            assert keys == {server.key("chat", "여기").encode(), server.key("chats").encode()}


async def test_sessions_that_ended_leave_the_list_of_redis(redis_settings: RedisSettings) -> None:
    world = RedisWorld(redis_settings)
    async with world.conversations(days=1) as store, redis_server(redis_settings) as server:
        await store.append("옛날", turn("질문"))
        await world.age(2)
        await store.begin("지금")
        async with server.use() as client:
            assert await client.zrange(server.key("chats"), 0, -1) == ["지금".encode()]


async def test_redis_that_ends_is_store_unavailable_at_once_and_comes_back(own_redis: RedisProcess) -> None:
    async with RedisWorld(server_of(own_redis.url)).conversations() as store:
        await store.append("여기", turn("질문"))
        own_redis.stop()
        started = time.monotonic()
        for _ in range(20):
            with pytest.raises(StoreUnavailable, match="redis-server"):
                await store.turns("여기")
        with pytest.raises(StoreUnavailable):
            await store.append("여기", turn("질문"))
        assert time.monotonic() - started < 2
        own_redis.start()

        async def back() -> bool:
            try:
                await store.append("여기", turn("다시"))
            except StoreUnavailable:
                return False
            return True

        await eventually(back)
        assert await questions(store, "여기") == ["다시"]  # this Redis keeps nothing on disk


async def test_redis_that_stalls_is_store_unavailable_within_its_timeout(own_redis: RedisProcess) -> None:
    async with RedisWorld(server_of(own_redis.url)).conversations() as store:
        await store.append("여기", turn("질문"))
        assert own_redis._process is not None
        own_redis._process.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await store.append("여기", turn("멈춘 동안"))
            assert time.monotonic() - started < 1.9
        finally:
            own_redis._process.send_signal(signal.SIGCONT)

        async def back() -> bool:
            try:
                return "질문" in await questions(store, "여기")
            except StoreUnavailable:
                return False

        await eventually(back)
        assert (await questions(store, "여기")).count("멈춘 동안") <= 1


async def test_key_of_another_kind_is_store_unavailable_and_stops_no_other_session(
    redis_settings: RedisSettings,
) -> None:
    async with RedisWorld(redis_settings).conversations() as store, redis_server(redis_settings) as server:
        await store.begin("여기")
        async with server.use() as client:
            await client.set(server.key("chat", "여기"), "no list")
        with pytest.raises(StoreUnavailable):
            await store.turns("여기")
        await store.append("저기", turn("질문"))
        assert await questions(store, "저기") == ["질문"]
