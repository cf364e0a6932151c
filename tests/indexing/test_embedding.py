"""Vectors: e5's promises, texts that its engine cannot take, and the work that questions share."""

import asyncio
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from conftest import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.bridge.pydantic import PrivateAttr

from smartstore_indexing.embedding import BATCH, DIMENSIONS, QUESTIONS, E5Embedding, QueryVectors, in_batches


@pytest.fixture(scope="module")
def e5() -> E5Embedding:
    return E5Embedding()


def test_vectors_have_unit_length_and_their_dimensions(e5: E5Embedding) -> None:
    for vector in (e5.get_query_embedding("언제 여나요?"), e5.get_text_embedding("봄에 엽니다.")):
        assert len(vector) == DIMENSIONS
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_question_and_document_of_the_same_text_differ(e5: E5Embedding) -> None:
    assert np.dot(e5.get_query_embedding("언제 여나요?"), e5.get_text_embedding("언제 여나요?")) < 0.999


async def test_equal_texts_have_equal_vectors_alone_in_a_batch_and_awaited(e5: E5Embedding) -> None:
    text = "봄에 엽니다."
    alone = e5.get_text_embedding(text)
    others = [text, "다른 글", "아주 긴 글 " * 20, text]
    assert np.allclose(e5.get_text_embedding_batch(others)[0], alone, atol=1e-5)
    assert np.allclose((await e5.aget_text_embedding_batch(others))[3], alone, atol=1e-5)
    assert await e5.aget_text_embedding(text) == alone
    assert await e5.aget_query_embedding("언제 여나요?") == e5.get_query_embedding("언제 여나요?")


def test_near_question_is_nearer_than_another(e5: E5Embedding) -> None:
    texts = ("환불은 언제 되나요?", "돈은 언제 돌려받나요?", "주차 요금")
    asked, near, far = map(e5.get_query_embedding, texts)
    assert np.dot(asked, near) > np.dot(asked, far)


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text_embeds(e5: E5Embedding, text: str) -> None:
    for vector in (e5.get_query_embedding(text), *e5.get_text_embedding_batch([text, "다른 글"])):
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "text",
    ["", "\0", "\ud800\udfff", "가\0나", "\ufdfa" * 500, "가" * 100_000],
    ids=["empty", "NUL", "surrogates", "NUL inside", "ligatures", "endless"],
)
def test_text_that_is_hard_to_encode_embeds_all_the_same(e5: E5Embedding, text: str) -> None:
    assert np.linalg.norm(e5.get_query_embedding(text)) == pytest.approx(1, abs=1e-4)


def test_letters_that_look_the_same_have_the_same_vector(e5: E5Embedding) -> None:
    assert np.allclose(e5.get_query_embedding("ＡＢＣ １２３"), e5.get_query_embedding("ABC 123"), atol=1e-5)


def test_batches_keep_the_order() -> None:
    items = list(range(2 * BATCH + 1))
    assert [len(batch) for batch in in_batches(items)] == [BATCH, BATCH, 1]
    assert [item for batch in in_batches(items) for item in batch] == items
    assert in_batches([]) == []


class WaitingEmbedding(E5Embedding):
    """The real embedding, which keeps the questions it was asked and computes them when it is let go."""

    _asked: list[list[str]] = PrivateAttr(default_factory=list)
    _go: threading.Event = PrivateAttr(default_factory=threading.Event)
    _refused: set[str] = PrivateAttr(default_factory=set)

    def _query_vectors(self, queries: Sequence[str]) -> np.ndarray:
        self._asked.append(list(queries))
        self._go.wait(30)
        if refused := self._refused.intersection(queries):
            raise ValueError(*refused)
        return super()._query_vectors(queries)


@pytest.fixture
def waiting() -> Iterator[WaitingEmbedding]:
    embedding = WaitingEmbedding()
    yield embedding
    embedding._go.set()


async def test_questions_asked_at_once_share_the_work(waiting: WaitingEmbedding) -> None:
    vectors = QueryVectors(waiting)
    asking = [asyncio.ensure_future(vectors.of("언제?")) for _ in range(10)]
    waiting._go.set()
    found = await asyncio.gather(*asking)
    assert waiting._asked == [["언제?"]]
    assert all(vector is found[0] for vector in found)
    assert found[0].shape == (DIMENSIONS,)
    assert found[0].dtype == np.float32
    assert await vectors.of("언제?") is found[0]


async def test_questions_that_wait_share_a_call_and_keep_their_vectors(waiting: WaitingEmbedding) -> None:
    vectors = QueryVectors(waiting)
    first = asyncio.ensure_future(vectors.of("먼저 온 질문"))
    await asyncio.to_thread(wait_until, lambda: bool(waiting._asked))
    questions = [f"{number}번째 질문은 언제 답하나요?" for number in range(QUESTIONS + 2)]
    asking = [asyncio.ensure_future(vectors.of(question)) for question in questions]
    await asyncio.sleep(0)  # all of them wait now
    waiting._go.set()
    found = [await first, *await asyncio.gather(*asking)]
    assert waiting._asked == [["먼저 온 질문"], questions[:QUESTIONS], questions[QUESTIONS:]]
    alone = [waiting.get_query_embedding(question) for question in ["먼저 온 질문", *questions]]
    assert np.allclose(found, alone, atol=1e-5)


async def test_only_the_last_used_questions_are_kept(waiting: WaitingEmbedding) -> None:
    waiting._go.set()
    vectors = QueryVectors(waiting, size=2)
    for question in ("가", "나", "가", "다", "가", "나"):
        await vectors.of(question)
    assert waiting._asked == [["가"], ["나"], ["다"], ["나"]]


async def test_cancelled_waiter_takes_nothing_from_the_others(waiting: WaitingEmbedding) -> None:
    vectors = QueryVectors(waiting)
    first, second = (asyncio.ensure_future(vectors.of("언제?")) for _ in range(2))
    await asyncio.sleep(0)  # both wait now
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    waiting._go.set()
    assert (await second).shape == (DIMENSIONS,)
    assert waiting._asked == [["언제?"]]


async def test_failure_is_not_kept(waiting: WaitingEmbedding) -> None:
    waiting._go.set()
    waiting._refused.add("언제?")
    vectors = QueryVectors(waiting)
    with pytest.raises(ValueError, match="언제"):
        await vectors.of("언제?")
    waiting._refused.clear()
    assert (await vectors.of("언제?")).shape == (DIMENSIONS,)
