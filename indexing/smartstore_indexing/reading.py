"""The index as readers see it: one whole version at a time, held in memory, followed when the alias moves."""

import asyncio
import time
from dataclasses import dataclass

import numpy as np

from smartstore_indexing.errors import IndexMissing, IndexOutdated, StoreUnavailable
from smartstore_indexing.faq import FAQ, Catalog
from smartstore_indexing.milvus import Collections, Manifest
from smartstore_indexing.nodes import FORMAT, PARTS, NodeParts, Part, node_id, unpacked

FOLLOW_SECONDS = 2.0  # how long a moved alias may stay unnoticed; the collection before it is kept meanwhile
REINDEX = "`smartstore index`"


@dataclass(frozen=True, slots=True)
class PartIndex:
    """One part of all FAQs, in the catalog's order: vectors (n, dimensions) float32 of unit length, and morphemes.

    `local` are the shipped encoder's vectors, (n, 384), by which answers are judged: the same where it searches too.
    """

    vectors: np.ndarray
    local: np.ndarray
    terms: list[list[str]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One index version: its collection, its manifest, all of its FAQs, and what is searched in them."""

    collection: str
    manifest: Manifest
    catalog: Catalog
    parts: dict[Part, PartIndex]


class IndexReader:
    """Hands out the snapshot in use."""

    def __init__(self, *, collections: Collections, embedder: str) -> None:
        """Borrow the collections; `embedder` names the model that questions will be embedded with."""
        self._collections = collections
        self._embedder = embedder
        self._snapshot: Snapshot | None = None
        self._looked_at = 0.0
        self._loading = asyncio.Lock()

    async def snapshot(self) -> Snapshot:
        """Return the snapshot in use, at most FOLLOW_SECONDS old.

        Raises:
            IndexMissing: nothing has been indexed yet.
            IndexOutdated: the index was made by another embedding model or an older format.
            StoreUnavailable: Milvus does not answer.
        """
        if self._snapshot is not None and self._is_fresh():
            return self._snapshot
        async with self._loading:
            if self._snapshot is not None and self._is_fresh():
                return self._snapshot
            name = await self._collections.current()
            if name is None:
                raise IndexMissing(f"아직 색인된 FAQ가 없습니다. 먼저 {REINDEX}를 실행해 주세요.")
            if self._snapshot is None or self._snapshot.collection != name:
                self._snapshot = await self._load_or_newer(name)
            self._looked_at = time.monotonic()
            return self._snapshot

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._looked_at < FOLLOW_SECONDS

    async def _load_or_newer(self, name: str) -> Snapshot:
        """Return a collection as a snapshot, or the one in use by now where two builds meanwhile had it dropped."""
        try:
            return await self._load(name)
        except StoreUnavailable:
            newer = await self._collections.current()
            if newer in (None, name):
                raise
            return await self._load(str(newer))

    async def _load(self, name: str) -> Snapshot:
        manifest = await self._collections.manifest(name)
        if manifest is None or manifest.format != FORMAT:
            raise IndexOutdated(f"색인이 이전 형식으로 만들어져 읽을 수 없습니다. {REINDEX}를 다시 실행해 주세요.")
        if manifest.embedder != self._embedder:
            raise IndexOutdated(
                f"색인은 임베딩 모델 {manifest.embedder}(으)로 만들어졌고 지금 설정은 {self._embedder}입니다. "
                f"{REINDEX}를 다시 실행하면 지금 모델로 새로 만듭니다."
            )
        await self._collections.load(name)
        faqs = await self._collections.faqs(name)
        nodes = await self._collections.parts(name)
        parts = {part: _part_index(faqs, nodes, part) for part in PARTS}
        return Snapshot(name, manifest, Catalog(faqs), parts)


def _part_index(faqs: list[FAQ], nodes: dict[str, NodeParts], part: Part) -> PartIndex:
    found = [nodes[node_id(faq.id, part)] for faq in faqs]
    vectors = np.array([node.vector for node in found], dtype=np.float32)
    return PartIndex(
        vectors=vectors,
        local=np.array([unpacked(node.local) for node in found]) if found[0].local else vectors,
        terms=[node.morphs.split() for node in found],
    )
