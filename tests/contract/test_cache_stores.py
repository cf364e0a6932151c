"""What every store of answers does, in a local file and in Redis, and the vectors that processes share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import RedisProcess
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import KINDS, eventually, redis_server, server_of, sqlite_file

from smartstore_indexing.embedding import DIMENSIONS, E5Embedding, QueryVectors
from smartstore_indexing.errors import StoreUnavailable
from smartstore_indexing.setting_groups import RedisSettings
from smartstore_workflows.cache_stores import RedisAnswers, RedisVectors, SqliteAnswers
from smartstore_workflows.caching import MOST_ALIKE, AnswerKey, AnswerStore
from smartstore_workflows.events import Passage, RememberedAnswer, Source
from smartstore_workflows.memory import DAY_SECONDS

TEXTS = st.text(st.characters(codec="utf-8"))
A_SECOND = 1 / DAY_SECONDS


class World:
    """Where answers are kept over several openings of the store."""

    def __init__(self, kind: str, path: Path, redis: RedisSettings) -> None:
        self._kind, self._path, self._redis = kind, path, redis

    @asynccontextmanager
    async def answers(self, *, most: int = 100, days: float = 1.0) -> AsyncIterator[AnswerStore]:
        if self._kind == "sqlite":
            async with sqlite_file(self._path) as file:
                yield await SqliteAnswers.open(file, most=most, days=days)
        else:
            async with redis_server(self._redis) as server:
                yield RedisAnswers(server, most=most, days=days)

    async def spoil(self, key: AnswerKey) -> None:
        """Replace what is kept under a key by what no answer is."""
        if self._kind == "sqlite":
            async with sqlite_file(self._path) as file:
                await file.write(lambda connection: connection.execute("UPDATE answers SET answer = '{\"a\": 1}'"))
        else:
            async with redis_server(self._redis) as server, server.use() as client:
                await client.set(server.key("answer", key.name), "{")


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path, redis_settings: RedisSettings) -> World:
    return World(request.param, tmp_path / "store.sqlite3", redis_settings)


def key(text: str = "질문", *, index_version: str = "1", model: str = "extractive") -> AnswerKey:
    return AnswerKey(index_version, model, text)


def answer(question: str = "질문", *, faq_id: str = "a", text: str = "답변입니다. [1]") -> RememberedAnswer:
    return RememberedAnswer(
        question=question,
        text=text,
        citations=(faq_id,),
        sources=(Source(n=1, id=faq_id, category="정산", question="제목", score=0.5, snippet="답변"),),
        passages=(Passage(faq_id=faq_id, score=0.5), Passage(faq_id="z", score=0.25)),
    )


async def questions(store: AnswerStore, *faq_ids: str, limit: int = 100) -> list[str]:
    return [found.question for found in await store.backed_by(key().scope, faq_ids, limit=limit)]


async def test_answer_comes_back_whole_under_its_key_alone(world: World) -> None:
    async with world.answers() as store:
        await store.put(key(), answer())
    async with world.answers() as store:
        assert await store.get(key()) == answer()
        for other in (key("다른 질문"), key(model="gpt"), key(index_version="2")):
            assert await store.get(other) is None


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=TEXTS, text=TEXTS)
def test_any_text_comes_back_as_it_was(world: World, question: str, text: str) -> None:
    async def there_and_back() -> None:
        async with world.answers() as store:
            await store.put(key(question), answer(question, text=text))
            assert await store.get(key(question)) == answer(question, text=text)

    asyncio.run(there_and_back())


async def test_answers_are_found_by_their_first_faq_newest_first(world: World) -> None:
    async with world.answers() as store:
        for number, faq_id in enumerate(("a", "b", "a", "c")):
            await store.put(key(str(number)), answer(str(number), faq_id=faq_id))
        assert await questions(store, "a", "b") == ["2", "1", "0"]
        assert await questions(store, "a", "b", limit=2) == ["2", "1"]
        assert await questions(store, "z") == []
        assert await store.backed_by(key(model="gpt").scope, ["a"], limit=5) == []


async def test_answer_put_again_replaces_the_earlier_one(world: World) -> None:
    async with world.answers() as store:
        await store.put(key(), answer(text="옛 답변"))
        await store.put(key(), answer(text="새 답변"))
        assert await store.get(key()) == answer(text="새 답변")
        assert await questions(store, "a") == ["질문"]


async def test_oldest_answers_go_beyond_the_bound(world: World) -> None:
    async with world.answers(most=3) as store:
        for number in range(5):
            await store.put(key(str(number)), answer(str(number)))
        kept = [number for number in range(5) if await store.get(key(str(number))) is not None]
        assert kept == [2, 3, 4]
        assert await questions(store, "a") == ["4", "3", "2"]


async def test_answers_of_one_faq_are_bounded(world: World) -> None:
    async with world.answers(most=MOST_ALIKE + 9) as store:
        for number in range(MOST_ALIKE + 9):
            await store.put(key(str(number)), answer(str(number)))
        assert len(await questions(store, "a", limit=MOST_ALIKE)) == MOST_ALIKE


async def test_answers_to_questions_that_are_forgotten_go_and_no_others(world: World) -> None:
    async with world.answers() as store:
        for text in ("하나", "둘", "셋"):
            await store.put(key(text), answer(text))
        await store.forget({"하나", "셋", "없는 것"})
        await store.forget(set())
        assert [await store.get(key(text)) is None for text in ("하나", "둘", "셋")] == [True, False, True]
        assert await questions(store, "a") == ["둘"]


async def test_old_answer_is_gone(world: World) -> None:
    async with world.answers(days=A_SECOND) as store:
        await store.put(key(), answer())
        await eventually(lambda: _gone(store))
        assert await questions(store, "a") == []


async def _gone(store: AnswerStore) -> bool:
    return await store.get(key()) is None


async def test_broken_answer_is_as_good_as_none_and_can_be_replaced(world: World) -> None:
    async with world.answers() as store:
        await store.put(key(), answer())
    await world.spoil(key())
    async with world.answers() as store:
        assert await store.get(key()) is None
        assert await questions(store, "a") == []
        await store.put(key(), answer())
        assert await store.get(key()) == answer()


async def test_file_drops_the_answers_of_other_index_versions(tmp_path: Path) -> None:
    async with sqlite_file(tmp_path / "store.sqlite3") as file:
        store = await SqliteAnswers.open(file, most=10, days=1.0)
        await store.put(key("하나"), answer())
        await store.put(key("하나", model="gpt"), answer())
        await store.put(key("둘", index_version="2"), answer())
        count = await file.read(lambda connection: connection.execute("SELECT count(*) FROM answers").fetchone())
        assert count == (1,)


async def test_redis_keeps_no_answer_for_ever(redis_settings: RedisSettings) -> None:
    async with redis_server(redis_settings) as server, server.use() as client:
        await RedisAnswers(server, most=10, days=1.0).put(key(), answer())
        kept = [name async for name in client.scan_iter(f"{redis_settings.prefix}:*")]
        assert len(kept) == 3
        assert all([await client.pttl(name) > 0 for name in kept])


async def test_closed_file_and_lost_redis_are_unavailable(tmp_path: Path, own_redis: RedisProcess) -> None:
    async with sqlite_file(tmp_path / "store.sqlite3") as file:
        closed = await SqliteAnswers.open(file, most=10, days=1.0)
    async with redis_server(server_of(own_redis.url)) as server:
        own_redis.stop()
        for store in (closed, RedisAnswers(server, most=10, days=1.0)):
            for call in (store.get(key()), store.put(key(), answer()), store.backed_by("x", ["a"], limit=1)):
                with pytest.raises(StoreUnavailable):
                    await call


@asynccontextmanager
async def shared_vectors(
    settings: RedisSettings, embedder: str = "e5", dimensions: int = DIMENSIONS
) -> AsyncIterator[RedisVectors]:
    async with redis_server(settings) as server:
        yield RedisVectors(server, embedder=embedder, dimensions=dimensions, days=1.0)


async def test_vectors_are_computed_once_for_all_processes(redis_settings: RedisSettings) -> None:
    class Counted(E5Embedding):
        async def aget_query_embeddings(self, queries: list[str]) -> np.ndarray:  # type: ignore[override]
            computed.extend(queries)
            return await super().aget_query_embeddings(queries)

    computed: list[str] = []
    async with shared_vectors(redis_settings) as one, shared_vectors(redis_settings) as other:
        first = await QueryVectors(Counted(), shared=one).of("정산은 언제 되나요?")
        second = await QueryVectors(Counted(), shared=other).of("정산은 언제 되나요?")
    assert computed == ["정산은 언제 되나요?"]
    assert second.dtype == np.float32
    assert np.array_equal(first, second)


async def test_vectors_of_another_embedder_and_broken_ones_are_not_taken(redis_settings: RedisSettings) -> None:
    vector = np.ones(DIMENSIONS, dtype=np.float32)
    async with shared_vectors(redis_settings) as one, shared_vectors(redis_settings, "other") as other:
        await one.put({"가": vector})
        assert [found is not None for found in await one.get(["가", "나"])] == [True, False]
        assert await other.get(["가"]) == [None]
    async with shared_vectors(redis_settings, dimensions=DIMENSIONS + 1) as larger:
        assert await larger.get(["가"]) == [None]
    async with shared_vectors(redis_settings, dimensions=0) as unknown:
        (found,) = await unknown.get(["가"])
    assert found is not None
    assert np.array_equal(found, vector)


async def test_vectors_are_computed_when_redis_is_away(own_redis: RedisProcess) -> None:
    async with shared_vectors(server_of(own_redis.url)) as shared:
        own_redis.stop()
        vector = await QueryVectors(E5Embedding(), shared=shared).of("정산은 언제 되나요?")
    assert vector.shape == (DIMENSIONS,)
