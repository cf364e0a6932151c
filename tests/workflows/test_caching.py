"""Answers that are given again, over the sample FAQ: when they are, and when they must not be."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from conftest import ModelServer, settings_for, workflow_over

from smartstore_indexing.errors import StoreUnavailable
from smartstore_indexing.model_settings import OpenAISettings
from smartstore_indexing.setting_groups import RedisSettings
from smartstore_indexing.settings import OPENAI
from smartstore_workflows import Chatbot, wire
from smartstore_workflows.answering import AnswerWorkflow
from smartstore_workflows.cache_stores import SqliteAnswers
from smartstore_workflows.caching import AnswerCache, AnswerKey, normalized
from smartstore_workflows.events import QuestionAsked, RememberedAnswer, TokenStreamed, Turn
from smartstore_workflows.models import Models
from smartstore_workflows.openai_chat import openai_model
from smartstore_workflows.running import events_of, outcome_of
from smartstore_workflows.sqlite import SqliteFile

MINOR = "미성년자도 판매 회원 등록이 가능한가요?"
PENALTY = "판매 페널티는 어떤 경우에 받나요?"
REWORDED = "어떤 경우에 판매 페널티를 받는지 알려 주실 수 있을까요?"
OTHER = "판매 페널티는 어떤 경우에 안 받나요?"
SHIPPING = "반품 배송비는 누가 부담하나요?"
RESTAURANT = "오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?"
IN_MEMORY = Path(":memory:")


@pytest.fixture
async def store() -> AsyncIterator[SqliteAnswers]:
    file = await SqliteFile.open(IN_MEMORY)
    yield await SqliteAnswers.open(file, most=100, days=1.0)
    await file.close()


@pytest.fixture
def caching(bot: Chatbot, store: SqliteAnswers) -> Chatbot:
    """Return a bot over the shared index with an empty cache of this test's own."""
    return with_workflow(bot, workflow_over(bot.services, cache=cache_of(bot, store)))


def cache_of(bot: Chatbot, store: SqliteAnswers) -> AnswerCache:
    return AnswerCache(store, read=bot.services.morphemes.read)


def with_workflow(bot: Chatbot, workflow: AnswerWorkflow) -> Chatbot:
    found = Chatbot(bot.services.settings)
    found._services = replace(bot.services, workflow=workflow)
    return found


async def cached(bot: Chatbot, *questions: str) -> list[bool]:
    """Return for each question, asked in a conversation of its own, whether its answer was given before."""
    return [(await bot.ask(question)).answer.cached for question in questions]


async def test_same_text_gets_the_same_reply_without_filter_and_search(caching: Chatbot) -> None:
    first, second = await caching.ask(MINOR), await caching.ask(f"  {MINOR.removesuffix('?')} ")
    assert (first.answer.cached, second.answer.cached) == (False, True)
    assert second.answer == first.answer.model_copy(update={"cached": True})
    assert (second.sources, second.suggestions) == (first.sources, first.suggestions)
    assert set(second.timings_ms) == {"understand", "synthesize", "suggest"}


async def test_answer_given_again_streams_like_any_other(caching: Chatbot) -> None:
    await caching.ask(MINOR)
    events = [event async for event in caching.stream(MINOR)]
    text = "".join(event.data.text for event in events if isinstance(event.data, wire.Token))
    (answer,) = [event.data for event in events if isinstance(event.data, wire.Answer)]
    assert answer.cached
    assert text == answer.text
    assert [event.event for event in events].index("sources") < [event.event for event in events].index("token")


async def test_reworded_question_gets_the_answer_and_is_exact_from_then_on(caching: Chatbot) -> None:
    first, second, third = [await caching.ask(question) for question in (PENALTY, REWORDED, REWORDED)]
    assert [reply.answer.cached for reply in (first, second, third)] == [False, True, True]
    assert third.answer.text == second.answer.text == first.answer.text
    assert "retrieve" in second.timings_ms
    assert "retrieve" not in third.timings_ms


async def test_question_of_another_meaning_is_answered_anew(caching: Chatbot) -> None:
    assert await cached(caching, PENALTY, OTHER, OTHER) == [False, False, True]


async def test_what_was_given_to_a_rewording_is_compared_with_its_own_question(
    caching: Chatbot, store: SqliteAnswers
) -> None:
    await cached(caching, PENALTY, REWORDED)
    version = (await caching.services.reader.snapshot()).manifest.version
    found = await store.get(AnswerKey(version, "extractive", normalized(REWORDED)))
    assert found is not None
    assert found.question == PENALTY


async def test_refusal_is_not_kept(caching: Chatbot) -> None:
    assert await cached(caching, RESTAURANT, RESTAURANT) == [False, False]


async def test_question_with_personal_data_is_not_kept(caching: Chatbot) -> None:
    question = f"{MINOR} 제 번호는 010-1234-5678입니다."
    assert (await caching.ask(question)).answer.kind == "answered"
    assert not (await caching.ask(question)).answer.cached


async def test_question_that_leans_on_its_conversation_is_not_kept_or_looked_up(caching: Chatbot) -> None:
    replies = [await caching.ask(MINOR) for _ in range(2)]
    leaning = [await caching.ask("그럼 서류는요?", session_id=reply.session_id) for reply in replies]
    assert [reply.answer.cached for reply in leaning] == [False, False]


async def test_chosen_follow_up_is_not_kept(caching: Chatbot) -> None:
    offer = (await caching.ask(MINOR)).suggestions[0]
    replies = [await caching.ask(offer.text, faq_id=offer.faq_id) for _ in range(2)]
    assert [reply.answer.cached for reply in replies] == [False, False]


async def test_other_index_version_knows_no_answer(caching: Chatbot, store: SqliteAnswers) -> None:
    version = (await caching.services.reader.snapshot()).manifest.version
    await caching.ask(MINOR)
    assert await store.get(AnswerKey(version, "extractive", normalized(MINOR))) is not None
    assert await store.get(AnswerKey(f"{version}0", "extractive", normalized(MINOR))) is None


async def has_moved(bot: Chatbot, before: str) -> bool:
    return (await bot.services.reader.snapshot()).manifest.version != before


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        await asyncio.sleep(0.05)


async def test_reindex_that_changes_something_drops_the_answers_and_another_keeps_them(data_dir: Path) -> None:
    faq = data_dir / "faq.jsonl"
    rows = settings_for(data_dir).faq.read_text(encoding="utf-8").splitlines()
    async with Chatbot(settings_for(data_dir)) as bot:
        builder, reader = bot.services.builder, bot.services.reader
        before = (await reader.snapshot()).manifest.version
        assert await cached(bot, MINOR, MINOR) == [False, True]
        await builder.build(settings_for(data_dir).faq)
        assert await cached(bot, MINOR) == [True]
        faq.write_text("\n".join(rows[1:]), encoding="utf-8")
        await builder.build(faq)
        await eventually(partial(has_moved, bot, before))  # readers notice a moved alias within seconds
        assert await cached(bot, MINOR, MINOR) == [False, True]


async def test_cache_that_is_turned_off_keeps_nothing(bot: Chatbot) -> None:
    assert not bot.services.settings.cache.enabled
    assert await cached(bot, MINOR, MINOR) == [False, False]


async def test_processes_that_share_a_redis_share_the_answers(
    indexed_dir: Path, tmp_path: Path, redis_settings: RedisSettings
) -> None:
    for number, expected in enumerate([[False, False], [True, True]]):
        folder = Path(shutil.copytree(indexed_dir, tmp_path / str(number)))
        async with Chatbot(settings_for(folder, redis=redis_settings)) as bot:
            assert await cached(bot, MINOR, PENALTY) == expected
            assert await cached(bot, REWORDED) == [True]


class BrokenStore:
    """A store that has gone away."""

    async def get(self, key: AnswerKey) -> RememberedAnswer | None:
        raise StoreUnavailable("없음")

    async def backed_by(self, scope: str, faq_ids: Sequence[str], *, limit: int) -> list[RememberedAnswer]:
        raise StoreUnavailable("없음")

    async def put(self, key: AnswerKey, answer: RememberedAnswer) -> None:
        raise StoreUnavailable("없음")


async def test_store_that_is_away_costs_no_answer(bot: Chatbot) -> None:
    broken = AnswerCache(BrokenStore(), read=bot.services.morphemes.read)
    answering = with_workflow(bot, workflow_over(bot.services, cache=broken))
    reply = await answering.ask(MINOR)
    assert (reply.answer.kind, reply.answer.cached, reply.answer.degraded) == ("answered", False, False)


@pytest.mark.parametrize(
    ("one", "other"),
    [("정산은 언제?", " 정산은  언제 "), ("ＡＰＩ 오류", "api 오류."), ("정산은 언제 되나요?!", "정산은 언제 되나요…")],
    ids=["blanks", "width and case", "closing"],
)
def test_writings_of_one_text_are_normalized_alike(one: str, other: str) -> None:
    assert normalized(one) == normalized(other)


def test_digits_and_blanks_between_words_stay_in_the_normalized_text() -> None:
    assert normalized("1.5% 할인 쿠폰?") == "1.5% 할인 쿠폰"


# With a model.


@dataclass(frozen=True)
class Modelled:
    """A workflow that asks the scripted model, and how often it did."""

    workflow: AnswerWorkflow
    server: ModelServer

    async def ask(self, question: str, history: tuple[Turn, ...] = ()) -> bool:
        """Return whether the answer was given before."""
        asked = QuestionAsked(question=question, history=history, model=OPENAI)
        return (await outcome_of(self.workflow, asked)).written.cached

    def requests(self) -> int:
        return int(json.loads(self.server.get("/stub/stats")).get("chat", 0))


@pytest.fixture
async def modelled(bot: Chatbot, store: SqliteAnswers, model_server: ModelServer) -> AsyncIterator[Modelled]:
    model = openai_model(OpenAISettings(model="stub"), key="sk-test", base_url=model_server.url)
    yield Modelled(
        workflow_over(bot.services, cache=cache_of(bot, store), models=Models({"openai": model})), model_server
    )
    await model.close()


async def test_equal_questions_that_come_at_once_ask_the_model_once(modelled: Modelled) -> None:
    before = modelled.requests()
    found = await asyncio.gather(*(modelled.ask(PENALTY) for _ in range(8)))
    assert modelled.requests() == before + 1
    assert sorted(found) == [False] + [True] * 7


async def test_different_questions_do_not_wait_for_each_other(modelled: Modelled) -> None:
    before = modelled.requests()
    assert not any(await asyncio.gather(modelled.ask(PENALTY), modelled.ask(MINOR)))
    assert modelled.requests() == before + 2


async def test_when_the_first_asker_hangs_up_the_next_one_asks(modelled: Modelled) -> None:
    before = modelled.requests()
    async with aclosing(events_of(modelled.workflow, QuestionAsked(question=PENALTY, model=OPENAI))) as first:
        async for event in first:
            if isinstance(event, TokenStreamed):
                break
        waiting = asyncio.ensure_future(modelled.ask(PENALTY))
    assert await waiting is False
    assert modelled.requests() == before + 2
    assert await modelled.ask(PENALTY)


async def test_extract_is_not_given_for_a_models_answer(modelled: Modelled) -> None:
    await outcome_of(modelled.workflow, QuestionAsked(question=PENALTY, model="extractive"))
    assert not await modelled.ask(PENALTY)
    assert await modelled.ask(PENALTY)


async def test_answer_of_a_model_that_saw_a_conversation_is_not_kept(modelled: Modelled) -> None:
    talk = (Turn(question=MINOR, standalone=MINOR, answer="됩니다.", kind="answered"),)
    assert [await modelled.ask(SHIPPING, talk), await modelled.ask(SHIPPING)] == [False, False]
    assert await modelled.ask(SHIPPING, talk)  # it does not lean on the conversation, so any answer to it will do


async def test_degraded_answer_is_not_kept(bot: Chatbot, store: SqliteAnswers, model_server: ModelServer) -> None:
    model = openai_model(OpenAISettings(model="stub-500", max_retries=0), key="sk-test", base_url=model_server.url)
    try:
        workflow = workflow_over(bot.services, cache=cache_of(bot, store), models=Models({"openai": model}))
        asked = QuestionAsked(question=PENALTY, model=OPENAI)
        found = [(await outcome_of(workflow, asked)).written for _ in range(2)]
    finally:
        await model.close()
    assert [(written.degraded, written.cached) for written in found] == [(True, False), (True, False)]
