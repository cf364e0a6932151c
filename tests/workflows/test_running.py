import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest
from conftest import ModelServer, wait_until, workflow_over

from smartstore_indexing.errors import TransientError
from smartstore_indexing.model_settings import OpenAISettings
from smartstore_indexing.settings import EXTRACTIVE, OPENAI
from smartstore_workflows import Chatbot
from smartstore_workflows.answering import AnswerWorkflow
from smartstore_workflows.chat_model import AnswerModel
from smartstore_workflows.events import Outcome, QuestionAsked, TokenStreamed, Turn
from smartstore_workflows.models import Models
from smartstore_workflows.openai_chat import openai_model
from smartstore_workflows.running import events_of

QUESTION = "미성년자도 판매 회원 등록이 가능한가요?"
# The scripted model finds its reply anywhere in the chat: four seconds of it, unless someone hangs up.
SCRIPT = Turn(question="앞", standalone="앞", answer=f"[[reply: {'가나다 ' * 2_000}]]", kind="answered")
LONG = QuestionAsked(question=QUESTION, history=(SCRIPT,), model=OPENAI)


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition without holding up the loop that has to bring it about."""
    await asyncio.to_thread(wait_until, holds, seconds)


def stats(server: ModelServer) -> dict[str, int]:
    found: dict[str, int] = json.loads(server.get("/stub/stats"))
    return {"live": 0, "chat": 0, "disconnected": 0, **found}


def workflow_of(bot: Chatbot, model: AnswerModel | None, timeout_seconds: float = 30.0) -> AnswerWorkflow:
    """Return a workflow over the bot's own index, with another model or timeout."""
    return workflow_over(
        bot.services, models=Models({"openai": model} if model else {}), timeout_seconds=timeout_seconds
    )


@pytest.fixture
async def model(model_server: ModelServer) -> AsyncIterator[AnswerModel]:
    opened = openai_model(OpenAISettings(model="stub"), key="sk-test", base_url=model_server.url)
    yield opened
    await opened.close()


@pytest.fixture
async def silent(model_server: ModelServer) -> AsyncIterator[AnswerModel]:
    opened = openai_model(OpenAISettings(model="stub-hang", max_retries=0), key="sk-test", base_url=model_server.url)
    yield opened
    await opened.close()


async def test_events_end_with_the_outcome(bot: Chatbot) -> None:
    found = [
        event async for event in events_of(bot.services.workflow, QuestionAsked(question=QUESTION, model=EXTRACTIVE))
    ]
    assert [isinstance(event, Outcome) for event in found] == [*([False] * (len(found) - 1)), True]


async def test_leaving_the_stream_stops_the_model_in_mid_answer(
    bot: Chatbot, model: AnswerModel, model_server: ModelServer
) -> None:
    before = stats(model_server)
    async with aclosing(events_of(workflow_of(bot, model), LONG)) as found:
        async for event in found:
            if isinstance(event, TokenStreamed):
                break
        assert stats(model_server)["live"] == before["live"] + 1
    await until(lambda: stats(model_server)["live"] == before["live"])
    assert stats(model_server)["disconnected"] == before["disconnected"] + 1


async def test_cancelled_reader_stops_the_model_in_mid_answer(
    bot: Chatbot, model: AnswerModel, model_server: ModelServer
) -> None:
    before = stats(model_server)
    streaming = asyncio.Event()

    async def read() -> None:
        async with aclosing(events_of(workflow_of(bot, model), LONG)) as found:
            async for event in found:
                if isinstance(event, TokenStreamed):
                    streaming.set()

    reader = asyncio.ensure_future(read())
    await asyncio.wait_for(streaming.wait(), 10)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await until(lambda: stats(model_server)["live"] == before["live"])
    assert stats(model_server)["disconnected"] == before["disconnected"] + 1


async def test_leaving_the_stream_ends_the_steps_that_run(bot: Chatbot, silent: AnswerModel) -> None:
    workflow = workflow_of(bot, silent)
    others = asyncio.all_tasks()
    async with aclosing(events_of(workflow, QuestionAsked(question=QUESTION, model=OPENAI))) as found:
        await anext(found)
        assert asyncio.all_tasks() > others
    left = asyncio.all_tasks() - others
    if left:
        await asyncio.wait(left, timeout=10)
    assert asyncio.all_tasks() <= others


async def test_run_that_outlasts_its_time_is_a_transient_error(bot: Chatbot, silent: AnswerModel) -> None:
    workflow = workflow_of(bot, silent, timeout_seconds=0.5)
    with pytest.raises(TransientError, match="제한 시간") as raised:
        async for _ in events_of(workflow, QuestionAsked(question=QUESTION, model=OPENAI)):
            pass
    assert type(raised.value) is TransientError


async def test_error_of_a_step_reaches_the_reader(bot: Chatbot) -> None:
    gone = QuestionAsked(question=QUESTION, faq_id="0" * 16, model=EXTRACTIVE)
    with pytest.raises(Exception, match="FAQ가 지금 색인에 없습니다") as raised:
        async for _ in events_of(bot.services.workflow, gone):
            pass
    assert type(raised.value).__name__ == "UnknownResource"


async def test_fifty_questions_at_once_each_get_their_own_answer(bot: Chatbot) -> None:
    catalog = await bot.services.retriever.catalog()
    faqs = [faq for faq in catalog if faq.question.endswith("나요?")][:50]
    alone = [(await bot.ask(faq.question)).answer.text for faq in faqs]
    together = await asyncio.gather(*(bot.ask(faq.question, session_id=f"fifty {faq.id}") for faq in faqs))
    assert len(together) == 50
    assert [reply.answer.text for reply in together] == alone
    assert [reply.session_id for reply in together] == [f"fifty {faq.id}" for faq in faqs]
    own = [faq.id in reply.answer.citations for faq, reply in zip(faqs, together, strict=True)]
    assert sum(own) >= 48  # two questions of the sample are near twins of others


async def test_fifty_conversations_at_once_keep_their_turns_apart(bot: Chatbot) -> None:
    names = [f"apart {place}" for place in range(50)]
    await asyncio.gather(
        *(bot.ask(f"{place}번 상품의 정산은 언제 되나요?", session_id=name) for place, name in enumerate(names))
    )
    for place, name in enumerate(names):
        turns = await bot.services.stores.conversations.turns(name)
        assert [turn.question for turn in turns] == [f"{place}번 상품의 정산은 언제 되나요?"]
