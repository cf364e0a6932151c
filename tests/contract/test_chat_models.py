"""What every class of chat model keeps to, over the scripted server and all its faults."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

import pytest
from conftest import ModelServer, wait_until
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from modelling import EVENT_STREAM, FAULTS, JSON, chunk, completed, server_of, stats
from modelling import model_of as openai_of

from smartstore_indexing.errors import ModelUnavailable
from smartstore_indexing.model_settings import VllmSettings
from smartstore_workflows.chat_model import AnswerModel
from smartstore_workflows.events import Usage
from smartstore_workflows.model_calls import Meter
from smartstore_workflows.vllm_chat import vllm_model

SCRIPT = [ChatMessage(role=MessageRole.USER, content="[[reply: 하나 둘 셋 넷 다섯 여섯 일곱]]")]
GARBAGE = {
    "broken JSON": b"data: {broken\n\n",
    "broken UTF-8": b"data: \xff\xfe\n\n",
    "an error in mid-answer": b'data: {"error": {"message": "sk-test is over its quota"}}\n\n',
    "an array": b"data: []\n\n",
    "null": b"data: null\n\n",
    "no choices": b'data: {"choices": null}\n\n',
}


# Asked for is 50 ms on an idle machine, which tests/benchmarks/models.py measures; a client that blocks would hold the
# loop up for whole streams.
MOST_STALL_SECONDS = 0.5
ModelOf = Callable[..., AbstractAsyncContextManager[AnswerModel]]


@pytest.fixture(params=["openai", "vllm"])
def model_of(request: pytest.FixtureRequest) -> ModelOf:
    """Return what makes a model of this class for a server."""

    @asynccontextmanager
    async def vllm_of(url: str, name: str = "stub", **settings: float) -> AsyncIterator[AnswerModel]:
        timeout = 0.5 if name == "stub-hang" else 10.0
        chosen = {"model": name, "max_retries": 0, "timeout_seconds": timeout, **settings}
        model = vllm_model(VllmSettings.model_validate({**chosen, "url": url, "api_key": "sk-test"}), model=name)
        try:
            yield model
        finally:
            await model.close()

    return openai_of if request.param == "openai" else vllm_of


async def said(model: AnswerModel) -> str:
    return "".join([piece async for piece in model.stream(SCRIPT) if isinstance(piece, str)])


async def said_before_failing(model: AnswerModel) -> tuple[str, ModelUnavailable]:
    pieces = []

    async def read() -> None:
        async for piece in model.stream(SCRIPT):
            pieces.append(str(piece))  # noqa: PERF401  what came before the failure is wanted

    with pytest.raises(ModelUnavailable) as raised:
        await read()
    return "".join(pieces), raised.value


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition without holding up the loop that has to bring it about."""
    await asyncio.to_thread(wait_until, holds)


async def test_pieces_join_to_what_the_model_says(model_of: ModelOf, model_server: ModelServer) -> None:
    async with model_of(model_server.url) as model:
        assert await said(model) == "하나 둘 셋 넷 다섯 여섯 일곱"


@pytest.mark.parametrize("name", FAULTS)
async def test_fault_is_model_unavailable_and_says_what_is_wrong(
    model_of: ModelOf, model_server: ModelServer, name: str
) -> None:
    message, before = FAULTS[name]
    async with model_of(model_server.url, name) as model:
        pieces, error = await said_before_failing(model)
    assert pieces == before
    assert message in error.message
    assert name in error.message
    assert "sk-test" not in error.message


async def test_failure_before_the_first_token_is_tried_again(model_of: ModelOf, model_server: ModelServer) -> None:
    before = stats(model_server)["chat"]
    async with model_of(model_server.url, "stub-flaky", max_retries=1) as model:
        assert await said(model) == "하나 둘 셋 넷 다섯 여섯 일곱"
    assert stats(model_server)["chat"] == before + 2


@pytest.mark.parametrize(("name", "calls"), [("stub-500", 2), ("stub-401", 1), ("stub-cut", 1)])
async def test_only_failures_that_may_pass_are_tried_again(
    model_of: ModelOf, model_server: ModelServer, name: str, calls: int
) -> None:
    before = stats(model_server)["chat"]
    async with model_of(model_server.url, name, max_retries=1) as model:
        await said_before_failing(model)
    assert stats(model_server)["chat"] == before + calls


async def test_retries_share_the_time_of_one_call(model_of: ModelOf, model_server: ModelServer) -> None:
    async with model_of(model_server.url, "stub-hang", max_retries=5, timeout_seconds=1.0) as model:
        async with asyncio.timeout(3.0):  # six calls of a second each, and the pauses between them, would be over six
            _, error = await said_before_failing(model)
    assert "제한 시간 안에" in error.message


async def test_address_that_nobody_listens_on_names_the_setting(model_of: ModelOf) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        async with model_of(f"http://127.0.0.1:{probe.getsockname()[1]}/v1") as model:
            _, error = await said_before_failing(model)
    assert "OPENAI_BASE_URL" in error.message or "SMARTSTORE_VLLM__URL" in error.message


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_what_is_no_chunk_is_model_unavailable(model_of: ModelOf, garbage: bytes) -> None:
    async with server_of(EVENT_STREAM + chunk("하나") + garbage) as url, model_of(url) as model:
        pieces, error = await said_before_failing(model)
    assert pieces == "하나"
    assert "sk-test" not in error.message


@pytest.mark.parametrize("reply", [b"", b"nonsense\r\n\r\n", EVENT_STREAM], ids=["nothing", "no HTTP", "no event"])
async def test_server_that_does_not_answer_in_its_format_is_model_unavailable(model_of: ModelOf, reply: bytes) -> None:
    async with server_of(reply) as url, model_of(url) as model:
        pieces, _ = await said_before_failing(model)
    assert pieces == ""


async def test_silence_in_mid_answer_ends_with_the_timeout(model_of: ModelOf) -> None:
    async with server_of(EVENT_STREAM + chunk("하나"), silent=True) as url, model_of(url, timeout_seconds=0.3) as model:
        pieces, error = await said_before_failing(model)
    assert pieces == "하나"
    assert "제한 시간" in error.message


@pytest.mark.parametrize(
    ("counted", "usage"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}, Usage(prompt_tokens=3, completion_tokens=1)),
        ({"prompt_tokens": None, "completion_tokens": 1, "total_tokens": 1}, Usage(completion_tokens=1)),
    ],
    ids=["counted", "half counted"],
)
async def test_usage_comes_last_where_the_server_counts(
    model_of: ModelOf, counted: dict[str, int | None], usage: Usage
) -> None:
    reply = EVENT_STREAM + chunk("하나") + chunk(usage=counted) + b"data: [DONE]\n\n"
    async with server_of(reply) as url, model_of(url) as model:
        assert [piece async for piece in model.stream(SCRIPT)] == ["하나", usage]


async def test_lone_surrogate_that_json_can_name_becomes_a_question_mark(model_of: ModelOf) -> None:
    async with server_of(EVENT_STREAM + chunk("가\ud83d") + b"data: [DONE]\n\n") as url, model_of(url) as model:
        assert await said(model) == "가?"


async def test_closing_the_stream_hangs_up_on_the_model(model_of: ModelOf, model_server: ModelServer) -> None:
    before = stats(model_server)
    long = [ChatMessage(role=MessageRole.USER, content=f"[[reply: {'가나다 ' * 2_000}]]")]
    async with model_of(model_server.url) as model:
        async with aclosing(model.stream(long)) as pieces:
            assert await anext(pieces) == "가나다"
            assert stats(model_server)["live"] == before["live"] + 1
        await until(lambda: stats(model_server)["live"] == before["live"])
    assert stats(model_server)["disconnected"] == before["disconnected"] + 1


async def test_hanging_up_on_one_stream_leaves_another_of_the_same_model_alone(
    model_of: ModelOf, model_server: ModelServer
) -> None:
    long = [ChatMessage(role=MessageRole.USER, content=f"[[reply: {'가나다 ' * 200}]]")]
    async with model_of(model_server.url) as model, aclosing(model.stream(long)) as kept:
        first = str(await anext(kept))
        async with aclosing(model.stream(long)) as left:
            await anext(left)
        rest = [str(piece) async for piece in kept]
    assert "".join([first, *rest]).split() == ["가나다"] * 200


async def test_fifty_streams_at_once_do_not_hold_up_the_loop(model_of: ModelOf, model_server: ModelServer) -> None:
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - before - 0.005)

    async with model_of(model_server.url) as model:
        await said(model)  # what is imported at the first call is not counted
        ticking = asyncio.create_task(tick())
        replies = await asyncio.gather(*(said(model) for _ in range(50)))
        ticking.cancel()
    assert set(replies) == {"하나 둘 셋 넷 다섯 여섯 일곱"}
    assert longest < MOST_STALL_SECONDS


async def test_calls_beyond_the_bound_wait_and_then_say_that_all_are_taken(
    model_of: ModelOf, model_server: ModelServer
) -> None:
    long = [ChatMessage(role=MessageRole.USER, content=f"[[reply: {'가나다 ' * 2_000}]]")]
    async with model_of(model_server.url, max_at_once=1, timeout_seconds=0.5) as model:
        async with aclosing(model.stream(long)) as pieces:
            await anext(pieces)
            _, error = await said_before_failing(model)
            assert "몰려 있습니다" in error.message
        assert await said(model) == "하나 둘 셋 넷 다섯 여섯 일곱"


# Short completions.


async def completion(model: AnswerModel, timeout_seconds: float = 10.0) -> tuple[str, Usage]:
    return await model.complete(SCRIPT, max_tokens=32, timeout_seconds=timeout_seconds)


async def test_completion_is_the_whole_reply_with_what_it_took(model_of: ModelOf, model_server: ModelServer) -> None:
    async with model_of(model_server.url) as model:
        assert await completion(model) == (
            "하나 둘 셋 넷 다섯 여섯 일곱",
            Usage(prompt_tokens=100, completion_tokens=7),
        )


async def test_completion_is_asked_for_at_temperature_0_within_its_own_tokens(
    model_of: ModelOf, model_server: ModelServer
) -> None:
    async with model_of(model_server.url, temperature=1.5, max_tokens=900) as model:
        await completion(model)
        asked = json.loads(model_server.get("/stub/last"))
        assert (asked["temperature"], asked["max_tokens"], asked["stream"]) == (0.0, 32, False)
        assert "stream_options" not in asked
        await said(model)
    asked = json.loads(model_server.get("/stub/last"))
    assert (asked["temperature"], asked["max_tokens"], asked["stream"]) == (1.5, 900, True)


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in ("stub-cut", "stub-hang")])
async def test_fault_of_a_completion_is_that_of_a_stream(
    model_of: ModelOf, model_server: ModelServer, name: str
) -> None:
    before = stats(model_server)["chat"]
    async with model_of(model_server.url, name, max_retries=2) as model:
        with pytest.raises(ModelUnavailable) as raised:
            await completion(model)
    assert FAULTS[name][0] in raised.value.message
    assert name in raised.value.message
    assert "sk-test" not in raised.value.message
    assert stats(model_server)["chat"] == before + 1


async def test_completion_ends_with_its_own_timeout(model_of: ModelOf, model_server: ModelServer) -> None:
    async with model_of(model_server.url, "stub-hang", timeout_seconds=60.0) as model:
        with pytest.raises(ModelUnavailable, match="제한 시간"):
            await asyncio.wait_for(completion(model, timeout_seconds=0.3), 5)


async def test_cancelled_completion_is_cancelled(model_of: ModelOf, model_server: ModelServer) -> None:
    async with model_of(model_server.url, "stub-hang", timeout_seconds=60.0) as model:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(completion(model, timeout_seconds=30.0), 0.3)


@pytest.mark.parametrize("name", ["stub-think", "stub-think-always", "stub-reasoning"])
async def test_reasoning_is_no_part_of_a_completion(model_of: ModelOf, model_server: ModelServer, name: str) -> None:
    async with model_of(model_server.url, name) as model:
        assert (await completion(model))[0] == "하나 둘 셋 넷 다섯 여섯 일곱"


@pytest.mark.parametrize(
    ("reply", "text"), [("생각.</think>\n답", "답"), ("<think>가</think>나<think>다", "나"), ("가\ud83d", "가?")]
)
async def test_completion_is_what_is_left_without_reasoning_and_lone_surrogates(
    model_of: ModelOf, reply: str, text: str
) -> None:
    async with server_of(completed(reply)) as url, model_of(url) as model:
        assert await completion(model) == (text, Usage())


UNUSABLE = {
    "nothing": b"",
    "no HTTP": b"nonsense\r\n\r\n",
    "a page": b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<html></html>",
    "broken JSON": JSON + b"{broken",
    "broken UTF-8": JSON + b'{"choices": "\xff\xfe"}',
    "an array": JSON + b"[]",
    "null": JSON + b"null",
    "an error": JSON + b'{"error": {"message": "sk-test is over its quota"}}',
    "no choice": completed("", choices=[]),
    "null for choices": completed("", choices=None),
    "no message": completed("", choices=[{"index": 0, "finish_reason": "stop"}]),
    "null for text": completed(None),
    "a number for text": completed(5),
    "blanks": completed(" \n"),
    "reasoning alone": completed("<think>하나 둘"),
    "words for usage": completed("하나", usage={"prompt_tokens": "많음", "completion_tokens": 1}),
    "a reply that was cut off": completed(
        "", choices=[{"index": 0, "message": {"role": "assistant", "content": "하나"}, "finish_reason": "length"}]
    ),
}


@pytest.mark.parametrize("reply", UNUSABLE.values(), ids=UNUSABLE)
async def test_what_is_no_completion_is_model_unavailable(model_of: ModelOf, reply: bytes) -> None:
    async with server_of(reply) as url, model_of(url) as model:
        with pytest.raises(ModelUnavailable) as raised:
            await completion(model)
    assert "sk-test" not in raised.value.message


async def test_meter_adds_up_what_completions_take(model_of: ModelOf, model_server: ModelServer) -> None:
    async with model_of(model_server.url) as model:
        meter = Meter(model)
        assert meter.usage == Usage()
        for _ in range(2):
            assert await meter.complete(SCRIPT, max_tokens=32, timeout_seconds=10.0) == await completion(model)
    assert meter.usage == Usage(prompt_tokens=200, completion_tokens=14)
