"""POST /v1/chat/completions and GET /v1/models: any OpenAI client can use the bot."""

import re
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from smartstore_indexing.errors import InvalidRequest
from smartstore_ui.api import answers
from smartstore_ui.api.chat import failed, gathered
from smartstore_ui.api.context import Api, api_of
from smartstore_ui.api.requests import Body, Id, no_boolean, read_body
from smartstore_ui.api.responses import json_response
from smartstore_ui.api.runs import Frame, LiveRun
from smartstore_ui.api.sse import HEARTBEAT, EventStream
from smartstore_workflows import wire
from smartstore_workflows.events import Source, Turn, Usage
from smartstore_workflows.masking import mask
from smartstore_workflows.understanding import LETTER

MODEL = "smartstore-faq"  # the server's default model
MAX_MESSAGES = 200
REDONE = "\n\n(답변을 다시 작성합니다.)\n\n"
DONE = b"data: [DONE]\n\n"
TEXT: dict[str, JsonValue] = {"type": "string", "pattern": LETTER}
TEXT_PART: dict[str, JsonValue] = {
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": TEXT},
}
QUESTION: dict[str, JsonValue] = {
    "required": ["role", "content"],
    "properties": {
        "role": {"const": "user"},
        "content": {"anyOf": [TEXT, {"type": "array", "contains": TEXT_PART}]},
    },
}


class Part(BaseModel):
    """A part of a message's content; only text is read."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    type: str
    text: str = ""


class Message(BaseModel):
    """A message of the conversation; what the bot has no use for is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        """Return the text of the message."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.type == "text")
        return self.content or ""

    @property
    def asks(self) -> bool:
        """Tell whether it is a user's, with a letter or digit in it."""
        return self.role == "user" and re.search(LETTER, self.text) is not None


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    include_usage: bool = False


class CompletionBody(Body):
    """A chat completion request; sampling options and the like are accepted and ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    messages: list[Message] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="대화. 사용자의 마지막 메시지가 질문입니다.",
        json_schema_extra={"contains": QUESTION},
    )
    model: Id = Field(MODEL, description="답할 모델. /v1/models가 목록을 알려 줍니다.")
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[Literal[1] | None, BeforeValidator(no_boolean)] = Field(None, description="답은 하나입니다.")


async def models(request: Request) -> Response:
    """List the models."""
    api = api_of(request)
    api.access.open_to(request)
    names = [MODEL, *api.bot.models]
    return json_response(answers.Models(data=tuple(answers.Model(id=name) for name in names)))


async def completions(request: Request) -> Response:
    """Answer the last message, the ones before it being the conversation; nothing is remembered here."""
    api = api_of(request)
    await api.admit(request)
    wanted = await read_body(request, CompletionBody)
    question, history = conversation(wanted.messages)
    request_id = request.state.request_id
    events = api.answers.stream(
        question,
        history=history,
        model=None if wanted.model == MODEL else wanted.model,
        request_id=request_id,
    )
    run = await api.runs.start(events, request_id)
    if wanted.stream:
        usage = wanted.stream_options is not None and wanted.stream_options.include_usage
        return EventStream(_chunks(api, run, wanted.model, usage=usage))
    reply = await gathered(request, run)
    return json_response(_completion(reply, wanted.model)) if isinstance(reply, wire.Reply) else failed(reply)


def conversation(messages: Sequence[Message]) -> tuple[str, list[Turn]]:
    """Return the last question and the turns before it, personal data masked; InvalidRequest where nobody asks.

    Turns whose question was not answered, and what the system says, are left out.
    """
    talk = [message for message in messages if message.role in ("user", "assistant") and message.text.strip()]
    asking = [place for place, message in enumerate(talk) if message.asks]
    if not asking:
        raise InvalidRequest("사용자의 질문이 필요합니다.")
    turns = [
        Turn(question=mask(asked.text), standalone=mask(asked.text), answer=mask(said.text), kind="answered")
        for asked, said in pairwise(talk[: asking[-1]])
        if asked.role == "user" and said.role == "assistant"
    ]
    return talk[asking[-1]].text, turns


def _completion(reply: wire.Reply, model: str) -> answers.Completion:
    text = reply.answer.text + _cited(reply.sources, reply.answer.citations)
    return answers.Completion(
        id=_completion_id(reply.run_id),
        created=int(time.time()),
        model=model,
        choices=(answers.Choice(message=answers.CompletionMessage(content=text)),),
        usage=_usage(reply.usage),
    )


async def _chunks(api: Api, run: LiveRun, model: str, *, usage: bool) -> AsyncGenerator[bytes, None]:
    head: dict[str, object] = {
        "id": _completion_id(run.run_id),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }

    def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
        return _data({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]})

    yield chunk({"role": "assistant", "content": ""})
    async with aclosing(api.runs.follow(run)) as frames:
        async for some in frames:
            if not some:
                yield HEARTBEAT
            if text := "".join(map(_said, some)):
                yield chunk({"content": text})
    failure = run.gathered.failure
    if failure is not None:
        yield _data({"error": failure.model_dump(mode="json")})
        return
    reply = run.gathered.reply()
    if cited := _cited(reply.sources, reply.answer.citations):
        yield chunk({"content": cited})
    yield chunk({}, "stop")
    if usage:
        yield _data({**head, "choices": [], "usage": _usage(reply.usage)})
    yield DONE


def _said(frame: Frame) -> str:
    if frame.event == "token":
        return wire.Token.model_validate_json(frame.data).text
    return REDONE if frame.event == "restart" else ""


def _cited(sources: Sequence[Source], citations: Sequence[str]) -> str:
    """Return the cited FAQs as lines under the answer: these clients show nothing but text."""
    lines = [f"[{source.n}] {source.question}" for source in sources if source.id in citations]
    return "\n\n" + "\n".join(lines) if lines else ""


def _completion_id(run_id: str) -> str:
    return f"chatcmpl-{run_id}"


def _usage(usage: Usage) -> answers.CompletionUsage:
    return answers.CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def _data(document: dict[str, object]) -> bytes:
    return b"data: " + to_json(document) + b"\n\n"
