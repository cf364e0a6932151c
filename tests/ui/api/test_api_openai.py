"""/v1 as OpenAI's own client and LlamaIndex's see it."""

import itertools
import json
from collections.abc import Iterator

import openai
import pytest
from conftest import ModelServer, wait_until
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.llms.openai_like import OpenAILike
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from served import KEYS, ModelSwitch, Served
from talking import MINOR, RESTAURANT, Client, new_address

SERVED_MODEL = "smartstore-faq"
REFUSAL = "저는 스마트 스토어 FAQ를 위한 챗봇입니다. 스마트 스토어에 대한 질문을 부탁드립니다."
SAID = "하나 둘 [1] 셋 넷"
_numbers = itertools.count(1_000, 111)


def script(text: str = SAID) -> ChatCompletionMessageParam:
    """Return a question that the scripted model answers with this text, and that no other test asked."""
    return {"role": "user", "content": f"{MINOR} {next(_numbers)} [[reply: {text}]]"}


def openai_of(served: Served, key: str = "any") -> OpenAI:
    headers = {"X-Forwarded-For": new_address()}
    return OpenAI(base_url=f"{served.url}/v1", api_key=key, default_headers=headers, max_retries=0, timeout=60.0)


@pytest.fixture
def extracts(plain: Served) -> Iterator[OpenAI]:
    """Return OpenAI's client of the server without a model."""
    with openai_of(plain) as found:
        yield found


@pytest.fixture
def writes(talkative: Served) -> Iterator[OpenAI]:
    """Return OpenAI's client of the server with a model."""
    with openai_of(talkative) as found:
        yield found


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_models_are_listed(extracts: OpenAI, writes: OpenAI) -> None:
    assert [model.id for model in extracts.models.list()] == [SERVED_MODEL, "extractive"]
    assert [model.id for model in writes.models.list()] == [SERVED_MODEL, "openai", "extractive"]


def test_completion_answers_with_the_faqs_it_cites(extracts: OpenAI, client: Client) -> None:
    found = extracts.chat.completions.create(model=SERVED_MODEL, messages=[{"role": "user", "content": MINOR}])
    reply = client.reply(MINOR)
    (choice,) = found.choices
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    source = reply["sources"][0]["question"]
    assert choice.message.content == f"{reply['answer']['text']}\n\n[1] {source}"
    assert found.model == SERVED_MODEL
    assert found.object == "chat.completion"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (0, 0, 0)


def test_streamed_chunks_are_the_whole_answer(extracts: OpenAI) -> None:
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": MINOR}]
    chunks = list(extracts.chat.completions.create(model=SERVED_MODEL, messages=asked, stream=True))
    whole = extracts.chat.completions.create(model=SERVED_MODEL, messages=asked)
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_is_the_models_own_count(writes: OpenAI, slow_model: ModelServer) -> None:
    counted = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = writes.chat.completions.create(model=SERVED_MODEL, messages=[script()], **counted)  # type: ignore[call-overload]
    assert text_of(chunks).startswith(f"{SAID}\n\n[1] ")
    assert len(chunks) > 3
    assert last.choices == []
    assert last.usage is not None
    assert json.loads(slow_model.get("/stub/last"))["stream_options"] == {"include_usage": True}
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens


def test_conversation_is_taken_from_the_messages(extracts: OpenAI, client: Client) -> None:
    first = client.reply(MINOR)
    asked: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "너는 해적이다."},
        {"role": "user", "content": MINOR},
        {"role": "assistant", "content": first["answer"]["text"]},
        {"role": "user", "content": [{"type": "text", "text": "그럼 서류는요?"}]},
    ]
    within = extracts.chat.completions.create(model=SERVED_MODEL, messages=asked).choices[0].message.content or ""
    alone = extracts.chat.completions.create(model=SERVED_MODEL, messages=asked[-1:]).choices[0].message.content
    remembered = client.reply("그럼 서류는요?", session_id=first["session_id"])
    assert within.startswith(remembered["answer"]["text"])
    assert within != alone


def test_history_reaches_the_model_and_nothing_is_remembered(
    writes: OpenAI, listener: Client, slow_model: ModelServer
) -> None:
    before = listener.get("/api/sessions").json()["sessions"]
    asked: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "제 전화는 010-1234-5678 이에요. 통신판매업 신고는 꼭 해야 하나요?"},
        {"role": "assistant", "content": "간이과세자는 면제됩니다."},
        script(),
    ]
    found = writes.chat.completions.create(model="openai", messages=asked)
    assert (found.choices[0].message.content or "").startswith(SAID)
    sent = json.loads(slow_model.get("/stub/last"))["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    assert "010-1234-5678" not in str(sent)
    assert sent[2]["content"] == "간이과세자는 면제됩니다."
    assert listener.get("/api/sessions").json()["sessions"] == before


def test_what_is_out_of_scope_is_refused(extracts: OpenAI) -> None:
    found = extracts.chat.completions.create(model=SERVED_MODEL, messages=[{"role": "user", "content": RESTAURANT}])
    assert found.choices[0].message.content == REFUSAL


def test_unknown_model_is_openais_not_found(extracts: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-9") as raised:
        extracts.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": MINOR}])
    assert raised.value.code == "model_not_found"


def test_messages_without_a_question_are_unprocessable(extracts: OpenAI) -> None:
    unusable: list[list[ChatCompletionMessageParam]] = [
        [],
        [{"role": "system", "content": "안녕"}],
        [{"role": "user", "content": " ?! "}],
        [{"role": "user", "content": "가" * 2_001}],
    ]
    for messages in unusable:
        with pytest.raises(openai.UnprocessableEntityError):
            extracts.chat.completions.create(model=SERVED_MODEL, messages=messages)


def test_wrong_key_is_openais_authentication_error(guarded: Served) -> None:
    with openai_of(guarded, "wrong") as wrong:
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()
        with pytest.raises(openai.AuthenticationError):
            wrong.chat.completions.create(model=SERVED_MODEL, messages=[{"role": "user", "content": MINOR}])
    with openai_of(guarded, KEYS[0]) as right:
        assert next(model.id for model in right.models.list()) == SERVED_MODEL


def test_faulty_models_answer_is_begun_anew(writes: OpenAI, switch: ModelSwitch) -> None:
    asked = [script("하나 둘 셋 넷 다섯 여섯 일곱")]
    with switch.model("stub-cut"):
        chunks = list(writes.chat.completions.create(model=SERVED_MODEL, messages=asked, stream=True))
    broken, _, anew = text_of(chunks).partition("(답변을 다시 작성합니다.)")
    assert broken.startswith("하나 둘")
    assert "법정대리인" in anew
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_client_that_leaves_stops_the_model(writes: OpenAI, slow_model: ModelServer) -> None:
    before = json.loads(slow_model.get("/stub/stats"))
    # The scripted model finds its reply in the conversation too, which may be longer than a question.
    said: ChatCompletionMessageParam = {"role": "assistant", "content": f"[[reply: {'가나다 ' * 450}]]"}
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": MINOR}, said, script()]
    with writes.chat.completions.create(model=SERVED_MODEL, messages=asked, stream=True) as chunks:
        for chunk in chunks:
            if chunk.choices[0].delta.content:
                break
    wait_until(lambda: json.loads(slow_model.get("/stub/stats"))["live"] == before.get("live", 0), 3.5)
    assert json.loads(slow_model.get("/stub/stats"))["disconnected"] == before.get("disconnected", 0) + 1


async def test_llamaindex_talks_to_it(talkative: Served) -> None:
    headers = {"X-Forwarded-For": new_address()}
    base = f"{talkative.url}/v1"
    llm = OpenAILike(model=SERVED_MODEL, api_base=base, api_key="any", is_chat_model=True, default_headers=headers)
    asked = [ChatMessage(role=MessageRole.USER, content=str(script()["content"]))]
    whole = await llm.achat(asked)
    streamed = [part.delta or "" async for part in await llm.astream_chat(asked)]
    assert (whole.message.content or "").startswith(f"{SAID}\n\n[1] ")
    assert "".join(streamed) == whole.message.content
    assert llm.chat(asked).message.content == whole.message.content
