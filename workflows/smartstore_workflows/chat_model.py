"""A chat model that writes answers, over any of LlamaIndex's classes for one; all its failures are ModelUnavailable."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any

import aiohttp
import httpx
import openai
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import LLM
from pydantic import BaseModel, ValidationError

from smartstore_indexing.errors import ModelUnavailable
from smartstore_indexing.model_settings import ModelSettings
from smartstore_workflows.events import Usage
from smartstore_workflows.prompting import CONTEXT_TOKENS
from smartstore_workflows.thinking import without_thinking, without_thought

# What the clients raise when a server that is no OpenAI sends what is no answer, or no chunk of one.
GARBAGE = (JSONDecodeError, UnicodeDecodeError, ValidationError, AttributeError, LookupError, TypeError)
SERVER_ERROR = 500  # and above
_received: ContextVar[list[httpx.Response]] = ContextVar("received")


@dataclass(frozen=True, slots=True)
class Advice:
    """The settings to look at when a server refuses: that of its key, and that of its address."""

    key: str
    address: str


def http_client() -> httpx.AsyncClient:
    """Return a client whose responses are noted for the call that asked for them."""
    return openai.DefaultAioHttpClient(event_hooks={"response": [_note]})


class AnswerModel:
    """A chat model that streams answers and gives short completions."""

    def __init__(
        self, *, name: str, llm: LLM, short: LLM, http: httpx.AsyncClient, settings: ModelSettings, advice: Advice
    ) -> None:
        """Use one class for answers and one for short completions, both over the client; `close` closes it."""
        self.name = name
        # Half of what the answer leaves: rules, conversation and question take the other.
        self.faq_tokens = min(CONTEXT_TOKENS, (settings.context_window - settings.max_tokens) // 2)
        self._llm = llm
        self._short = short
        self._http = http
        self._timeout_seconds = settings.timeout_seconds
        self._places = asyncio.Semaphore(settings.max_at_once)
        self._starting = asyncio.Lock()
        self._advice = advice

    async def stream(
        self, messages: Sequence[ChatMessage], *, thinking: bool = False
    ) -> AsyncGenerator[str | Usage, None]:
        """Yield the answer's pieces, then its Usage where the server counts it; closing the iterator stops the model.

        What it thinks between <think> and </think> is left out, unless `thinking` asks for it.

        Raises:
            ModelUnavailable: the model refused, failed, broke off, was silent for longer than its timeout, or had no
                place for so long.
        """
        responses: list[httpx.Response] = []
        _received.set(responses)
        try:
            with self._mapped():
                async with self._place(), aclosing(self._pieces(messages, thinking=thinking)) as pieces:
                    while (piece := await self._next(pieces)) is not None:
                        yield piece
        finally:
            # Closing LlamaIndex's generator leaves the response to the garbage collector, and the model writes on.
            for response in responses:
                await response.aclose()

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int,
        timeout_seconds: float,
        form: type[BaseModel] | None = None,
    ) -> tuple[str, Usage]:
        """Return what Completes promises; raises ModelUnavailable as it says."""
        _received.set([])
        with self._mapped():
            async with asyncio.timeout(timeout_seconds), self._places:
                response = await self._short.achat(messages, max_tokens=max_tokens, **_formed(form))
            text = without_thought(_encodable(response.message.content or ""))
            if not text:
                raise ModelUnavailable(f"모델 {self.name}이(가) 빈 답변을 보냈습니다.")
            assert response.raw is not None
            if response.raw.choices[0].finish_reason == "length":
                raise ModelUnavailable(f"모델 {self.name}의 답변이 중간에 끊겼습니다.")
            return text, _usage(response.raw) or Usage()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._places.acquire()
        except TimeoutError as error:
            raise ModelUnavailable(f"모델 {self.name}에 질문이 몰려 있습니다. 잠시 후 다시 시도해 주세요.") from error
        try:
            # One request is built in a turn of the event loop: it takes milliseconds, and fifty may come at once.
            async with self._starting:
                await asyncio.sleep(0)
            yield
        finally:
            self._places.release()

    async def _next(self, pieces: AsyncGenerator[str | Usage, None]) -> str | Usage | None:
        """Return the next piece, None after the last; TimeoutError when it does not come in time, retries included."""
        async with asyncio.timeout(self._timeout_seconds):
            return await anext(pieces, None)

    async def _pieces(self, messages: Sequence[ChatMessage], *, thinking: bool) -> AsyncGenerator[str | Usage, None]:
        said, deltas = False, self._deltas(messages)
        async with aclosing(deltas if thinking else without_thinking(deltas)) as pieces:
            async for piece in pieces:
                said = said or isinstance(piece, str)
                yield piece
        if not said:
            raise ModelUnavailable(f"모델 {self.name}이(가) 빈 답변을 보냈습니다.")

    async def _deltas(self, messages: Sequence[ChatMessage]) -> AsyncGenerator[str | Usage, None]:
        async with aclosing(await self._llm.astream_chat(messages)) as chunks:
            async for chunk in chunks:
                if chunk.delta:
                    yield _encodable(chunk.delta)
                if usage := _usage(chunk.raw):
                    yield usage

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn what the classes raise, and in mid-answer their HTTP client, into ModelUnavailable."""
        name = self.name
        broken = f"모델 {name}의 서버에 오류가 있습니다. 잠시 후 다시 시도해 주세요."
        unknown = f"모델 {name}을(를) 사용할 수 없습니다. {self._advice.address}과 모델 이름을 확인해 주세요."
        try:
            yield
        except (openai.APIStatusError, httpx.HTTPStatusError) as error:
            match error.response.status_code:
                case 401 | 403:
                    said = f"모델 {name}이(가) 키를 거절했습니다. {self._advice.key}를 확인해 주세요."
                case 429:
                    said = f"모델 {name}의 사용 한도를 넘었습니다. 잠시 후 다시 시도해 주세요."
                case status:
                    said = broken if status >= SERVER_ERROR else unknown
            raise ModelUnavailable(said) from error
        except (openai.APITimeoutError, httpx.TimeoutException, TimeoutError) as error:
            late = f"모델 {name}이(가) 제한 시간 안에 답하지 않았습니다."
            raise ModelUnavailable(unknown if _unreachable(error) else late) from error
        except httpx.ConnectError as error:
            raise ModelUnavailable(unknown) from error
        except (httpx.HTTPError, aiohttp.ClientError, *GARBAGE) as error:
            raise ModelUnavailable(broken) from error
        except (openai.OpenAIError, OSError) as error:
            raise ModelUnavailable(unknown) from error


async def _note(response: httpx.Response) -> None:
    """Note a response for the call that asked for it."""
    _received.get().append(response)


def _formed(form: type[BaseModel] | None) -> dict[str, Any]:
    """Return what asks OpenAI, and vLLM alike, for a reply of this form."""
    if form is None:
        return {}
    schema = {"name": form.__name__.lower(), "strict": True, "schema": form.model_json_schema()}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _usage(raw: Any) -> Usage | None:
    counted = getattr(raw, "usage", None)
    if counted is None:
        return None
    return Usage(prompt_tokens=counted.prompt_tokens or 0, completion_tokens=counted.completion_tokens or 0)


def _encodable(text: str) -> str:
    """Return the text with "?" for lone surrogates: JSON escapes can name them, UTF-8 has none."""
    return text.encode("utf-8", "replace").decode()


def _unreachable(error: BaseException | None) -> bool:
    """Tell whether nobody listened at the address, which httpx-aiohttp takes for a timeout."""
    while error is not None and not isinstance(error, aiohttp.ClientConnectorError):
        error = error.__cause__ or error.__context__
    return error is not None
