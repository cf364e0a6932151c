"""The answer workflow over the sample FAQ, through the library's door."""

from collections.abc import Sequence

import pytest

from smartstore_indexing.errors import InvalidRequest, UnknownResource
from smartstore_workflows import Chatbot, wire
from smartstore_workflows.events import STAGES, Turn
from smartstore_workflows.wording import REFUSAL

MINOR = "미성년자도 판매 회원 등록이 가능한가요?"
RESTAURANT = "오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?"


async def events(bot: Chatbot, question: str, **arguments: str) -> list[wire.StreamEvent]:
    return [event async for event in bot.stream(question, **arguments)]


def names(found: Sequence[wire.StreamEvent]) -> list[str]:
    """Return the events' names, runs of tokens as one."""
    out: list[str] = []
    for event in found:
        if not (out and out[-1] == event.event == "token"):
            out.append(event.event)
    return out


async def test_answer_comes_as_the_wire_format_says(bot: Chatbot) -> None:
    found = await events(bot, MINOR)
    assert [event.id for event in found] == list(range(1, len(found) + 1))
    assert [event.data.stage for event in found if isinstance(event.data, wire.Stage)] == list(STAGES)
    assert names(found) == [
        *("started", "stage", "stage", "stage", "stage"),
        *("sources", "token", "answer", "stage", "suggestions", "done"),
    ]


async def test_tokens_join_to_the_answer_and_cite_its_source(bot: Chatbot) -> None:
    reply = await bot.ask(MINOR)
    assert reply.answer.kind == "answered"
    assert reply.answer.text.endswith("[1]")
    assert reply.answer.citations == (reply.sources[0].id,)
    assert "미성년자" in reply.sources[0].question
    tokens = [event.data.text for event in await events(bot, MINOR) if isinstance(event.data, wire.Token)]
    assert "".join(tokens) == reply.answer.text


async def test_every_follow_up_is_answered_by_its_faq(bot: Chatbot) -> None:
    reply = await bot.ask(MINOR)
    assert 2 <= len(reply.suggestions) <= 3
    for offer in reply.suggestions:
        chosen = await bot.ask(offer.text, faq_id=offer.faq_id)
        assert chosen.answer.kind == "answered"
        assert chosen.answer.citations == (offer.faq_id,)
        assert chosen.suggestions


async def test_unrelated_question_is_refused_word_for_word_with_a_bridge(bot: Chatbot) -> None:
    reply = await bot.ask(RESTAURANT)
    assert reply.answer.kind == "refused"
    assert (
        reply.answer.text
        == REFUSAL
        == ("저는 스마트 스토어 FAQ를 위한 챗봇입니다. 스마트 스토어에 대한 질문을 부탁드립니다.")
    )
    assert reply.sources == ()
    assert len(reply.suggestions) == 1
    assert (await bot.ask("", faq_id=reply.suggestions[0].faq_id)).answer.kind == "answered"


@pytest.mark.parametrize("session_id", ["a\ud800", "x" * 201], ids=["lone surrogate", "too long"])
async def test_session_id_that_cannot_be_kept_is_refused(bot: Chatbot, session_id: str) -> None:
    with pytest.raises(InvalidRequest):
        await bot.ask(MINOR, session_id=session_id)


async def test_unknown_follow_up_is_refused_before_the_run_begins(bot: Chatbot) -> None:
    with pytest.raises(UnknownResource):
        await bot.ask("정산은요?", faq_id="0" * 16)


async def test_chosen_follow_up_is_checked_like_any_question(bot: Chatbot) -> None:
    faq_id = (await bot.ask(MINOR)).answer.citations[0]
    with pytest.raises(InvalidRequest):
        await bot.ask("가" * 2_001, faq_id=faq_id)


async def test_outcome_carries_the_judgement(bot: Chatbot) -> None:
    kept, refused = (await bot.outcome(MINOR)).written, (await bot.outcome(RESTAURANT)).written
    assert 0 < refused.in_scope < kept.in_scope < 1
    assert 0 < refused.found < kept.found < 1


async def test_chosen_follow_up_is_certain(bot: Chatbot) -> None:
    offered = (await bot.ask(MINOR)).suggestions[0].faq_id
    turn = Turn(question=MINOR, standalone=MINOR, answer="됩니다.", kind="answered", offered=(offered,))
    written = (await bot.outcome("네", [turn])).written
    assert written.citations == (offered,)
    assert (written.in_scope, written.found) == (1.0, 1.0)
