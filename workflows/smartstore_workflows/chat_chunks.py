"""The streamed chunks of OpenAI's protocol, as OpenAI and vLLM send them."""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ChatResponseAsyncGen, MessageRole

from smartstore_workflows.events import Usage

DATA, DONE = b"data:", b"data: [DONE]"
Response = TypeVar("Response")
FRAME_SECONDS = 0.04  # tokens that come within 40 ms may share a frame (the API's contract)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a chunk of a stream counted, as LlamaIndex's readers of `raw` find it."""

    usage: Usage

    @classmethod
    def of(cls, counted: dict[str, int] | None) -> "Counted | None":
        """Return the count of a chunk; None where it has none."""
        if not counted:
            return None
        prompt, completion = counted.get("prompt_tokens") or 0, counted.get("completion_tokens") or 0
        return cls(Usage(prompt_tokens=prompt, completion_tokens=completion))


async def responses_of(
    opened: AbstractAsyncContextManager[Response], parts: Callable[[Response], AsyncIterator[bytes]]
) -> ChatResponseAsyncGen:
    """Yield the reply's pieces as LlamaIndex has them, read from the parts of a response's body.

    `reasoning_content` is left out.

    The clients' own way makes four objects of every chunk: 1 ms of CPU a token, where fifty answers at once leave 0.3.
    Tokens that come within FRAME_SECONDS of a piece join the next one.

    Raises:
        httpx.HTTPError: the stream broke off or ended in an error.
    A server that speaks another protocol raises what reading its JSON raises.
    """
    whole, waiting, said_at = "", "", 0.0
    try:
        async with opened as response:
            async for line in _lines(parts(response)):
                if not line.startswith(DATA) or line == DONE:
                    continue
                delta, usage = _read(json.loads(line[len(DATA) :]))
                waiting += delta
                now = time.monotonic()
                if usage is not None or (waiting and now - said_at >= FRAME_SECONDS):
                    whole, said_at = whole + waiting, now
                    yield _chat_response(whole, waiting, usage)
                    waiting = ""
    except Exception:
        if waiting:  # what was said before it failed
            yield _chat_response(whole + waiting, waiting, None)
        raise
    if waiting:
        yield _chat_response(whole + waiting, waiting, None)


async def _lines(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a body, without their ends."""
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
    if rest:
        yield rest


def _read(chunk: dict[str, Any]) -> tuple[str, Counted | None]:
    """Return what a chunk adds to the text, and what it counted."""
    if chunk.get("error"):
        raise httpx.RemoteProtocolError("the stream ended in an error")
    text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
    return text, Counted.of(chunk.get("usage"))


def _chat_response(whole: str, delta: str, usage: Counted | None) -> ChatResponse:
    return ChatResponse(message=ChatMessage(whole, role=MessageRole.ASSISTANT), delta=delta, raw=usage)
