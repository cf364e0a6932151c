"""Traces: what arrives at a real OTLP receiver, and what never does."""

import asyncio
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import structlog
from blockbuster import blockbuster_ctx
from conftest import ModelServer, free_port, workflow_over
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index_instrumentation import get_dispatcher
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pydantic import SecretStr
from structlog.testing import capture_logs

from smartstore_indexing.errors import UnknownResource
from smartstore_indexing.model_settings import OpenAISettings
from smartstore_indexing.setting_groups import WatchSettings
from smartstore_indexing.settings import EXTRACTIVE, OPENAI
from smartstore_workflows import Chatbot
from smartstore_workflows.chat_model import AnswerModel
from smartstore_workflows.events import QuestionAsked, Usage
from smartstore_workflows.models import Models
from smartstore_workflows.openai_chat import openai_model
from smartstore_workflows.running import events_of
from smartstore_workflows.tracing import FIRST_TOKEN, FLUSH_SECONDS, KEPT, traced

QUESTION = "미성년자도 판매 회원 등록이 가능한가요?"
OUTSIDE = "오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?"  # refused, and so never answered from the cache
SECRET = "010-9876-5432"
STEPS = [f"AnswerWorkflow.{name}" for name in ("understand", "filter", "retrieve", "synthesize", "suggest")]
RUN, RETRIEVER, MODEL = "AnswerWorkflow.run", "FaqRetriever.retrieve", "OpenAIChat.astream_chat"
TOKENS = 500


class Collector:
    """An OTLP/HTTP receiver on a free loopback port."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self.resource: dict[str, object] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.path, self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def take(self, path: str, body: bytes) -> None:
        self.bodies.append(body)
        if path != "/v1/traces":
            return
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource |= values(resource.resource.attributes)
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]

    def settings(self, path: str = "", *, trace_text: bool = False) -> WatchSettings:
        return WatchSettings(otlp_endpoint=self.url + path, trace_text=trace_text)

    def one(self, name: str) -> Span:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def text(self) -> str:
        return b"".join(self.bodies).decode("utf-8", "replace")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def values(attributes: Iterable[KeyValue]) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in attributes}


def seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.close()


@asynccontextmanager
async def model_of(url: str, name: str = "stub") -> AsyncIterator[AnswerModel]:
    opened = openai_model(OpenAISettings(model=name, max_retries=0), key="sk-test", base_url=url)
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def bot_of(bot: Chatbot, url: str, name: str = "stub") -> AsyncIterator[Chatbot]:
    """Yield a bot over another's open index, which takes seconds to load, with a model of its own."""
    async with model_of(url, name) as model:
        settings = bot.services.settings.model_copy(update={"openai_api_key": SecretStr("sk-test")})
        found = Chatbot(settings)
        workflow = workflow_over(bot.services, models=Models({"openai": model}))
        found._services = replace(bot.services, settings=settings, models=Models({"openai": model}), workflow=workflow)
        yield found


@asynccontextmanager
async def long_winded() -> AsyncIterator[str]:
    """Serve a model that says TOKENS tokens and counts them; the scripted server counts none in a stream."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    said: dict[str, object] = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "안녕 "}}]}
    usage = {"prompt_tokens": 12, "completion_tokens": TOKENS, "total_tokens": TOKENS}
    common = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [common | said] * TOKENS + [common | {"choices": [], "usage": usage}]
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in chunks)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + body.encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@get_dispatcher().span
async def traced_work() -> None:
    """Do nothing, in a span."""


async def pieces(model: AnswerModel, text: str) -> list[str | Usage]:
    async with aclosing(model.stream([ChatMessage(role=MessageRole.USER, content=text)])) as answer:
        return [piece async for piece in answer]


async def test_an_answer_is_one_trace_of_its_steps_and_its_retrieval(bot: Chatbot, collector: Collector) -> None:
    with structlog.contextvars.bound_contextvars(request_id="req-1"):
        async with traced(collector.settings()):
            await bot.ask(OUTSIDE)

    run = collector.one(RUN)
    assert {span.name for span in collector.spans} == {RUN, RETRIEVER, *STEPS}
    assert {span.trace_id for span in collector.spans} == {run.trace_id}
    assert {span.parent_span_id for span in collector.spans if span.name in STEPS} == {run.span_id}
    assert collector.one(RETRIEVER).parent_span_id == collector.one("AnswerWorkflow.retrieve").span_id
    assert {values(span.attributes)["request_id"] for span in collector.spans} == {"req-1"}
    told = {"smartstore.kind": "refused", "smartstore.cached": False, "smartstore.degraded": False}
    assert values(run.attributes) == {"request_id": "req-1", **told}
    assert values(collector.one(RETRIEVER).attributes)["smartstore.faqs"] == 30
    assert collector.resource["service.name"] == "smartstore-chatbot"


async def test_questions_at_once_have_a_trace_each(bot: Chatbot, collector: Collector) -> None:
    async with traced(collector.settings()):
        await asyncio.gather(*(bot.ask(OUTSIDE) for _ in range(10)))

    runs = {span.trace_id: span.span_id for span in collector.spans if span.name == RUN}
    steps = Counter(span.trace_id for span in collector.spans if span.parent_span_id == runs[span.trace_id])
    assert len(runs) == 10
    assert set(steps.values()) == {6}  # synthesize is called for each of filter and retrieve


async def test_a_model_call_lasts_until_its_stream_ends(
    bot: Chatbot, model_server: ModelServer, collector: Collector
) -> None:
    async with bot_of(bot, model_server.url) as writing, traced(collector.settings()):
        await writing.ask(QUESTION)

    call = collector.one(MODEL)
    (first,) = call.events
    written = [span for span in collector.spans if span.name == "AnswerWorkflow.synthesize"]
    assert values(call.attributes)["gen_ai.request.model"] == "stub"
    assert call.parent_span_id in {span.span_id for span in written}
    assert first.name == FIRST_TOKEN
    assert call.start_time_unix_nano < first.time_unix_nano < call.end_time_unix_nano
    assert seconds(call) > 0.02 + 19 * 0.002  # what the scripted server takes


async def test_a_long_answer_is_one_span_with_its_tokens_counted(collector: Collector) -> None:
    async with long_winded() as url, model_of(url) as model, traced(collector.settings()):
        *said, usage = await pieces(model, QUESTION)

    assert "".join(map(str, said)).count("안녕") == TOKENS
    assert usage == Usage(prompt_tokens=12, completion_tokens=TOKENS)

    (call,) = collector.spans
    assert [event.name for event in call.events] == [FIRST_TOKEN]
    assert values(call.attributes)["gen_ai.usage.input_tokens"] == 12
    assert values(call.attributes)["gen_ai.usage.output_tokens"] == TOKENS
    assert sum(map(len, collector.bodies)) < 2_000


async def test_a_short_completion_is_a_span_with_its_tokens(model_server: ModelServer, collector: Collector) -> None:
    script = [ChatMessage(role=MessageRole.USER, content="[[reply: 하나 둘]]")]
    async with model_of(model_server.url) as model, traced(collector.settings()):
        await model.complete(script, max_tokens=20, timeout_seconds=10)

    (call,) = collector.spans
    assert values(call.attributes)["gen_ai.usage.input_tokens"] == 100


async def test_a_model_that_fails_is_an_error_without_its_message(
    bot: Chatbot, model_server: ModelServer, collector: Collector
) -> None:
    bound = structlog.contextvars.bound_contextvars(request_id="req-1")
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logged, bound:
        async with bot_of(bot, model_server.url, "stub-500") as failing, traced(collector.settings()):
            await failing.ask(QUESTION)

    call, run = collector.one(MODEL), collector.one(RUN)
    assert (call.status.code, call.status.message) == (Status.STATUS_CODE_ERROR, "")
    assert values(call.attributes)["error.type"] == "InternalServerError"
    assert run.status.code == Status.STATUS_CODE_OK
    assert values(run.attributes)["smartstore.degraded"] is True
    assert [line["request_id"] for line in logged] == ["req-1"]  # in the steps too


async def test_a_step_that_fails_is_an_error_without_its_message(bot: Chatbot, collector: Collector) -> None:
    gone = QuestionAsked(question=QUESTION, faq_id="gone", model=EXTRACTIVE)
    async with traced(collector.settings()):
        with pytest.raises(UnknownResource):
            async with aclosing(events_of(bot.services.workflow, gone)) as events:
                assert [event async for event in events]

    run = collector.one(RUN)
    failed = [span for span in collector.spans if span.status.code == Status.STATUS_CODE_ERROR]
    assert run in failed
    assert {values(span.attributes)["error.type"] for span in failed} == {"UnknownResource"}
    assert all(span.status.message == "" for span in failed)
    assert "색인" not in collector.text()


async def test_a_reader_that_leaves_ends_its_spans(
    bot: Chatbot, model_server: ModelServer, collector: Collector
) -> None:
    async with bot_of(bot, model_server.url) as writing, traced(collector.settings()):
        events = writing.stream(QUESTION)
        async with aclosing(events):
            async for event in events:
                if event.event == "token":
                    break

    assert collector.one(RUN)
    assert collector.one(MODEL).status.code == Status.STATUS_CODE_OK


async def test_no_text_leaves_the_process(bot: Chatbot, model_server: ModelServer, collector: Collector) -> None:
    asked = f"{QUESTION} 제 번호는 {SECRET}입니다"
    async with bot_of(bot, model_server.url, "stub-echo") as writing, traced(collector.settings()):
        for name in (OPENAI, EXTRACTIVE):
            await writing.ask(asked, model=name)

    assert len(collector.spans) > 10
    assert {name for span in collector.spans for name in values(span.attributes)} <= KEPT
    assert not re.search("[가-힣]{3}", collector.text())  # random ids may read as one or two
    assert "9876" not in collector.text()


async def test_text_that_is_asked_for_comes_masked(bot: Chatbot, collector: Collector) -> None:
    async with traced(collector.settings(trace_text=True)):
        reply = await bot.ask(f"{QUESTION} 제 번호는 {SECRET}입니다")

    run = values(collector.one(RUN).attributes)
    assert run["smartstore.question"] == f"{QUESTION} 제 번호는 [전화번호]입니다"
    assert run["smartstore.answer"] == reply.answer.text
    assert SECRET not in collector.text()


async def test_nothing_of_a_trace_is_kept_in_memory(bot: Chatbot, collector: Collector) -> None:
    async with traced(collector.settings()):
        await bot.ask(QUESTION)
        spans = get_dispatcher().span_handlers[-1]
        held = vars(spans) | (spans.__pydantic_private__ or {})

    assert {name: value for name, value in held.items() if isinstance(value, dict | list | set) and value} == {}


async def test_tracing_never_blocks_the_event_loop(bot: Chatbot, collector: Collector) -> None:
    async with traced(collector.settings()):
        with blockbuster_ctx():
            reply = await bot.ask(QUESTION)

    assert reply.answer.kind == "answered"


@pytest.mark.parametrize("path", ["", "/", "/v1/traces"])
async def test_the_endpoint_may_be_named_with_or_without_its_path(collector: Collector, path: str) -> None:
    async with traced(collector.settings(path)):
        await traced_work()

    assert [span.name for span in collector.spans] == ["traced_work"]


async def test_without_an_endpoint_nothing_is_set_up() -> None:
    root = get_dispatcher()
    before = [*root.span_handlers, *root.event_handlers], threading.active_count()
    async with traced(WatchSettings()):
        assert ([*root.span_handlers, *root.event_handlers], threading.active_count()) == before


async def test_what_was_set_up_is_gone_afterwards(collector: Collector) -> None:
    root = get_dispatcher()
    before = [*root.span_handlers, *root.event_handlers]
    async with traced(collector.settings()):
        assert len([*root.span_handlers, *root.event_handlers]) == len(before) + 2
    await traced_work()

    assert [*root.span_handlers, *root.event_handlers] == before
    assert collector.spans == []


@pytest.mark.parametrize("listening", [False, True], ids=["refuses", "never answers"])
async def test_an_endpoint_that_is_away_slows_neither_answers_nor_the_end(bot: Chatbot, listening: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if listening else free_port()
        async with traced(WatchSettings(otlp_endpoint=f"http://127.0.0.1:{port}")):
            assert (await bot.ask(QUESTION)).answer.kind == "answered"
            left = time.monotonic()
        assert time.monotonic() - left < FLUSH_SECONDS + 1
