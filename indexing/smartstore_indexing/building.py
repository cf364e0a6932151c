"""Build an index beside the one in use, check it, then move the alias: readers never see a gap or half an index."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from smartstore_indexing.cleaning import clean_all
from smartstore_indexing.embedding import in_batches
from smartstore_indexing.errors import IndexRejected, InvalidRequest, StoreUnavailable
from smartstore_indexing.faq import FAQ, FaqId, digest
from smartstore_indexing.korean import Morphemes
from smartstore_indexing.loading import load
from smartstore_indexing.milvus import Collections, Manifest
from smartstore_indexing.nodes import FORMAT, PARTS, NodeParts, embedded_text, node_id, searched_text, to_node

CHECKED_FAQS = 10  # sample searches of a fresh index before it is put to use
TEXT_BYTES = 65_535  # what a Milvus text field holds; Milvus Lite takes more
SAME_VECTOR = 0.999  # cosine of a vector with itself, 32-bit rounding allowed for

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """What an indexing run did; the first four count FAQs, `duplicates` rows whose question stands again below."""

    added: int
    changed: int
    removed: int
    unchanged: int
    duplicates: int
    embedded: int  # FAQs whose vectors were computed
    faqs: int
    version: str
    switched: bool  # False: nothing had changed, the index in use stays
    seconds: float


def silent(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


class IndexBuilder:
    """Brings the collections up to date with an FAQ file."""

    def __init__(
        self, *, collections: Collections, embedding: BaseEmbedding, dimensions: int, morphemes: Morphemes
    ) -> None:
        """Borrow the parts; who made them closes them."""
        self._collections = collections
        self._embedding = embedding
        self._dimensions = dimensions
        self._morphemes = morphemes

    async def build(self, path: Path, *, full: bool = False, progress: Progress = silent) -> IndexSummary:
        """Index an FAQ file; only FAQs whose content changed are embedded, all of them with `full`.

        `progress` is called as (stage, done, total) with the stages "embed" and "write".

        Raises:
            InvalidRequest: the file cannot be read, or once cleaned a question or answer is empty or too long.
            IndexRejected: the new index failed its check.
            StoreUnavailable: Milvus did not answer or could not write.
        In every case the index in use is left as it was.
        """
        started = time.perf_counter()
        rows = await asyncio.to_thread(load, path)
        faqs = await asyncio.to_thread(clean_all, rows)
        _refuse_unfit(faqs)
        current = await self._collections.current()
        manifest = await self._collections.manifest(current) if current else None
        reusable = current is not None and not full and manifest is not None and self._can_reuse(manifest)
        before: dict[FaqId, FAQ] = {}
        if current and reusable:
            await self._collections.load(current)
            before = {faq.id: faq for faq in await self._collections.faqs(current)}
        fresh = [faq for faq in faqs if faq.id not in before or before[faq.id].version != faq.version]
        new_manifest = self._manifest(faqs, path)
        switched = manifest is None or not reusable or new_manifest.version != manifest.version
        if switched:
            parts = await self._compute(fresh, progress)
            if before and current:
                kept = {node_id(faq.id, part) for faq in faqs for part in PARTS} - parts.keys()
                old = await self._collections.parts(current)
                parts |= {name: NodeParts(*old[name]) for name in kept}
            nodes = [to_node(faq, part, parts[node_id(faq.id, part)]) for faq in faqs for part in PARTS]
            await self._put_to_use(new_manifest, nodes, previous=current, progress=progress)
        added = sum(faq.id not in before for faq in fresh)
        return IndexSummary(
            added=added,
            changed=len(fresh) - added,
            removed=len(before.keys() - {faq.id for faq in faqs}),
            unchanged=len(faqs) - len(fresh),
            duplicates=len(rows) - len(faqs),
            embedded=len(fresh),
            faqs=len(faqs),
            version=new_manifest.version,
            switched=switched,
            seconds=time.perf_counter() - started,
        )

    def _can_reuse(self, manifest: Manifest) -> bool:
        return manifest.format == FORMAT and manifest.embedder == self._embedding.model_name

    def _manifest(self, faqs: Sequence[FAQ], path: Path) -> Manifest:
        contents = (f"{faq.id} {faq.version} {faq.row}" for faq in faqs)
        return Manifest(
            format=FORMAT,
            embedder=self._embedding.model_name,
            dimensions=self._dimensions,
            version=digest(str(FORMAT), self._embedding.model_name, *contents),
            faqs=len(faqs),
            source=path.name,
            built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    async def _compute(self, faqs: Sequence[FAQ], progress: Progress) -> dict[str, NodeParts]:
        """Return the vectors and morphemes of all parts of the FAQs, by node id."""
        wanted = [(faq, part) for faq in faqs for part in PARTS]
        if not wanted:
            return {}  # without loading Kiwi
        terms = await asyncio.to_thread(self._morphemes.joined, [searched_text(faq, part) for faq, part in wanted])
        # Texts of like length share a batch, so that no core waits for the longest.
        order = sorted(range(len(wanted)), key=lambda place: len(embedded_text(*wanted[place])))
        found: dict[str, NodeParts] = {}
        for batch in in_batches(order):
            vectors = await self._embedding.aget_text_embedding_batch(
                [embedded_text(*wanted[place]) for place in batch]
            )
            for place, vector in zip(batch, vectors, strict=True):
                faq, part = wanted[place]
                found[node_id(faq.id, part)] = NodeParts(vector, terms[place])
            progress("embed", len(found), len(wanted))
        return found

    async def _put_to_use(
        self, manifest: Manifest, nodes: Sequence[TextNode], *, previous: str | None, progress: Progress
    ) -> None:
        """Write a new collection, check it, move the alias, and keep no other collection but the previous one."""
        name = self._collections.name_for(datetime.now(UTC).strftime("%Y%m%d%H%M%S%f"))
        progress("write", 0, len(nodes))
        try:
            await self._collections.create(name, manifest, nodes)
            await self._collections.load(name)
            await self._check(name, nodes)
            await self._collections.use(name)
        except BaseException:
            await asyncio.shield(self._discard(name))
            raise
        progress("write", len(nodes), len(nodes))
        with suppress(StoreUnavailable):  # the new index is in use already; the next build drops what is left
            for other in await self._collections.names():
                if other not in (name, previous):
                    await self._collections.drop(other)

    async def _discard(self, name: str) -> None:
        """Drop a collection that was not put to use; where that fails too, the next build drops it."""
        with suppress(StoreUnavailable):  # what went wrong first is what is to be said
            if name in await self._collections.names() and name != await self._collections.current():
                await self._collections.drop(name)

    async def _check(self, name: str, nodes: Sequence[TextNode]) -> None:
        """Raise IndexRejected unless every node is there and sampled nodes are found by their own vector and terms."""
        count = await self._collections.count(name)
        if count != len(nodes):
            raise IndexRejected(
                f"새 색인의 건수가 맞지 않아({count}/{len(nodes)}) 사용하지 않았습니다. 이전 색인이 그대로 쓰입니다."
            )
        for node in nodes[:: max(1, len(nodes) // CHECKED_FAQS)]:
            vector = np.asarray(node.embedding, dtype=np.float32)
            nearest = await self._collections.nearest(name, vector, limit=1)
            if not nearest or nearest[0].score < SAME_VECTOR:
                raise IndexRejected("새 색인에서 표본 검색이 실패해 사용하지 않았습니다. 이전 색인이 그대로 쓰입니다.")
            terms = node.metadata["morphs"]
            if terms and not await self._collections.matching(name, terms, limit=1):
                raise IndexRejected("새 색인에서 단어 검색이 실패해 사용하지 않았습니다. 이전 색인이 그대로 쓰입니다.")


def _refuse_unfit(faqs: Sequence[FAQ]) -> None:
    for faq in faqs:
        if not faq.title:
            raise InvalidRequest(f"{faq.row + 1}번째 FAQ는 정리하고 나니 질문이 비어 있습니다. 질문을 채워 주세요.")
        if not faq.answer:
            raise InvalidRequest(f"{faq.row + 1}번째 FAQ는 정리하고 나니 답변이 비어 있습니다. 답변을 채워 주세요.")
        if len(faq.answer.encode()) > TEXT_BYTES:
            raise InvalidRequest(f"{faq.row + 1}번째 FAQ의 답변이 너무 깁니다. 답변을 나누어 주세요.")
