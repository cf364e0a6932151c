"""What every store of run records does, in a local file and in Redis."""

import asyncio
import time
from pathlib import Path

import pytest
from conftest import RedisProcess
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import KINDS, RedisWorld, SqliteWorld, World, eventually, redis_server, server_of, sqlite_file, turn

from smartstore_indexing.errors import StoreUnavailable
from smartstore_indexing.setting_groups import RedisSettings
from smartstore_workflows.memory import DAY_SECONDS, SqliteConversations
from smartstore_workflows.records import Rating, RunRecord, RunRecords, SqliteRunRecords

TEXTS = st.text(st.characters(codec="utf-8"))


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path, redis_settings: RedisSettings) -> World:
    """Return an empty world of this test's own."""
    return SqliteWorld(tmp_path / "store.sqlite3") if request.param == "sqlite" else RedisWorld(redis_settings)


def record(
    run_id: str = "실행", *, text: str = "답변 [1]", days_old: float = 0.0, session_id: str = "대화"
) -> RunRecord:
    return RunRecord(
        run_id=run_id,
        session_id=session_id,
        question="질문",
        standalone="홀로 선 질문",
        kind="answered",
        text=text,
        citations=("a", "b"),
        model="extractive",
        cached=False,
        degraded=True,
        created_at=time.time() - days_old * DAY_SECONDS,
    )


async def ratings(store: RunRecords) -> list[tuple[str, int, str | None]]:
    found = [(rated.run_id, rated.rating) for rated in await store.rated(limit=100)]
    return [(run_id, rating.score, rating.comment) for run_id, rating in found if rating is not None]


async def test_record_comes_back_whole(world: World) -> None:
    async with world.records() as store:
        await store.add(record())
        assert await store.get("없음") is None
    async with world.records() as store:
        found = await store.get("실행")
    assert found is not None
    assert found == record().model_copy(update={"created_at": found.created_at})


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(run_id=TEXTS, text=TEXTS, comment=TEXTS)
def test_any_text_comes_back_as_it_was(world: World, run_id: str, text: str, comment: str) -> None:
    async def round_trip() -> RunRecord | None:
        async with world.records() as store:
            await store.add(record(run_id, text=text))
            assert await store.rate(run_id, -1, comment)
            return await store.get(run_id)

    with asyncio.Runner() as runner:
        found = runner.run(round_trip())
    assert found is not None
    assert found.rating is not None
    assert (found.run_id, found.text, found.rating.comment) == (run_id, text, comment)


async def test_rating_that_is_taken_back_is_gone_and_the_run_ages_again(world: World) -> None:
    async with world.records() as store:
        await store.add(record())
        assert await store.rate("실행", 1, "좋은 답입니다")
        assert await store.unrate("실행")
        assert await ratings(store) == []
        found = await store.get("실행")
        assert found is not None
        assert found.rating is None
        assert await store.unrate("실행")
        assert not await store.unrate("없음")
        assert await store.rate("실행", -1, None)
        assert await ratings(store) == [("실행", -1, None)]


async def test_rating_is_kept_with_its_time_and_the_last_one_counts(world: World) -> None:
    async with world.records() as store:
        await store.add(record())
        before = time.time()
        assert await store.rate("실행", -1, "틀린 답입니다")
        assert await store.rate("실행", 1, None)
        found = await store.get("실행")
    assert found is not None
    assert found.rating is not None
    assert found.rating == Rating(score=1, comment=None, rated_at=found.rating.rated_at)
    assert before <= found.rating.rated_at <= time.time()


async def test_run_that_nobody_knows_cannot_be_rated(world: World) -> None:
    async with world.records() as store:
        assert not await store.rate("없음", 1, None)
        assert await store.get("없음") is None
        assert await store.rated(limit=10) == []


async def test_rated_runs_are_listed_the_last_rated_first(world: World) -> None:
    async with world.records() as store:
        for number in range(5):
            await store.add(record(str(number)))
        for number in (2, 0, 4, 2):
            assert await store.rate(str(number), 1, f"{number}의 말")
        assert await ratings(store) == [("2", 1, "2의 말"), ("4", 1, "4의 말"), ("0", 1, "0의 말")]
        assert [found.run_id for found in await store.rated(limit=2)] == ["2", "4"]
        assert await store.rated(limit=0) == []


async def test_unrated_run_goes_after_its_days_and_cannot_be_rated_then(world: World) -> None:
    async with world.records(days=3) as store:
        await store.add(record("jung", days_old=2.9))
        await store.add(record("alt", days_old=3.1))

        async def gone() -> bool:
            return await store.get("alt") is None

        await eventually(gone)  # Redis, told to end a key at once, has a millisecond
        assert not await store.rate("alt", 1, None)
        assert await store.get("jung") is not None


async def test_rated_run_outlives_the_others(world: World) -> None:
    async with world.records(days=0.3 / DAY_SECONDS) as store:
        await store.add(record("남을 것"))
        assert await store.rate("남을 것", 1, "좋아요")
        await store.add(record("갈 것"))

        async def gone() -> bool:
            return await store.get("갈 것") is None

        await eventually(gone)
        await store.add(record("새 것"))
        assert await ratings(store) == [("남을 것", 1, "좋아요")]
        assert await store.get("남을 것") is not None


async def test_rated_run_goes_after_its_own_days(world: World) -> None:
    async with world.records(days=3, feedback_days=0.3 / DAY_SECONDS) as store:
        for run_id in ("갈 것", "남을 것"):
            await store.add(record(run_id))
        assert await store.rate("갈 것", 1, "좋아요")

        async def gone() -> bool:
            return await store.get("갈 것") is None

        await eventually(gone)
        await store.add(record("새 것"))
        assert await ratings(store) == []
        assert not await store.rate("갈 것", 1, None)
        assert await store.get("남을 것") is not None


async def test_session_is_forgotten_with_its_ratings_and_no_other(world: World) -> None:
    async with world.records() as store:
        for number in range(4):
            await store.add(record(str(number), session_id="갑" if number % 2 else "을"))
            await store.rate(str(number), 1, None)
        assert {found.run_id for found in await store.of_session("갑")} == {"1", "3"}
        await store.forget("갑")
        assert await store.of_session("갑") == []
        assert [await store.get(str(number)) is None for number in range(4)] == [False, True, False, True]
        assert {run_id for run_id, _, _ in await ratings(store)} == {"0", "2"}
        await store.forget("갑")


async def test_run_that_is_added_again_keeps_its_rating_and_its_life(world: World) -> None:
    async with world.records(days=0.3 / DAY_SECONDS) as store:
        await store.add(record(text="처음"))
        assert await store.rate("실행", 1, None)
        await store.add(record(text="다시"))
        await store.add(record("갈 것"))

        async def gone() -> bool:
            return await store.get("갈 것") is None

        await eventually(gone)
        found = await store.get("실행")
    assert found is not None
    assert (found.text, found.rating is not None) == ("다시", True)


async def test_concurrent_ratings_leave_one_and_lose_no_run(world: World) -> None:
    async with world.records() as store:
        await asyncio.gather(*(store.add(record(str(number))) for number in range(30)))
        given_ratings = [(str(number), str(attempt)) for number in range(30) for attempt in range(3)]
        assert all(await asyncio.gather(*(store.rate(run_id, 1, comment) for run_id, comment in given_ratings)))
        found = await ratings(store)
    assert sorted(int(run_id) for run_id, _, _ in found) == list(range(30))


async def test_everything_in_redis_ends_a_session_with_its_longest_lived_run(redis_settings: RedisSettings) -> None:
    async with RedisWorld(redis_settings).records(days=1) as store, redis_server(redis_settings) as server:
        await store.add(record())
        async with server.use() as client:
            assert 86_390 < await client.ttl(server.key("run-record", "실행")) <= 86_400
            await store.rate("실행", 1, None)
            await store.add(record("둘째"))
            for key in (server.key("run-record", "실행"), server.key("runs-of", record().session_id)):
                assert 364 * 86_400 < await client.ttl(key) <= 365 * 86_400


async def test_broken_record_is_left_out(world: World) -> None:
    async with world.records() as store:
        for run_id in ("gut", "kaputt"):
            await store.add(record(run_id))
            await store.rate(run_id, 1, None)
        if isinstance(world, SqliteWorld):
            world.change("UPDATE runs SET run = '{' WHERE run_id = ?", "kaputt")
        else:
            async with redis_server(world.settings) as server, server.use() as client:
                await client.hset(server.key("run-record", "kaputt"), "run", "{")
        assert await store.get("kaputt") is None
        assert [found.run_id for found in await store.rated(limit=10)] == ["gut"]


async def test_records_and_conversations_share_one_open_file(tmp_path: Path) -> None:
    async with sqlite_file(tmp_path / "store.sqlite3") as file:
        records = await SqliteRunRecords.open(file, days=3, feedback_days=365)
        conversations = await SqliteConversations.open(file, max_turns=20, max_tokens=3_000, days=3)
        await asyncio.gather(
            *(records.add(record(str(number))) for number in range(20)),
            *(conversations.append("여기", turn(str(number))) for number in range(20)),
        )
        assert len(await conversations.turns("여기")) == 20
        assert await records.get("19") is not None


async def test_redis_that_is_away_is_store_unavailable(own_redis: RedisProcess) -> None:
    async with RedisWorld(server_of(own_redis.url)).records() as store:
        own_redis.stop()
        with pytest.raises(StoreUnavailable):
            await store.add(record())
        with pytest.raises(StoreUnavailable):
            await store.get("실행")
        with pytest.raises(StoreUnavailable):
            await store.rate("실행", 1, None)
        with pytest.raises(StoreUnavailable):
            await store.rated(limit=1)
