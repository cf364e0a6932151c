"""The model's optional steps within a whole answer, over the sample FAQ and the scripted model."""

from collections.abc import AsyncIterator

import pytest
from blockbuster import blockbuster_ctx
from conftest import ModelServer
from modelling import FAULTS, model_of, sent, stats, stepping

from smartstore_indexing.faq import Catalog
from smartstore_indexing.setting_groups import StepSettings
from smartstore_indexing.settings import OPENAI
from smartstore_workflows import Chatbot
from smartstore_workflows.chat_model import AnswerModel
from smartstore_workflows.events import Asked, Passage
from smartstore_workflows.model_steps import ModelSteps
from smartstore_workflows.models import Models
from smartstore_workflows.run_events import new_id
from smartstore_workflows.wording import offer

MINOR = "미성년자도 판매 회원 등록이 가능한가요?"
FOLLOW_UP = "그럼 서류는요?"
WHOLE = "미성년자가 가입 신청할 때 필요한 동의 서류는 무엇인가요?"
RESTAURANT = "오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?"
BOTH = StepSettings(rewrite=True, rerank=True)
ALL = StepSettings(rewrite=True, rerank=True, scope=True, suggest=True)


@pytest.fixture
async def model(model_server: ModelServer) -> AsyncIterator[AnswerModel]:
    async with model_of(model_server.url) as opened:
        yield opened


async def conversation(bot: Chatbot) -> str:
    """Return a session in which one question was answered, without a request to the model."""
    session_id = new_id()
    await bot.ask(MINOR, session_id=session_id, model="extractive")
    return session_id


async def test_with_both_steps_off_only_the_answer_is_asked_for(
    bot: Chatbot, model: AnswerModel, model_server: ModelServer
) -> None:
    off = stepping(bot, model, StepSettings())
    before = stats(model_server)["chat"]
    session_id = await conversation(off)
    reply = await off.ask(FOLLOW_UP, session_id=session_id)
    assert reply.answer.model == "stub"
    assert stats(model_server)["chat"] == before + 1
    assert sent(model_server)[-1]["content"].endswith(f"<question>\n{MINOR} {FOLLOW_UP}\n</question>")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (0, 0)  # the stub counts no streamed tokens


async def test_follow_up_is_searched_answered_and_remembered_as_the_model_rewrote_it(
    bot: Chatbot, model: AnswerModel, model_server: ModelServer
) -> None:
    rewriting = stepping(bot, model, StepSettings(rewrite=True))
    session_id = await conversation(rewriting)
    before = stats(model_server)["chat"]
    reply = await rewriting.ask(f"그건 왜 그런 거예요? [[reply: {WHOLE}]]", session_id=session_id)
    assert stats(model_server)["chat"] == before + 2
    assert sent(model_server)[-1]["content"].endswith(f"<question>\n{WHOLE}\n</question>")
    assert reply.sources[0].id == (await bot.ask(WHOLE)).sources[0].id
    assert (await bot.services.stores.conversations.turns(session_id))[-1].standalone == WHOLE
    assert reply.usage.prompt_tokens == 100
    assert reply.usage.completion_tokens > 1


async def test_question_that_does_not_lean_is_not_rewritten(
    bot: Chatbot, model: AnswerModel, model_server: ModelServer
) -> None:
    rewriting = stepping(bot, model, StepSettings(rewrite=True))
    session_id = await conversation(rewriting)
    before = stats(model_server)["chat"]
    await rewriting.ask("반품 배송비는 누가 부담하나요?", session_id=session_id)
    assert stats(model_server)["chat"] == before + 1


async def test_what_was_taken_for_a_refused_question_is_counted(bot: Chatbot, model: AnswerModel) -> None:
    stepped = stepping(bot, model, BOTH)
    session_id = await conversation(stepped)
    reply = await stepped.ask(f"그럼 [[reply: {RESTAURANT}]]", session_id=session_id)
    assert reply.answer.kind == "refused"
    assert reply.usage.prompt_tokens == 100


async def test_faqs_are_answered_from_in_the_order_that_the_model_gave(
    bot: Chatbot, model: AnswerModel, model_server: ModelServer
) -> None:
    question = f"{MINOR} [[reply: 3, 1]]"
    before = [source.id for source in (await stepping(bot, model, StepSettings()).ask(question)).sources]
    requests = stats(model_server)["chat"]
    reply = await stepping(bot, model, StepSettings(rerank=True)).ask(question)
    assert stats(model_server)["chat"] == requests + 2
    assert [source.id for source in reply.sources] == [before[2], before[0], before[1], *before[3:]]
    assert [source.n for source in reply.sources] == [1, 2, 3, 4, 5]
    assert reply.usage.prompt_tokens == 100


async def test_steps_ask_nothing_for_an_extract_a_refusal_and_a_chosen_follow_up(
    bot: Chatbot, model: AnswerModel, model_server: ModelServer
) -> None:
    stepped = stepping(bot, model, BOTH)
    before = stats(model_server)["chat"]
    session_id = await conversation(stepped)
    extract = await stepped.ask(FOLLOW_UP, session_id=session_id, model="extractive")
    assert (await stepped.ask(RESTAURANT)).answer.kind == "refused"
    assert stats(model_server)["chat"] == before
    await stepped.ask(FOLLOW_UP, session_id=session_id, faq_id=extract.sources[0].id)
    assert stats(model_server)["chat"] == before + 1


@pytest.mark.parametrize("name", FAULTS)
async def test_failing_steps_leave_the_answer_as_it_is_without_them(
    bot: Chatbot, model_server: ModelServer, name: str
) -> None:
    seconds = 1.0 if name == "stub-hang" else 10.0
    replies = []
    async with model_of(model_server.url, name, timeout_seconds=seconds) as model:
        for steps in (StepSettings(), ALL.model_copy(update={"timeout_seconds": seconds})):
            stepped = stepping(bot, model, steps)
            session_id = await conversation(stepped)
            # stub-cut cuts streams alone, and its reply to a step is of no use.
            replies.append(await stepped.ask(f"{FOLLOW_UP} [[reply: 1? 2? 3? 4? 5? 6? 7?]]", session_id=session_id))
    without, reply = replies
    assert (reply.answer, reply.sources) == (without.answer, without.sources)
    assert reply.answer.degraded


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("비번 여러 번 틀려서 막혔어 어떡해 [[reply: 예]]", "answered"),
        ("억울한패널티 소명 어떡해 하나요 [[reply: 아니요]]", "refused"),
    ],
)
async def test_uncertain_question_is_kept_or_refused_as_the_model_judged_it(
    bot: Chatbot, model: AnswerModel, model_server: ModelServer, question: str, kind: str
) -> None:
    assert (await bot.ask(question)).answer.kind != kind
    before = stats(model_server)["chat"]
    reply = await stepping(bot, model, StepSettings(scope=True)).ask(question)
    assert reply.answer.kind == kind
    assert stats(model_server)["chat"] == before + 1 + (kind == "answered")
    assert reply.usage.prompt_tokens == 100
    assert bool(reply.sources) is (kind == "answered")


async def test_question_whose_scope_is_sure_costs_no_call(
    bot: Chatbot, model: AnswerModel, model_server: ModelServer
) -> None:
    scoped = stepping(bot, model, StepSettings(scope=True))
    before = stats(model_server)["chat"]
    assert (await scoped.ask(RESTAURANT)).answer.kind == "refused"
    assert stats(model_server)["chat"] == before
    assert (await scoped.ask(MINOR)).answer.kind == "answered"
    assert stats(model_server)["chat"] == before + 1


async def test_follow_ups_are_offered_in_the_order_that_the_model_gave(
    bot: Chatbot, model: AnswerModel, model_server: ModelServer
) -> None:
    catalog = await bot.services.retriever.catalog()
    question = f'{MINOR} [[reply: {{"faqs": [4, 2]}}]]'
    plain = await stepping(bot, model, StepSettings()).ask(question)
    local = [suggestion.faq_id for suggestion in plain.suggestions]
    before = stats(model_server)["chat"]
    reply = await stepping(bot, model, StepSettings(suggest=True)).ask(question)
    assert stats(model_server)["chat"] == before + 2
    chosen = [suggestion.faq_id for suggestion in reply.suggestions]
    assert chosen[1:] == [local[1], local[0]]
    assert chosen[0] not in local
    assert all(catalog.get(faq_id) for faq_id in chosen)
    assert [suggestion.text for suggestion in reply.suggestions] == [
        offer(catalog[faq_id].question, "answered") for faq_id in chosen
    ]
    assert reply.usage.prompt_tokens == 100


async def test_step_that_fails_once_costs_the_answer_nothing(bot: Chatbot, model_server: ModelServer) -> None:
    async with model_of(model_server.url, "stub-flaky") as model:
        rewriting = stepping(bot, model, StepSettings(rewrite=True))
        session_id = await conversation(rewriting)
        reply = await rewriting.ask(FOLLOW_UP, session_id=session_id)
    assert (reply.answer.model, reply.answer.degraded) == ("stub-flaky", False)
    assert sent(model_server)[-1]["content"].endswith(f"<question>\n{MINOR} {FOLLOW_UP}\n</question>")


async def test_passages_whose_faqs_are_gone_come_last(bot: Chatbot, model: AnswerModel) -> None:
    faqs = list(await bot.services.retriever.catalog())[:3]
    passages = tuple(Passage(faq_id=faq_id, score=0.5) for faq_id in ("0" * 16, *(faq.id for faq in faqs)))
    asked = Asked(question="질문", standalone="질문 [[reply: 2]]", model=OPENAI)
    _, found = await ModelSteps(Models({"openai": model}), bot.services.scope, BOTH).reranked(
        asked, passages, Catalog(faqs)
    )
    assert found == (passages[2], passages[1], passages[3], passages[0])


async def test_steps_never_block_the_event_loop(bot: Chatbot, model: AnswerModel) -> None:
    stepped = stepping(bot, model, ALL)
    session_id = await conversation(stepped)
    await stepped.ask(FOLLOW_UP, session_id=session_id)  # the first request of a model loads certificates
    with blockbuster_ctx():
        reply = await stepped.ask(FOLLOW_UP, session_id=session_id)
    assert reply.answer.kind == "answered"
