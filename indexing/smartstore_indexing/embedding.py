"""Text as vectors, through LlamaIndex's BaseEmbedding: the encoder that ships with the project, in this process."""

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from typing import TypeVar

# ONNX Runtime makes a device id in the home folder and reports to its maker when it is imported, unless told not to.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # noqa: TID251  it reads nothing else

import numpy as np
import onnxruntime
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from tokenizers import Tokenizer

T = TypeVar("T")
MODEL_NAME = "smartstore-e5-small-1"
DIMENSIONS = 384
MAX_CHARACTERS = 2_100  # the longest question and its prefix
MAX_TOKENS = 256  # of 512 positions: 250 characters of Korean are about 130 tokens, and attention grows with the square
PAD, PAD_TOKEN = 1, "<pad>"
BATCH = 16  # one call's texts; texts of like length fill it without padding


class Encoder:
    """The shipped encoder and its tokenizer, loaded at the first use (about 0.5 s, 150 MB)."""

    def __init__(self) -> None:
        """Load nothing yet."""
        self._loading = threading.Lock()

    @cached_property
    def _parts(self) -> tuple[Tokenizer, onnxruntime.InferenceSession]:
        folder = resources.files("smartstore_indexing").joinpath("encoder")
        tokenizer = Tokenizer.from_str(folder.joinpath("tokenizer.json").read_text(encoding="utf-8"))
        tokenizer.enable_truncation(MAX_TOKENS)
        tokenizer.enable_padding(pad_id=PAD, pad_token=PAD_TOKEN)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Other threads need the cores between calls.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = folder.joinpath("model.onnx").read_bytes()
        return tokenizer, onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts, (n, 384) float32, unit length."""
        with self._loading:
            tokenizer, session = self._parts
        encoded = tokenizer.encode_batch([_encodable(text) for text in texts])
        ids = np.array([text.ids for text in encoded], dtype=np.int64)
        mask = np.array([text.attention_mask for text in encoded], dtype=np.int64)
        vectors: np.ndarray = session.run(None, {"ids": ids, "mask": mask})[0]
        return vectors


class E5Embedding(BaseEmbedding):
    """The shipped encoder as LlamaIndex's embedding model: 384 dimensions, unit length, 0.5 ms a token on 2 cores.

    It is multilingual-e5-small (arXiv:2402.05672), its vocabulary cut to Korean and English, its upper layers trained
    on sellers' questions (docs/adr/0006), its weights rounded to 8 bits and computed with in 32. Questions and
    documents get e5's prefixes "query: " and "passage: " (section 2 of that paper). The async calls run in a thread,
    one at a time, since each already uses every core.
    """

    _encoder: Encoder = PrivateAttr(default_factory=Encoder)
    _one_at_a_time: asyncio.Semaphore = PrivateAttr(default_factory=lambda: asyncio.Semaphore(1))

    def __init__(self) -> None:
        """Name the model; load nothing yet."""
        super().__init__(model_name=MODEL_NAME, embed_batch_size=BATCH)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex serializes."""
        return "E5Embedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return _floats(self._encoder.vectors([f"query: {query}"]))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _floats(self._encoder.vectors([f"passage: {text}" for text in texts]))

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


def _floats(vectors: np.ndarray) -> list[list[float]]:
    floats: list[list[float]] = vectors.astype(float).tolist()
    return floats


def _encodable(text: str) -> str:
    """Return the text without what UTF-8 cannot hold (lone surrogates), no longer than its tokens can be."""
    return text.encode("utf-8", "ignore").decode()[:MAX_CHARACTERS]


def in_batches(items: Sequence[T], size: int = BATCH) -> list[Sequence[T]]:
    """Return the items in runs of `size`, in their order."""
    return [items[start : start + size] for start in range(0, len(items), size)]
