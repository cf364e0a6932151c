"""The embedding model that the settings choose to search with; the shipped one always judges (docs/adr/0016)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from importlib.util import find_spec
from urllib.parse import urlsplit

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding

from smartstore_indexing.embedding import E5Embedding, Embedder, encodable, unit_vectors
from smartstore_indexing.embedding_settings import EmbeddingSettings
from smartstore_indexing.errors import Misconfigured, ModelUnavailable
from smartstore_indexing.settings import Settings

OPENAI_HOST = "api.openai.com"
EXTRA = "llama_index.embeddings.huggingface"
INSTALL = "`.venv/bin/uv pip install -e '.[huggingface]'`"


@asynccontextmanager
async def opened_embedder(settings: Settings, *, local: E5Embedding) -> AsyncIterator[Embedder]:
    """Yield what the settings say that FAQs and questions are searched with, `local` itself where they say so.

    Raises:
        Misconfigured: OpenAI has no key, the Hugging Face model no name, or its packages are not installed.
    """
    chosen = settings.embedding
    if chosen.kind == "openai":
        from smartstore_indexing.openai_embedder import OpenAIEmbedder  # its client takes a second of every start

        url, key = _server_of(settings)
        remote = OpenAIEmbedder(chosen, name=index_name(chosen, local), key=key, base_url=url)
        try:
            yield remote
        finally:
            await remote.close()
    elif chosen.kind == "huggingface":
        yield HuggingFaceEmbedder(chosen, name=index_name(chosen, local))
    else:
        yield local


def index_name(settings: EmbeddingSettings, local: E5Embedding) -> str:
    """Return the name of all that an index's vectors depend on: the model, its dimensions, and the judging one."""
    dimensions = f"@{settings.dimensions}" if settings.dimensions else ""
    return f"{settings.name}{dimensions}+{local.model_name}"


class HuggingFaceEmbedder:
    """A model of Hugging Face in this process; what its methods return is told by `embedding.Embedder`.

    It is loaded at the first use, and from the hub where it is no folder. The calls run in a thread, one at a time.
    """

    def __init__(self, settings: EmbeddingSettings, *, name: str) -> None:
        """Load nothing yet.

        Raises:
            Misconfigured: the model has no name, or the packages are not installed.
        """
        if not settings.name:
            raise Misconfigured("SMARTSTORE_EMBEDDING__KIND=huggingface에는 SMARTSTORE_EMBEDDING__MODEL이 필요합니다.")
        if find_spec(EXTRA) is None:
            raise Misconfigured(
                f"Hugging Face 임베딩 모델에 필요한 패키지가 없습니다. {INSTALL}로 설치해 주세요 (PyTorch 포함)."
            )
        self.model_name = name
        self.embed_batch_size = settings.batch
        self._settings = settings
        self._one_at_a_time = asyncio.Semaphore(1)

    async def aget_text_embedding_batch(self, texts: list[str]) -> list[list[float]]:
        """Return the texts' vectors.

        Raises:
            Misconfigured: the model cannot be loaded.
            ModelUnavailable: it failed.
        """
        async with self._one_at_a_time:
            return (await asyncio.to_thread(self._texts, texts)).astype(float).tolist()  # type: ignore[no-any-return]

    async def aget_query_embeddings(self, queries: Sequence[str]) -> np.ndarray:
        """Return the questions' vectors; raises what the texts' way raises."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._queries, queries)

    @cached_property
    def _model(self) -> BaseEmbedding:
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding  # an extra: it takes seconds and PyTorch

        name, dimensions = self._settings.name, self._settings.dimensions or None
        try:
            model: BaseEmbedding = HuggingFaceEmbedding(
                model_name=name, embed_batch_size=self.embed_batch_size, truncate_dim=dimensions
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise Misconfigured(
                f"Hugging Face 모델 {name}을(를) 불러올 수 없습니다. "
                "SMARTSTORE_EMBEDDING__MODEL의 이름이나 폴더, 네트워크를 확인해 주세요."
            ) from error
        return model

    def _texts(self, texts: Sequence[str]) -> np.ndarray:
        model = self._model
        try:
            return unit_vectors(model.get_text_embedding_batch([encodable(text) for text in texts]), len(texts))
        except (RuntimeError, ValueError) as error:
            raise self._failed() from error

    def _queries(self, queries: Sequence[str]) -> np.ndarray:
        model = self._model
        try:
            return unit_vectors([model.get_query_embedding(encodable(query)) for query in queries], len(queries))
        except (RuntimeError, ValueError) as error:
            raise self._failed() from error

    def _failed(self) -> ModelUnavailable:
        return ModelUnavailable(
            f"Hugging Face 모델 {self._settings.name}이(가) 벡터를 만들지 못했습니다. 메모리와 모델을 확인해 주세요."
        )


def _server_of(settings: Settings) -> tuple[str, str]:
    """Return the embedding server's address and key; OpenAI's key goes nowhere but to OPENAI_BASE_URL."""
    chosen = settings.embedding
    url, key = chosen.url or settings.openai_base_url, chosen.api_key.get_secret_value()
    if not chosen.url:
        key = key or settings.openai_api_key.get_secret_value()
    if not key and urlsplit(url).hostname == OPENAI_HOST:
        raise Misconfigured(
            "SMARTSTORE_EMBEDDING__KIND=openai에는 키가 필요합니다. "
            "OPENAI_API_KEY나 SMARTSTORE_EMBEDDING__API_KEY를 설정해 주세요."
        )
    return url, key
