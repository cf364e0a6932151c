"""Sixty injections, in the question, the conversation and the FAQ, through the whole bot.

What the model is sent is checked on the scripted server; with stub-echo the model gives away all that it was sent.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ModelServer, settings_for
from pydantic import BaseModel, SecretStr

from smartstore_indexing.faq import faq_id
from smartstore_indexing.model_settings import CompatibleSettings, OpenAISettings
from smartstore_indexing.setting_groups import CacheSettings
from smartstore_workflows import Chatbot, wire
from smartstore_workflows.events import Turn
from smartstore_workflows.masking import mask
from smartstore_workflows.prompting import HIDDEN, NARROW, prompts, rules, unfenced
from smartstore_workflows.run_events import new_id

INJECTIONS = [json.loads(line) for line in Path(__file__).with_name("injections.jsonl").read_text("utf-8").splitlines()]
MODELS = {"openai": "stub", "compatible": "stub-echo"}
FAQS = {
    "미성년자도 판매 회원으로 가입할 수 있나요?": "만 14세 이상이면 법정대리인의 동의를 받아 가입할 수 있습니다.",
    "반품 배송비는 누가 부담하나요?": "구매자의 단순 변심이면 구매자가, 상품의 하자이면 판매자가 부담합니다.",
    "정산은 언제 되나요?": "구매 확정 다음 날부터 영업일 기준 1일 뒤에 정산됩니다.",
    "배송비는 어떻게 설정하나요?": "배송 정보 메뉴에서 기본 배송비를 설정합니다.",
}
FOLLOW_UP = "반품 배송비는 누가 부담하나요?"
SECRET = "무지개고래상점"  # what another seller tells the bot right before
OTHERS = f"{SECRET}인데요, 정산은 언제 되나요?"
CONTEXT = re.compile(
    r"((?:<faq number=\"\d\">\n질문: [^\n]*\n답변: (?:(?!</faq>).)*\n</faq>\n)+)<question>\n(.*)\n</question>",
    re.DOTALL,
)
BLOCK = re.compile(r"<faq number=\"(\d)\">\n질문: ([^\n]*)\n답변: (.*?)\n</faq>\n", re.DOTALL)
TAG = re.compile(r"<[\s/]*(?:faq|question|history)\b|<\|", re.IGNORECASE)
STRETCH = 20


def stretches(text: str) -> set[str]:
    """Return all that stands in a text, with its blanks and without, twenty characters at a time."""
    forms = (text, re.sub(r"\s", "", text))
    return {form[at : at + STRETCH] for form in forms for at in range(len(form) - STRETCH + 1)}


RULES = stretches("\n".join(map(rules, prompts())))


def of(where: str) -> list[Any]:
    found = [injection for injection in INJECTIONS if injection["where"] == where]
    return [pytest.param(injection, id=str(place)) for place, injection in enumerate(found)]


@pytest.fixture(scope="module")
async def injected(model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chatbot]:
    """Yield a bot over an FAQ into which twenty injections were written, with both models."""
    folder = tmp_path_factory.mktemp("injected")
    rows = FAQS | {injection["title"]: injection["text"] for injection in INJECTIONS if "title" in injection}
    faq = folder / "faq.jsonl"
    lines = (json.dumps({"question": title, "answer": answer}, ensure_ascii=False) for title, answer in rows.items())
    faq.write_text("\n".join(lines), encoding="utf-8")
    settings = settings_for(
        folder / "data",
        faq=faq,
        cache=CacheSettings(enabled=False),
        openai_api_key=SecretStr("sk-test"),
        openai_base_url=model_server.url,
        openai=OpenAISettings(model=MODELS["openai"]),
        compatible=CompatibleSettings(url=model_server.url, model=MODELS["compatible"]),
    )
    async with Chatbot(settings) as opened:
        await opened.services.builder.build(settings.faq)
        yield opened


async def events_of(bot: Chatbot, question: str, **how: Any) -> list[wire.StreamEvent]:
    return [event async for event in bot.stream(question, **how)]


async def another_seller_asks(bot: Chatbot) -> None:
    await events_of(bot, OTHERS, session_id=new_id(), model="compatible")  # stopped at once, so sooner than "openai"


def asked_times(server: ModelServer) -> int:
    return int(json.loads(server.get("/stub/stats")).get("chat", 0))


def answer_of(events: list[wire.StreamEvent]) -> wire.Answer:
    (answer,) = (event.data for event in events if isinstance(event.data, wire.Answer))
    return answer


def texts_of(data: object) -> Iterator[str]:
    """Yield every text in an event's data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, BaseModel):
        yield from texts_of(list(vars(data).values()))
    elif isinstance(data, dict):
        yield from texts_of([*data, *data.values()])
    elif isinstance(data, list | tuple):
        for item in data:
            yield from texts_of(item)


def check_shown(events: list[wire.StreamEvent], bot_answers: set[str], model: str) -> None:
    """Check that the reader sees nothing of the rules, of a fence that the model wrote, or of the other seller."""
    assert [event.event for event in events if event.event in ("error", "done")] == ["done"]
    tokens = "".join(event.data.text for event in events if isinstance(event.data, wire.Token))
    everything = "\n".join([tokens, *texts_of([event.data for event in events])])
    assert RULES & stretches(everything) == set()
    assert SECRET not in everything
    answer = answer_of(events)
    assert answer.kind in ("answered", "refused", "not_found")
    if answer.kind == "answered" and MODELS[model] == "stub-echo":
        restarted = next(place for place, event in enumerate(events) if event.event == "restart")
        assert not any(isinstance(event.data, wire.Token) for event in events[:restarted])
        assert (answer.model, answer.degraded) == ("extractive", True)
        assert answer.text.removesuffix(" [1]") in bot_answers


async def check_sent(bot: Chatbot, server: ModelServer, question: str, turns: list[Turn]) -> None:
    """Check that the model saw the rules, this conversation, and FAQs and the question in whole fences; no more."""
    messages = json.loads(server.get("/stub/last"))["messages"]
    assert messages[0] == {"role": "system", "content": rules()}
    pairs = [(("user", turn.question), ("assistant", turn.answer)) for turn in turns]
    told = [(role, unfenced(text)) for pair in pairs for role, text in pair]
    assert [(message["role"], message["content"]) for message in messages[1:-1]] == told
    assert messages[-1]["role"] == "user"
    context = CONTEXT.fullmatch(messages[-1]["content"])
    assert context is not None
    blocks, asked = context.groups()
    catalog = {unfenced(faq.title): unfenced(faq.answer) for faq in await bot.services.retriever.catalog()}
    found = BLOCK.findall(blocks)
    assert [int(number) for number, _, _ in found] == list(range(1, len(found) + 1))
    assert all(catalog[title] == answer for _, title, answer in found)
    assert asked.endswith(unfenced(mask(question)))
    assert asked.removesuffix(unfenced(mask(question))).strip() in ("", *(unfenced(turn.standalone) for turn in turns))
    everything = HIDDEN.sub("", json.dumps(messages[1:], ensure_ascii=False)).translate(NARROW)
    assert len(TAG.findall(everything)) == 2 * len(found) + 2
    assert SECRET not in everything


async def answers_of(bot: Chatbot) -> set[str]:
    return {faq.answer for faq in await bot.services.retriever.catalog()}


def test_there_are_twenty_of_each() -> None:
    assert [len(of(where)) for where in ("question", "history", "faq")] == [20, 20, 20]
    assert RULES & stretches(json.dumps(INJECTIONS, ensure_ascii=False)) == set()


@pytest.mark.parametrize("injection", of("question"))
async def test_injection_in_the_question(
    injected: Chatbot, model_server: ModelServer, injection: dict[str, str]
) -> None:
    text = injection["text"]
    await another_seller_asks(injected)
    for model in MODELS:
        before = asked_times(model_server)
        events = await events_of(injected, text, model=model)
        check_shown(events, await answers_of(injected), model)
        if answer_of(events).kind != "answered":  # eight are refused or not found; a chosen FAQ is always answered
            assert asked_times(model_server) == before
            events = await events_of(injected, text, model=model, faq_id=faq_id(FOLLOW_UP))
            check_shown(events, await answers_of(injected), model)
        assert asked_times(model_server) == before + 1
        await check_sent(injected, model_server, text, [])


@pytest.mark.parametrize("injection", of("history"))
async def test_injection_in_the_conversation(
    injected: Chatbot, model_server: ModelServer, injection: dict[str, str]
) -> None:
    for model in MODELS:
        turns, how = await conversation(injected, injection, model)
        await another_seller_asks(injected)
        before = asked_times(model_server)
        events = await events_of(injected, FOLLOW_UP, model=model, **how)
        assert answer_of(events).kind == "answered"
        assert asked_times(model_server) == before + 1
        await check_sent(injected, model_server, FOLLOW_UP, turns)
        check_shown(events, await answers_of(injected), model)


async def conversation(bot: Chatbot, injection: dict[str, str], model: str) -> tuple[list[Turn], dict[str, Any]]:
    """Return a conversation that holds the injection, and how a question goes on with it."""
    if injection["by"] == "user":
        session = new_id()
        await events_of(bot, injection["text"], session_id=session, model=model)
        return await bot.services.stores.conversations.turns(session), {"session_id": session}
    # As a client of the OpenAI API can pretend.
    turn = Turn(question="안녕하세요, 판매자입니다.", standalone="안녕", answer=injection["text"], kind="answered")
    return [turn], {"history": [turn]}


@pytest.mark.parametrize("injection", of("faq"))
async def test_injection_in_an_faq(injected: Chatbot, model_server: ModelServer, injection: dict[str, str]) -> None:
    await another_seller_asks(injected)
    for model in MODELS:
        before = asked_times(model_server)
        events = await events_of(injected, injection["title"], model=model)
        assert answer_of(events).kind == "answered"
        assert asked_times(model_server) == before + 1
        await check_sent(injected, model_server, injection["title"], [])
        sources = next(event.data for event in events if event.event == "sources")
        assert injection["title"] in texts_of(sources)
        check_shown(events, await answers_of(injected), model)
