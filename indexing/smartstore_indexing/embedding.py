"""Text as vectors, through LlamaIndex's BaseEmbedding: the encoder that ships with the project, in this process."""

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources
from itertools import islice
from typing import Protocol, TypeVar

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
QUESTIONS = 4  # of unlike length, in one call: 13 ms each on two idle cores; one alone takes 15 ms, of eight each 16


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
        encoded = tokenizer.encode_batch([encodable(text) for text in texts])
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

    async def aget_query_embeddings(self, queries: Sequence[str]) -> np.ndarray:
        """Return the vectors of some questions, (n, 384) float32, unit length, from one call."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._query_vectors, queries)

    def _query_vectors(self, queries: Sequence[str]) -> np.ndarray:
        return self._encoder.vectors([f"query: {query}" for query in queries])

    def _get_query_embedding(self, query: str) -> list[float]:
        return _floats(self._query_vectors([query]))[0]

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


class Embedder(Protocol):
    """A model that FAQs and questions are searched with: an E5Embedding, or one of embedders.py.

    `model_name` names all that its vectors depend on: an index made under another name is made anew.
    """

    model_name: str
    embed_batch_size: int  # texts of one call

    async def aget_text_embedding_batch(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts of FAQs, unit length, in their order; ModelUnavailable when there are none."""
        ...

    async def aget_query_embeddings(self, queries: Sequence[str]) -> np.ndarray:
        """Return the vectors of questions, (n, dimensions) float32, unit length; ModelUnavailable as above."""
        ...


class SharedVectors(Protocol):
    """Vectors of questions that other processes computed. It never fails: what it cannot do it leaves."""

    async def get(self, questions: Sequence[str]) -> list[np.ndarray | None]:
        """Return each question's vector (dimensions,) float32, None where none is kept."""

    async def put(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep the vectors of questions."""


class QueryVectors:
    """The vectors of questions, computed once: the last `size` are kept, and those that come at once share calls."""

    def __init__(
        self,
        embedding: Embedder,
        *,
        size: int = 512,
        at_once: int = QUESTIONS,
        shared: SharedVectors | None = None,
    ) -> None:
        """Hold the embedding model, which gets `at_once` questions a call; a vector of 384 float32 takes 1.5 KiB."""
        self._embedding = embedding
        self._at_once = at_once
        self._shared = shared
        self._size = size
        self._vectors: OrderedDict[str, asyncio.Future[np.ndarray]] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[np.ndarray]] = {}
        self._computing: asyncio.Task[None] | None = None

    async def of(self, question: str) -> np.ndarray:
        """Return the question's vector, (dimensions,) float32, unit length; raises what the model raises."""
        vector = self._vectors.get(question)
        if vector is None or (vector.done() and (vector.cancelled() or vector.exception() is not None)):
            # No await between these lines = atomic in asyncio.
            vector = asyncio.get_running_loop().create_future()
            self._vectors[question] = self._waiting[question] = vector
            if len(self._vectors) > self._size:
                self._vectors.popitem(last=False)
            if self._computing is None or self._computing.done():
                self._computing = asyncio.create_task(self._compute())
        self._vectors.move_to_end(question)
        return await asyncio.shield(vector)  # another step may be waiting for the same vector

    async def _compute(self) -> None:
        """Compute what waits, the first that came first, until nothing does."""
        while self._waiting:
            questions = list(islice(self._waiting, self._at_once))
            batch = [self._waiting.pop(question) for question in questions]
            try:
                vectors = await self._vectors_of(questions)
            except Exception as error:  # noqa: BLE001  whoever asked is told, whatever it is
                for vector in batch:
                    vector.set_exception(error)
            else:
                for waiting, computed in zip(batch, vectors, strict=True):
                    waiting.set_result(computed)

    async def _vectors_of(self, questions: Sequence[str]) -> Sequence[np.ndarray]:
        if self._shared is None:
            return list(await self._embedding.aget_query_embeddings(questions))
        found = dict(zip(questions, await self._shared.get(questions), strict=True))
        missing = [question for question, vector in found.items() if vector is None]
        if missing:
            computed = dict(zip(missing, await self._embedding.aget_query_embeddings(missing), strict=True))
            await self._shared.put(computed)
            found |= computed
        return [vector for vector in found.values() if vector is not None]


def _floats(vectors: np.ndarray) -> list[list[float]]:
    floats: list[list[float]] = vectors.astype(float).tolist()
    return floats


def unit_vectors(vectors: Sequence[Sequence[float]], count: int) -> np.ndarray:
    """Return vectors as (count, dimensions) float32 of unit length.

    Raises:
        ValueError: they are not so many, not all of one length, or one of them has no direction.
    """
    with np.errstate(over="ignore"):  # what overflows is not finite
        found = np.array(vectors, dtype=np.float32)
    if found.ndim != 2 or len(found) != count:
        raise ValueError(f"{count} vectors are wanted, and {found.shape} came")
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths) & (lengths > 0)):
        raise ValueError("a vector is zero or not finite")
    return np.asarray(found / lengths, dtype=np.float32)


def encodable(text: str) -> str:
    """Return the text without what UTF-8 cannot hold (lone surrogates), no longer than its tokens can be."""
    return text.encode("utf-8", "ignore").decode()[:MAX_CHARACTERS]


def in_batches(items: Sequence[T], size: int = BATCH) -> list[Sequence[T]]:
    """Return the items in runs of `size`, in their order."""
    return [items[start : start + size] for start in range(0, len(items), size)]
