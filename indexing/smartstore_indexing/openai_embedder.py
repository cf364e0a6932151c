"""Vectors from OpenAI, or from any server that speaks its protocol, through LlamaIndex's OpenAIEmbedding."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import httpx
import numpy as np
import openai
from llama_index.embeddings.openai import OpenAIEmbedding
from typing_extensions import override

from smartstore_indexing.embedding import encodable, unit_vectors
from smartstore_indexing.embedding_settings import EmbeddingSettings
from smartstore_indexing.errors import Misconfigured, ModelUnavailable

Call = TypeVar("Call")
QUESTION_SECONDS = 5.0  # that a question waits for its vector, its retry included
QUESTION_RETRIES = 1  # then the shipped encoder's vector serves
NO_KEY = "none"  # the client cannot send an empty one
GARBAGE = (ValueError, AttributeError, LookupError, TypeError)  # what a reply that is none makes the clients raise
CHECK = "SMARTSTORE_EMBEDDING__URL, MODEL, BATCH, DIMENSIONS를 확인해 주세요."


class _TriedOnce(OpenAIEmbedding):
    """LlamaIndex's embedding, its own retries off.

    The OpenAI client tries again itself, heeds Retry-After of up to two minutes, and else waits up to 8 s, longer each
    time. With both, `max_retries` 5 would make 30 requests of one.
    """

    @override
    def _create_retry_decorator(self) -> Callable[[Call], Call]:
        return lambda call: call


class OpenAIEmbedder:
    """An embedding model behind OpenAI's protocol; what its methods return is told by `embedding.Embedder`."""

    def __init__(self, settings: EmbeddingSettings, *, name: str, key: str, base_url: str) -> None:
        """Make the client, which sends nothing yet; `name` is what indexes are made under, no key sends none."""
        self.model_name = name
        self.embed_batch_size = settings.batch
        self._name = settings.name
        self._dimensions = settings.dimensions
        self._http = openai.DefaultAsyncHttpxClient()
        self._texts, self._questions = (
            _TriedOnce(
                model_name=settings.name,  # not `model`: that one knows OpenAI's names alone
                api_key=key or NO_KEY,
                api_base=base_url,
                dimensions=settings.dimensions or None,
                embed_batch_size=settings.batch,
                timeout=settings.timeout_seconds,
                max_retries=retries,
                async_http_client=self._http,
            )
            for retries in (settings.max_retries, min(settings.max_retries, QUESTION_RETRIES))
        )

    async def aget_text_embedding_batch(self, texts: list[str]) -> list[list[float]]:
        """Return the texts' vectors, from one call for every `batch` of them.

        Raises:
            ModelUnavailable: the server refused, failed or was silent, and did so at every retry.
            Misconfigured: its vectors have not the dimensions that it was asked for.
        """
        with _mapped(self._name):
            return (await self._vectors(self._texts, texts)).astype(float).tolist()  # type: ignore[no-any-return]  # numpy's tolist

    async def aget_query_embeddings(self, queries: Sequence[str]) -> np.ndarray:
        """Return the questions' vectors; waits QUESTION_SECONDS at most, and raises what the texts' way raises."""
        with _mapped(self._name):
            async with asyncio.timeout(QUESTION_SECONDS):
                return await self._vectors(self._questions, queries)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _vectors(self, model: OpenAIEmbedding, texts: Sequence[str]) -> np.ndarray:
        found = await model.aget_text_embedding_batch([encodable(text) for text in texts])
        vectors = unit_vectors(found, len(texts))
        if self._dimensions not in (0, vectors.shape[1]):
            raise Misconfigured(
                f"임베딩 모델 {self._name}이(가) {self._dimensions:,}차원이 아니라 {vectors.shape[1]:,}차원의 벡터를 "
                "보냅니다. SMARTSTORE_EMBEDDING__DIMENSIONS를 비우거나 그 값에 맞춰 주세요."
            )
        return vectors


@contextmanager
def _mapped(name: str) -> Iterator[None]:
    """Turn what the clients raise into ModelUnavailable, with what to do about it."""
    try:
        yield
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise ModelUnavailable(
            f"임베딩 모델 {name}이(가) 키를 거절했습니다. "
            "SMARTSTORE_EMBEDDING__API_KEY나 OPENAI_API_KEY를 확인해 주세요."
        ) from error
    except openai.RateLimitError as error:
        raise ModelUnavailable(
            f"임베딩 모델 {name}의 사용 한도를 넘었습니다. 잠시 후 다시 시도하거나 한도를 확인해 주세요."
        ) from error
    except (openai.APITimeoutError, TimeoutError) as error:
        raise ModelUnavailable(f"임베딩 모델 {name}이(가) 제한 시간 안에 답하지 않았습니다.") from error
    except openai.APIConnectionError as error:
        raise ModelUnavailable(
            f"임베딩 모델 {name}의 서버에 연결할 수 없습니다. "
            "SMARTSTORE_EMBEDDING__URL이나 OPENAI_BASE_URL과 네트워크를 확인해 주세요."
        ) from error
    except openai.InternalServerError as error:
        raise ModelUnavailable(f"임베딩 모델 {name}의 서버에 오류가 있습니다. 잠시 후 다시 시도해 주세요.") from error
    except openai.APIStatusError as error:
        raise ModelUnavailable(
            f"임베딩 모델 {name}의 서버가 요청을 거절했습니다 (HTTP {error.status_code}). {CHECK}"
        ) from error
    except (openai.OpenAIError, httpx.HTTPError, *GARBAGE) as error:
        raise ModelUnavailable(f"임베딩 모델 {name}의 서버가 벡터가 아닌 것을 보냈습니다. {CHECK}") from error
