"""OpenTelemetry traces of an answer: the workflow's steps, the retrieval, the model's calls.

LlamaIndex opens the spans. What it writes on them is the conversation itself, and its event handler adds whole prompts;
so that handler stays out, and only the attributes named here leave the process. A span takes 0.2 ms, an answer nine.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMChatInProgressEvent
from llama_index.observability.otel.base import OTelCompatibleSpanHandler
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.span import SimpleSpan
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, Span, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue
from pydantic import PrivateAttr

from smartstore_indexing.setting_groups import WatchSettings
from smartstore_workflows.events import Outcome, QuestionAsked
from smartstore_workflows.masking import mask
from smartstore_workflows.retrieving import Retrieved

SERVICE = "smartstore-chatbot"
PATH = "/v1/traces"
EXPORT_SECONDS = 3.0  # of one batch, its retries included
FLUSH_SECONDS = 3.0
MAX_WAITING = 2_048  # spans, of about 220 answers
FIRST_TOKEN = "first token"  # noqa: S105  a span event, no secret
IDS = ("request_id", "run_id")  # of structlog's context, so that a log line leads to its trace and back
INPUT_EVENT, ERROR, MODEL = "llamaindex.step.input_event", "error.type", "gen_ai.request.model"
PROMPT_TOKENS, COMPLETION_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
KIND, CACHED, DEGRADED = "smartstore.kind", "smartstore.cached", "smartstore.degraded"
FAQS, COSINE = "smartstore.faqs", "smartstore.best_cosine"
QUESTION, ANSWER = "smartstore.question", "smartstore.answer"  # set only where the settings ask for text
KEPT = {*IDS, INPUT_EVENT, ERROR, MODEL, PROMPT_TOKENS, COMPLETION_TOKENS, KIND, CACHED, DEGRADED, FAQS, COSINE}
KEPT |= {QUESTION, ANSWER, "exception.type"}


@asynccontextmanager
async def traced(settings: WatchSettings) -> AsyncIterator[None]:
    """Send traces to the settings' OTLP endpoint while inside; without one nothing is set up.

    A thread sends them, and what an endpoint that is away leaves waiting is dropped: no answer waits for it. Leaving
    takes at most three seconds. The usual OTEL_… variables name headers, sampler and resource.
    """
    if not settings.otlp_endpoint:
        yield
        return
    exporter = OTLPSpanExporter(
        endpoint=settings.otlp_endpoint.rstrip("/").removesuffix(PATH) + PATH, timeout=EXPORT_SECONDS
    )
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: SERVICE}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Sealed(exporter), max_queue_size=MAX_WAITING))
    spans = _Spans(provider.get_tracer(SERVICE), with_text=settings.trace_text)
    events = _ModelEvents(span_handler=spans)
    root = get_dispatcher()
    root.add_span_handler(spans)
    root.add_event_handler(events)
    try:
        yield
    finally:
        root.span_handlers = [handler for handler in root.span_handlers if handler is not spans]
        root.event_handlers = [handler for handler in root.event_handlers if handler is not events]
        # The provider's own shutdown may take 30 seconds; left behind, its thread ends with the process.
        closing = threading.Thread(target=provider.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, FLUSH_SECONDS)


class _Sealed(SpanExporter):
    """Exports of each span only the attributes that are KEPT; no message, no stack trace, no argument."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_sealed(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Spans(OTelCompatibleSpanHandler):
    """LlamaIndex's spans with our facts; that of a streaming model call lasts until its stream ends."""

    _with_text: bool = PrivateAttr()
    _streaming: dict[str, Span] = PrivateAttr(default_factory=dict)
    _silent: set[str] = PrivateAttr(default_factory=set)  # streams that have not said anything yet

    def __init__(self, tracer: Tracer, *, with_text: bool) -> None:
        super().__init__(tracer)
        self._with_text = with_text

    def new_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: object = None,
        parent_span_id: str | None = None,
        tags: dict[str, Any] | None = None,  # LlamaIndex's
        **more: object,
    ) -> SimpleSpan:
        opened = super().new_span(id_, bound_args, instance, parent_span_id, tags, **more)
        span = self.all_spans[id_]
        bound = structlog.contextvars.get_contextvars()
        span.set_attributes({name: str(bound[name]) for name in IDS if name in bound})
        if isinstance(instance, BaseLLM):
            span.set_attribute(MODEL, instance.metadata.model_name)
        asked = bound_args.arguments.get("start_event")
        if self._with_text and isinstance(asked, QuestionAsked):
            span.set_attribute(QUESTION, mask(asked.question))
        return opened

    def prepare_to_exit_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: object = None,
        result: object = None,
        **more: object,
    ) -> SimpleSpan:
        span = self.all_spans.get(id_)
        if span is not None:
            span.set_attributes(self._facts(result))
            if isinstance(result, AsyncGenerator):
                self._streaming[id_] = span
                self._silent.add(id_)
                self.all_spans[id_] = NonRecordingSpan(span.get_span_context())  # the one that is ended now
        closed = super().prepare_to_exit_span(id_, bound_args, instance, result, **more)
        self.completed_spans.clear()  # the library keeps them for ever
        return closed

    def prepare_to_drop_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: object = None,
        err: BaseException | None = None,
        **more: object,
    ) -> SimpleSpan | None:
        if (span := self.all_spans.get(id_)) is not None:
            span.set_attribute(ERROR, type(err).__name__)
        dropped = super().prepare_to_drop_span(id_, bound_args, instance, err, **more)
        self.dropped_spans.clear()
        return dropped

    def spoke(self, id_: str) -> None:
        """Note when a stream said its first word."""
        if id_ in self._silent:
            self._silent.discard(id_)
            self._streaming[id_].add_event(FIRST_TOKEN)

    def ended(self, id_: str, facts: Mapping[str, AttributeValue], status: StatusCode = StatusCode.OK) -> None:
        """End the span of a stream."""
        self._silent.discard(id_)
        if (span := self._streaming.pop(id_, None)) is not None:
            span.set_attributes(facts)
            span.set_status(status)
            span.end()

    def _facts(self, result: object) -> dict[str, AttributeValue]:
        """Return what a span tells of what its function returned."""
        match result:
            case Retrieved():
                return {FAQS: len(result.passages), COSINE: result.evidence.best_cosine}
            case Outcome():
                written = result.written
                text: dict[str, AttributeValue] = {ANSWER: written.text} if self._with_text else {}
                return {KIND: written.kind, CACHED: written.cached, DEGRADED: written.degraded, **text}
        return _usage(result)


class _ModelEvents(BaseEventHandler):
    """Takes from a model's stream its first token and its end; every other token costs one look into a set."""

    span_handler: _Spans

    def handle(self, event: BaseEvent, **_: object) -> None:
        if event.span_id is None:
            return
        match event:
            case LLMChatInProgressEvent():
                if event.response.delta:
                    self.span_handler.spoke(event.span_id)
            case LLMChatEndEvent():
                self.span_handler.ended(event.span_id, _usage(event.response))
            case ExceptionEvent(exception=GeneratorExit() | asyncio.CancelledError()):
                self.span_handler.ended(event.span_id, {})  # the reader left
            case ExceptionEvent():
                self.span_handler.ended(event.span_id, {ERROR: type(event.exception).__name__}, StatusCode.ERROR)


def _usage(response: object) -> dict[str, AttributeValue]:
    """Return the tokens that a model's response counted."""
    counted = getattr(getattr(response, "raw", None), "usage", None)
    if counted is None:
        return {}
    return {PROMPT_TOKENS: counted.prompt_tokens or 0, COMPLETION_TOKENS: counted.completion_tokens or 0}


def _sealed(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_kept(span.attributes),
        events=[Event(event.name, _kept(event.attributes), event.timestamp) for event in span.events],
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _kept(attributes: Mapping[str, AttributeValue] | None) -> dict[str, AttributeValue]:
    return {name: value for name, value in (attributes or {}).items() if name in KEPT}
