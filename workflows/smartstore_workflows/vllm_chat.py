"""Qwen3-32B, or another model, on a vLLM server, by LlamaIndex's class for it.

Its VllmServer in the OpenAI mode makes one user message of all roles, blocks the event loop for the whole stream, and
has no field for `chat_template_kwargs` (all measured with version 0.8.0: shared/traps.md 7); here its chat is mended.
"""

import atexit
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ChatResponseAsyncGen, LLMMetadata, MessageRole
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.llms.vllm import VllmServer
from llama_index.llms.vllm.base import Vllm
from openai.types.chat import ChatCompletion
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential
from typing_extensions import override

from smartstore_indexing.model_settings import VllmSettings
from smartstore_workflows.chat_chunks import responses_of
from smartstore_workflows.chat_model import SERVER_ERROR, Advice, AnswerModel, http_client

VLLM_ADVICE = Advice(key="SMARTSTORE_VLLM__API_KEY", address="SMARTSTORE_VLLM__URL")
MAX_WAIT_SECONDS = 8.0
BACKOFF = wait_random_exponential(multiplier=0.5, max=MAX_WAIT_SECONDS)
atexit.unregister(Vllm.close)  # it imports torch as the program ends


class VllmChat(VllmServer):
    """VllmServer whose chat keeps the roles, is truly asynchronous, and turns Qwen3's thinking off."""

    _http: httpx.AsyncClient = PrivateAttr()
    _window: int = PrivateAttr()
    _retries: int = PrivateAttr()

    def __init__(self, *, http: httpx.AsyncClient, window: int, retries: int, **options: Any) -> None:
        """Send over a client that its maker closes; `retries` before the reply begins, the options are VllmServer's."""
        super().__init__(openai_like=True, **options)
        self._http, self._window, self._retries = http, window, retries

    @property
    def metadata(self) -> LLMMetadata:
        """Return what LlamaIndex wants to know of the model."""
        return LLMMetadata(
            context_window=self._window,
            num_output=self.max_new_tokens,
            is_chat_model=True,
            model_name=self.model,
            system_role=MessageRole.SYSTEM,
        )

    @override
    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the whole reply; raises httpx.HTTPError."""
        async with self._answering(self._body(messages, **kwargs)) as response:
            raw = ChatCompletion.construct(**json.loads(await response.aread()))  # unchecked, as the OpenAI client's
        text = raw.choices[0].message.content
        return ChatResponse(message=ChatMessage(text, role=MessageRole.ASSISTANT), raw=raw)

    @override
    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Return the reply's pieces; raises httpx.HTTPError when they are read."""
        body = self._body(messages, stream=True, stream_options={"include_usage": True}, **kwargs)
        return responses_of(self._answering(body), httpx.Response.aiter_bytes)

    def _body(self, messages: Sequence[ChatMessage], **kwargs: Any) -> dict[str, Any]:
        # vLLM's reading of Qwen3's chat template: https://qwen.readthedocs.io/en/latest/deployment/vllm.html
        asked = self._build_openai_payload("", self._model_kwargs, chat=True, messages=messages)
        return asked | {"stream": False, "chat_template_kwargs": {"enable_thinking": False}} | kwargs

    @asynccontextmanager
    async def _answering(self, body: dict[str, Any]) -> AsyncGenerator[httpx.Response, None]:
        """Send a request, again where trying again may help, and yield the response with its body unread."""
        attempts = AsyncRetrying(
            stop=stop_after_attempt(1 + self._retries),
            wait=_wait_seconds,
            retry=retry_if_exception(_may_pass),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                request = self._http.build_request("POST", self.api_url, json=body, headers=self.api_headers)
                response = await self._http.send(request, stream=True)
                if response.is_error:
                    await response.aclose()
                response.raise_for_status()
        try:
            yield response
        finally:
            await response.aclose()


def vllm_model(settings: VllmSettings, *, model: str) -> AnswerModel:
    """Return a model of a vLLM server, the base model or a LoRA adapter by its name; nothing is sent yet."""
    key = settings.api_key.get_secret_value()
    http = http_client()
    http.timeout = httpx.Timeout(settings.timeout_seconds)

    shared: dict[str, Any] = {
        "model": model,
        "api_url": f"{settings.url.rstrip('/')}/chat/completions",
        "api_headers": {"Authorization": f"Bearer {key}"} if key else {},
        "http": http,
        "window": settings.context_window,
    }
    llm = VllmChat(
        **shared,
        temperature=settings.temperature,
        max_new_tokens=settings.max_tokens,
        retries=settings.max_retries,
    )
    short = VllmChat(**shared, temperature=0.0, retries=0)
    return AnswerModel(name=model, llm=llm, short=short, http=http, settings=settings, advice=VLLM_ADVICE)


def _may_pass(error: BaseException) -> bool:
    """Tell whether the same request may succeed a moment later."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 409, 429) or error.response.status_code >= SERVER_ERROR
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.TimeoutException)


def _wait_seconds(attempt: RetryCallState) -> float:
    """Return how long to wait: as the server asks, or longer each time."""
    error = attempt.outcome.exception() if attempt.outcome else None
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, httpx.HTTPStatusError) else ""
    return min(float(asked), MAX_WAIT_SECONDS) if asked.isdecimal() else BACKOFF(attempt)
