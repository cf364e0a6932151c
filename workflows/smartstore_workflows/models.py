"""The language model that writes answers, when one is configured; the only module that knows the OpenAI client."""

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any, Protocol

import aiohttp
import httpx
import openai
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai.utils import to_openai_message_dicts
from openai._response import AsyncAPIResponse, AsyncResponseContextManager
from pydantic import ValidationError
from typing_extensions import override

from smartstore_indexing.errors import ModelUnavailable
from smartstore_indexing.setting_groups import OpenAISettings
from smartstore_workflows.events import Usage

# What the clients raise when a server that is no OpenAI sends what is no answer, or no chunk of one.
GARBAGE = (JSONDecodeError, UnicodeDecodeError, ValidationError, AttributeError, LookupError, TypeError)
DATA, DONE = b"data:", b"data: [DONE]"
FRAME_SECONDS = 0.04  # tokens that come within 40 ms may share a frame (the API's contract)
THOUGHT = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL)  # some servers leave out the opening tag
_received: ContextVar[list[httpx.Response]] = ContextVar("received")


class NamedOpenAI(OpenAI):
    """LlamaIndex's OpenAI for any model name: the library refuses names that it has no context window for."""

    window: int

    @property
    def metadata(self) -> LLMMetadata:
        """Return what LlamaIndex wants to know of the model."""
        return LLMMetadata(
            context_window=self.window,
            num_output=self.max_tokens or -1,
            is_chat_model=True,
            is_function_calling_model=False,
            model_name=self.model,
            system_role=MessageRole.SYSTEM,
        )

    @override
    async def _astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Return the reply's pieces, read from the stream of lines.

        The library's own way makes four objects of every chunk: 1 ms of CPU a token, where fifty answers at once leave
        0.3. Tokens that come within FRAME_SECONDS of a piece join the next one.
        """
        create = self._get_aclient().chat.completions.with_streaming_response.create
        opened = create(
            messages=to_openai_message_dicts(messages, model=self.model),  # type: ignore[arg-type]  # str: responses API
            **self._get_model_kwargs(stream=True, **kwargs),
        )
        return _pieces_of(opened)


async def _pieces_of(opened: AsyncResponseContextManager[AsyncAPIResponse[Any]]) -> ChatResponseAsyncGen:
    whole, waiting, said_at = "", "", 0.0
    try:
        async with opened as response:
            async for line in _lines(response.iter_bytes()):
                if not line.startswith(DATA) or line == DONE:
                    continue
                delta, usage = _read(json.loads(line[len(DATA) :]), response.http_request)
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


def _read(chunk: dict[str, Any], request: httpx.Request) -> tuple[str, "Counted | None"]:
    """Return what a chunk adds to the text, and what it counted."""
    if chunk.get("error"):
        raise openai.APIError("the stream ended in an error", request, body=None)
    text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
    return text, Counted.of(chunk.get("usage"))


def _chat_response(whole: str, delta: str, usage: "Counted | None") -> ChatResponse:
    return ChatResponse(message=ChatMessage(whole, role=MessageRole.ASSISTANT), delta=delta, raw=usage)


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


class Completes(Protocol):
    """What gives short completions: an AnswerModel, or a Meter before one."""

    name: str

    async def complete(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, timeout_seconds: float
    ) -> tuple[str, Usage]:
        """Return what AnswerModel.complete returns."""
        ...


class AnswerModel:
    """A chat model that streams answers and gives short completions."""

    def __init__(self, settings: OpenAISettings, *, key: str, base_url: str) -> None:
        """Make the client; nothing is sent yet."""
        self.name = settings.model
        self._timeout_seconds = settings.timeout_seconds
        self._http = openai.DefaultAioHttpClient(event_hooks={"response": [_note]})
        self._llm = NamedOpenAI(
            model=settings.model,
            window=settings.context_window,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            timeout=settings.timeout_seconds,
            max_retries=settings.max_retries,
            api_key=key,
            api_base=base_url,
            async_http_client=self._http,
            additional_kwargs={"stream_options": {"include_usage": True}},
        )
        # LlamaIndex's own max_tokens wins over a call's, so that of the short completions has none.
        self._short = NamedOpenAI(
            model=settings.model,
            window=settings.context_window,
            temperature=0.0,
            timeout=settings.timeout_seconds,
            max_retries=0,
            api_key=key,
            api_base=base_url,
            async_http_client=self._http,
        )

    async def stream(self, messages: Sequence[ChatMessage]) -> AsyncGenerator[str | Usage, None]:
        """Yield the answer's pieces, then its Usage where the server counts it; closing the iterator stops the model.

        Raises:
            ModelUnavailable: the model refused, failed, broke off or was silent for longer than its timeout.
        """
        responses: list[httpx.Response] = []
        _received.set(responses)
        try:
            with _mapped(self.name):
                async with aclosing(self._pieces(messages)) as pieces:
                    while (piece := await self._next(pieces)) is not None:
                        yield piece
        finally:
            # Closing LlamaIndex's generator leaves the response to the garbage collector, and the model writes on.
            for response in responses:
                await response.aclose()

    async def complete(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, timeout_seconds: float
    ) -> tuple[str, Usage]:
        """Return a short reply at temperature 0, without the model's reasoning, and what it took; never tries again.

        Raises:
            ModelUnavailable: the model refused, failed, was cut off by `max_tokens`, or took longer than its timeout.
        """
        _received.set([])
        with _mapped(self.name):
            async with asyncio.timeout(timeout_seconds):
                response = await self._short.achat(messages, max_tokens=max_tokens)
            text = THOUGHT.sub("", _encodable(response.message.content or "")).strip()
            if not text:
                raise ModelUnavailable(f"모델 {self.name}이(가) 빈 답변을 보냈습니다.")
            if response.raw.choices[0].finish_reason == "length":
                raise ModelUnavailable(f"모델 {self.name}의 답변이 중간에 끊겼습니다.")
            return text, _usage(response.raw) or Usage()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _next(self, pieces: AsyncGenerator[str | Usage, None]) -> str | Usage | None:
        """Return the next piece, None after the last; TimeoutError when it does not come in time, retries included."""
        async with asyncio.timeout(self._timeout_seconds):
            return await anext(pieces, None)

    async def _pieces(self, messages: Sequence[ChatMessage]) -> AsyncGenerator[str | Usage, None]:
        said = False
        async with aclosing(await self._llm.astream_chat(messages)) as chunks:
            async for chunk in chunks:
                if chunk.delta:
                    said = True
                    yield _encodable(chunk.delta)
                if usage := _usage(chunk.raw):
                    yield usage
        if not said:
            raise ModelUnavailable(f"모델 {self.name}이(가) 빈 답변을 보냈습니다.")


class Meter:
    """A model's short completions in one run, counted: `usage` is what they took together."""

    def __init__(self, model: Completes) -> None:
        """Count from zero."""
        self.name = model.name
        self.usage = Usage()
        self._model = model

    async def complete(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, timeout_seconds: float
    ) -> tuple[str, Usage]:
        """Return what the model's `complete` returns; raises what that raises."""
        text, usage = await self._model.complete(messages, max_tokens=max_tokens, timeout_seconds=timeout_seconds)
        self.usage += usage
        return text, usage


async def _note(response: httpx.Response) -> None:
    """Note a response for the call that asked for it."""
    _received.get().append(response)


def _usage(raw: Any) -> Usage | None:
    counted = getattr(raw, "usage", None)
    if counted is None:
        return None
    return Usage(prompt_tokens=counted.prompt_tokens or 0, completion_tokens=counted.completion_tokens or 0)


def _encodable(text: str) -> str:
    """Return the text with "?" for lone surrogates: JSON escapes can name them, UTF-8 has none."""
    return text.encode("utf-8", "replace").decode()


@contextmanager
def _mapped(name: str) -> Iterator[None]:
    """Turn what the OpenAI client raises, and in mid-answer its HTTP client, into ModelUnavailable."""
    try:
        yield
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise ModelUnavailable(f"모델 {name}이(가) 키를 거절했습니다. OPENAI_API_KEY를 확인해 주세요.") from error
    except openai.RateLimitError as error:
        raise ModelUnavailable(f"모델 {name}의 사용 한도를 넘었습니다. 잠시 후 다시 시도해 주세요.") from error
    except (openai.APITimeoutError, httpx.TimeoutException, TimeoutError) as error:
        if _unreachable(error):
            raise ModelUnavailable(_check_address(name)) from error
        raise ModelUnavailable(f"모델 {name}이(가) 제한 시간 안에 답하지 않았습니다.") from error
    except (openai.InternalServerError, httpx.HTTPError, *GARBAGE) as error:
        raise ModelUnavailable(f"모델 {name}의 서버에 오류가 있습니다. 잠시 후 다시 시도해 주세요.") from error
    except (openai.OpenAIError, OSError) as error:
        raise ModelUnavailable(_check_address(name)) from error


def _check_address(name: str) -> str:
    return f"모델 {name}을(를) 사용할 수 없습니다. OPENAI_BASE_URL과 모델 이름을 확인해 주세요."


def _unreachable(error: BaseException | None) -> bool:
    """Tell whether nobody listened at the address, which httpx-aiohttp takes for a timeout."""
    while error is not None and not isinstance(error, aiohttp.ClientConnectorError):
        error = error.__cause__ or error.__context__
    return error is not None
