"""What a fresh index must show before it is put to use: that it is whole, that it finds, that it answers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from llama_index.core.schema import BaseNode

from smartstore_indexing.embedding import Embedder, in_batches
from smartstore_indexing.errors import IndexRejected
from smartstore_indexing.faq import FaqId, RawFAQ
from smartstore_indexing.golden import CANDIDATES, FOUND, GoldenQuestion, answers_of, fused, read_golden
from smartstore_indexing.korean import Morphemes
from smartstore_indexing.milvus import Collections

CHECKED_FAQS = 10  # sample searches
SAME_VECTOR = 0.999  # cosine of a vector with itself, 32-bit rounding allowed for
KEPT = "이전 색인이 그대로 쓰입니다."
Golden = tuple[Sequence[GoldenQuestion], Sequence[frozenset[FaqId]]]


class IndexCheck:
    """Checks a collection that no alias is on yet."""

    def __init__(
        self,
        *,
        collections: Collections,
        embedding: Embedder,
        morphemes: Morphemes,
        golden: Path | None = None,
        golden_hit: float = 0.0,
    ) -> None:
        """Borrow the parts; of the questions in `golden` a share of `golden_hit` must find their FAQ."""
        self._collections = collections
        self._embedding = embedding
        self._morphemes = morphemes
        self._golden = golden
        self._golden_hit = golden_hit

    async def golden(self, rows: Sequence[RawFAQ]) -> Golden:
        """Return the golden questions and their FAQs among these rows; Misconfigured when they cannot be used."""
        if self._golden is None:
            return [], []
        questions = await asyncio.to_thread(read_golden, self._golden)
        return questions, answers_of(questions, rows)

    async def refuse_unfit(self, name: str, nodes: Sequence[BaseNode], golden: Golden) -> None:
        """Raise IndexRejected unless every node is there, sampled ones are found, and enough golden questions are."""
        count = await self._collections.count(name)
        if count != len(nodes):
            raise IndexRejected(f"새 색인의 건수가 맞지 않아({count}/{len(nodes)}) 사용하지 않았습니다. {KEPT}")
        for node in nodes[:: max(1, len(nodes) // CHECKED_FAQS)]:
            await self._refuse_unfound(name, node)
        await self._refuse_below(name, *golden)

    async def _refuse_unfound(self, name: str, node: BaseNode) -> None:
        nearest = await self._collections.nearest(name, np.asarray(node.embedding, dtype=np.float32), limit=1)
        if not nearest or nearest[0].score < SAME_VECTOR:
            raise IndexRejected(f"새 색인에서 표본 검색이 실패해 사용하지 않았습니다. {KEPT}")
        terms = node.metadata["morphs"]
        if terms and not await self._collections.matching(name, terms, limit=1):
            raise IndexRejected(f"새 색인에서 단어 검색이 실패해 사용하지 않았습니다. {KEPT}")

    async def _refuse_below(
        self, name: str, questions: Sequence[GoldenQuestion], answers: Sequence[frozenset[FaqId]]
    ) -> None:
        if not questions:
            return
        hits = 0
        for batch in in_batches(list(zip(questions, answers, strict=True)), self._embedding.embed_batch_size):
            vectors = await self._embedding.aget_query_embeddings([question.query for question, _ in batch])
            for (question, answer), vector in zip(batch, vectors, strict=True):
                hits += not answer.isdisjoint(await self._found(name, question.query, vector))
        if hits / len(questions) < self._golden_hit:
            raise IndexRejected(
                f"새 색인은 확인할 질문 {len(questions):,}개 가운데 {hits:,}개({hits / len(questions):.1%})만 "
                f"정답 FAQ를 {FOUND}위 안에서 찾아(기준 {self._golden_hit:.1%}) 사용하지 않았습니다. {KEPT}"
            )

    async def _found(self, name: str, query: str, vector: np.ndarray) -> list[str]:
        terms = await asyncio.to_thread(self._morphemes.terms, query)
        nearest = await self._collections.nearest(name, vector, limit=CANDIDATES)
        matching = await self._collections.matching(name, " ".join(terms), limit=CANDIDATES)
        return fused(nearest, matching)
