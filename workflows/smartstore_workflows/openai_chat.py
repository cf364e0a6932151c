"""OpenAI, and any server that speaks its protocol, by LlamaIndex's class for it."""

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponseAsyncGen, LLMMetadata, MessageRole
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai.utils import to_openai_message_dicts
from openai._response import AsyncAPIResponse
from typing_extensions import override

from smartstore_indexing.model_settings import CompatibleSettings, OpenAISettings
from smartstore_workflows.chat_chunks import responses_of
from smartstore_workflows.chat_model import Advice, AnswerModel, http_client

OPENAI_ADVICE = Advice(key="OPENAI_API_KEY", address="OPENAI_BASE_URL")
COMPATIBLE_ADVICE = Advice(key="SMARTSTORE_COMPATIBLE__API_KEY", address="SMARTSTORE_COMPATIBLE__URL")


class OpenAIChat(OpenAI):
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
        """Return the reply's pieces, read from the stream of lines."""
        create = self._get_aclient().chat.completions.with_streaming_response.create
        return responses_of(
            create(
                messages=to_openai_message_dicts(messages, model=self.model),  # type: ignore[arg-type]  # str: responses
                **self._get_model_kwargs(stream=True, **kwargs),
            ),
            AsyncAPIResponse.iter_bytes,
        )


def openai_model(
    settings: OpenAISettings | CompatibleSettings, *, key: str, base_url: str, advice: Advice = OPENAI_ADVICE
) -> AnswerModel:
    """Return a model of a server that speaks OpenAI's protocol; nothing is sent yet."""
    http = http_client()
    shared: dict[str, Any] = {
        "model": settings.model,
        "window": settings.context_window,
        "timeout": settings.timeout_seconds,
        "api_key": key,
        "api_base": base_url,
        "async_http_client": http,
    }
    llm = OpenAIChat(
        **shared,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        max_retries=settings.max_retries,
        additional_kwargs={"stream_options": {"include_usage": True}},
    )
    # LlamaIndex's own max_tokens wins over a call's, so that of the short completions has none.
    short = OpenAIChat(**shared, temperature=0.0, max_retries=0)
    return AnswerModel(name=settings.model, llm=llm, short=short, http=http, settings=settings, advice=advice)
