"""The whole bot, answering by the scripted model, and by another where that one fails."""

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ModelServer, settings_for, workflow_over
from modelling import FAULTS, model_of, sent, stats, stepping
from pydantic import SecretStr

from smartstore_indexing.errors import UnknownModel
from smartstore_indexing.model_settings import CompatibleSettings, OpenAISettings, VllmSettings
from smartstore_indexing.setting_groups import StepSettings
from smartstore_indexing.settings import Settings
from smartstore_workflows import Chatbot, wire
from smartstore_workflows.models import Models
from smartstore_workflows.prompting import rules
from smartstore_workflows.tokens import estimated_tokens

QUESTION = "미성년자도 판매 회원 등록이 가능한가요?"


def settings_with_model(data_dir: Path, server: ModelServer, name: str = "stub") -> Settings:
    return settings_for(
        data_dir,
        openai_api_key=SecretStr("sk-test"),
        openai_base_url=server.url,
        openai=OpenAISettings(model=name, max_retries=0, timeout_seconds=1.0 if name == "stub-hang" else 10.0),
    )


@asynccontextmanager
async def answering(bot: Chatbot, settings: Settings) -> AsyncIterator[Chatbot]:
    """Yield a bot over another's open index, which takes seconds to load, with the models of its own settings."""
    models = Models.of(settings)
    workflow = workflow_over(bot.services, models=models, timeout_seconds=settings.question_timeout_seconds)
    found = Chatbot(settings)
    found._services = replace(bot.services, settings=settings, models=models, workflow=workflow)
    try:
        yield found
    finally:
        await models.close()


@pytest.fixture(scope="module")
async def model_bot(
    indexed_dir: Path, model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Chatbot]:
    folder = Path(shutil.copytree(indexed_dir, tmp_path_factory.mktemp("model") / "data"))
    async with Chatbot(settings_with_model(folder, model_server)) as opened:
        yield opened


async def test_model_answers_by_default_when_there_is_a_key(model_bot: Chatbot) -> None:
    found = [event async for event in model_bot.stream(f"{QUESTION} [[reply: 가능합니다 [1].]]")]
    started = found[0].data
    assert isinstance(started, wire.Started)
    assert started.model == "stub"
    tokens = [event.data.text for event in found if isinstance(event.data, wire.Token)]
    assert len(tokens) > 1
    assert "".join(tokens) == "가능합니다 [1]."


async def test_answer_cites_its_sources_and_drops_what_points_nowhere(model_bot: Chatbot) -> None:
    reply = await model_bot.ask(f"{QUESTION} [[reply: 답입니다 [1] 그리고 [9].]]")
    assert "미성년자" in reply.sources[0].question
    assert reply.answer.citations == (reply.sources[0].id,)
    assert reply.answer.text == "답입니다 [1] 그리고 ."
    assert (reply.answer.kind, reply.answer.model, reply.answer.degraded) == ("answered", "stub", False)


async def test_answer_without_a_citation_cites_nothing(model_bot: Chatbot) -> None:
    reply = await model_bot.ask(f"{QUESTION} [[reply: FAQ에서 확인되지 않는 내용입니다.]]")
    assert reply.answer.citations == ()
    assert reply.answer.text == "FAQ에서 확인되지 않는 내용입니다."


async def test_extractive_can_be_chosen_and_calls_no_model(model_bot: Chatbot, model_server: ModelServer) -> None:
    before = stats(model_server)["chat"]
    reply = await model_bot.ask(QUESTION, model="extractive")
    assert reply.answer.model == "extractive"
    assert reply.answer.text.endswith("[1]")
    assert stats(model_server)["chat"] == before


async def test_refusal_calls_no_model(model_bot: Chatbot, model_server: ModelServer) -> None:
    before = stats(model_server)["chat"]
    reply = await model_bot.ask("오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?")
    assert reply.answer.kind == "refused"
    assert stats(model_server)["chat"] == before


async def test_what_is_sent_is_the_rules_the_faqs_in_fences_and_the_question(
    model_bot: Chatbot, model_server: ModelServer
) -> None:
    reply = await model_bot.ask(QUESTION)
    messages = sent(model_server)
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0]["content"] == rules()
    content = messages[1]["content"]
    for source in reply.sources:
        faq = await model_bot.faq(source.id)
        assert f'<faq number="{source.n}">\n질문: {faq.title}\n답변: {faq.answer}\n</faq>' in content
    assert content.endswith(f"<question>\n{QUESTION}\n</question>")


async def test_what_is_sent_holds_no_personal_data(model_bot: Chatbot, model_server: ModelServer) -> None:
    await model_bot.ask(f"{QUESTION} 제 번호는 010-1234-5678, 메일은 kim@example.com 입니다", session_id="masked")
    await model_bot.ask("그럼 서류는요?", session_id="masked")
    messages = sent(model_server)
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert "제 번호는 [전화번호], 메일은 [이메일] 입니다" in messages[1]["content"]
    assert "[전화번호]" in messages[-1]["content"]
    everything = json.dumps(messages, ensure_ascii=False)
    assert "1234-5678" not in everything
    assert "kim@" not in everything


@pytest.mark.parametrize("name", FAULTS)
async def test_faulty_model_gives_way_to_the_faq(
    bot: Chatbot, tmp_path: Path, model_server: ModelServer, name: str
) -> None:
    message, before = FAULTS[name]
    async with answering(bot, settings_with_model(tmp_path, model_server, name)) as faulty:
        found = [event async for event in faulty.stream(f"{QUESTION} [[reply: 하나 둘 셋 넷 다섯 여섯 일곱]]")]
    restarts = [place for place, event in enumerate(found) if event.event == "restart"]
    assert len(restarts) == 1
    reason = found[restarts[0]].data
    assert isinstance(reason, wire.Restart)
    assert message in reason.reason
    assert tokens_of(found[: restarts[0]]) == before
    (answer,) = [event.data for event in found if isinstance(event.data, wire.Answer)]
    assert tokens_of(found[restarts[0] :]) == answer.text
    assert (answer.kind, answer.model, answer.degraded) == ("answered", "extractive", True)
    extract = (await bot.ask(QUESTION)).answer
    assert (answer.text, answer.citations) == (extract.text, extract.citations)
    assert found[-1].event == "done"


def tokens_of(found: list[wire.StreamEvent]) -> str:
    return "".join(event.data.text for event in found if isinstance(event.data, wire.Token))


def both(data_dir: Path, server: ModelServer, *, openai: str = "stub", vllm: str = "stub", **more: object) -> Settings:
    """Return settings of a bot with both models, OpenAI's the default."""
    return settings_for(
        data_dir,
        openai_api_key=SecretStr("sk-test"),
        openai_base_url=server.url,
        openai=OpenAISettings(model=openai, max_retries=0),
        vllm=VllmSettings(url=server.url, model=vllm, adapters="stub-faq", max_retries=0),
        **more,
    )


async def test_names_of_the_configuration_are_what_a_question_chooses_from(
    bot: Chatbot, tmp_path: Path, model_server: ModelServer
) -> None:
    async with answering(bot, both(tmp_path, model_server, vllm="stub-think")) as many:
        assert many.models == ["openai", "extractive", "vllm", "stub-faq"]
        for name, model in [("vllm", "stub-think"), ("stub-faq", "stub-faq"), ("openai", "stub")]:
            reply = await many.ask(f"{QUESTION} [[reply: 가능합니다 [1].]]", model=name)
            assert reply.answer.model == json.loads(model_server.get("/stub/last"))["model"] == model
        with pytest.raises(UnknownModel, match="openai, extractive, vllm, stub-faq"):
            await many.ask(QUESTION, model="gpt-99")


async def test_models_are_asked_in_turn_where_one_fails(
    bot: Chatbot, tmp_path: Path, model_server: ModelServer
) -> None:
    other = CompatibleSettings(url=model_server.url, model="stub-500", max_retries=0, timeout_seconds=10.0)
    settings = both(tmp_path, model_server, openai="stub-cut", fallback="compatible,vllm", compatible=other)
    async with answering(bot, settings) as many:
        found = [event async for event in many.stream(f"{QUESTION} [[reply: 하나 둘 셋 넷 다섯 여섯 일곱]]")]
    assert [event.event for event in found].count("restart") == 2
    (answer,) = [event.data for event in found if isinstance(event.data, wire.Answer)]
    assert (answer.model, answer.text, answer.degraded) == ("stub", "하나 둘 셋 넷 다섯 여섯 일곱", True)
    last = max(place for place, event in enumerate(found) if event.event == "restart")
    assert tokens_of(found[last:]) == answer.text


async def test_conversation_goes_on_with_another_model(bot: Chatbot, tmp_path: Path, model_server: ModelServer) -> None:
    async with answering(bot, both(tmp_path, model_server)) as many:
        first = await many.ask(f"{QUESTION} [[reply: 첫 답입니다 [1].]]")
        second = await many.ask(
            "배송비는 어떻게 정하나요? [[reply: 둘째 답입니다 [1].]]", session_id=first.session_id, model="vllm"
        )
        told = [message["content"] for message in sent(model_server)]
        assert any("첫 답입니다" in text for text in told[1:-1])
        await many.ask("정산은 언제 되나요?", session_id=second.session_id, model="extractive")
        await many.ask("판매 수수료는 얼마인가요?", session_id=second.session_id)
        told = [message["content"] for message in sent(model_server)]
        assert any("둘째 답입니다" in text for text in told[1:-1])


@pytest.mark.parametrize("model", ["openai", "vllm"])
@pytest.mark.parametrize("name", ["stub-think", "stub-think-always", "stub-reasoning"])
async def test_thinking_is_nowhere(
    bot: Chatbot, tmp_path: Path, model_server: ModelServer, name: str, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with answering(bot, both(tmp_path, model_server, openai=name, vllm=name)) as thinking:
        events = [
            event async for event in thinking.stream(f"{QUESTION} {name} [[reply: 하나 둘 셋 넷 다섯]]", model=model)
        ]
        session_id = next(event.data.session_id for event in events if isinstance(event.data, wire.Started))
        turns = await thinking.services.stores.conversations.turns(session_id)
    (answer,) = [event.data for event in events if isinstance(event.data, wire.Answer)]
    assert answer.text == "하나 둘 셋 넷 다섯"
    assert turns[-1].answer == answer.text
    for said in [*(event.to_json() for event in events), *(turn.model_dump_json() for turn in turns), caplog.text]:
        assert "think" not in said.replace(name, "")
        assert "따져" not in said


async def test_vllm_is_asked_not_to_think_and_keeps_the_roles(
    bot: Chatbot, tmp_path: Path, model_server: ModelServer
) -> None:
    async with answering(bot, both(tmp_path, model_server)) as many:
        await many.ask(f"{QUESTION} [[reply: 가능합니다 [1].]]", model="vllm")
    asked = json.loads(model_server.get("/stub/last"))
    assert asked["chat_template_kwargs"] == {"enable_thinking": False}
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]


def test_no_client_is_imported_before_a_model_is_configured() -> None:
    program = "import sys, smartstore_workflows.app; print('openai' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


async def test_small_model_is_sent_as_many_faqs_as_it_can_read(bot: Chatbot, model_server: ModelServer) -> None:
    sizes = []
    for window in (128_000, 2_048):
        async with model_of(model_server.url, context_window=window) as model:
            await stepping(bot, model, StepSettings()).ask("미성년자도 판매 회원 등록이 가능한가요?")
        sizes.append(estimated_tokens(sent(model_server)[-1]["content"]))
    assert sizes[1] < (2_048 - 800) // 2 + 100 < sizes[0]
