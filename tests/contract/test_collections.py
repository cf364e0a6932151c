"""What every Milvus does with our collections: a file of Milvus Lite, its server, and the real one.

The real one is Milvus 2.3.5, which `make test-milvus` installs. It has no BM25 (that came with 2.5), and did not come
up again on a folder that it had used: the search of words and a restart are shown with Milvus Lite only.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import pytest
from llama_index.core.schema import BaseNode
from milvuses import MilvusProcess, RealMilvusProcess

from smartstore_indexing.errors import StoreUnavailable
from smartstore_indexing.faq import FAQ, FaqId
from smartstore_indexing.milvus import READ_BATCH, Collections, Manifest
from smartstore_indexing.nodes import PARTS, NodeParts, node_id, to_node

pytestmark = pytest.mark.long  # tests/indexing/test_building.py sees most of it through the builder, in Milvus Lite
DIMENSIONS = 384
FAQS = 60
SWITCHES = 10
LONGEST = "긴 답입니다. " * 2_000
TIMEOUT_SECONDS = 30.0
numbers = count()


class DenseCollections(Collections):
    """The collections of a Milvus that has no BM25."""

    def _bm25(self) -> dict[str, Any]:
        return {}


@dataclass
class Store:
    """One kind of Milvus, and how to reach it."""

    kind: type[Collections]
    uri: str

    async def opened(self, alias: str, timeout_seconds: float = TIMEOUT_SECONDS) -> Collections:
        return await self.kind.open(uri=self.uri, token="", alias=alias, timeout_seconds=timeout_seconds)


@pytest.fixture(
    scope="module",
    params=[
        "lite",
        "lite-server",
        pytest.param("milvus-2.3.5", marks=pytest.mark.milvus),
    ],
)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Start one Milvus for all tests; each takes an alias of its own."""
    if request.param == "lite":
        yield Store(Collections, str(tmp_path_factory.mktemp("lite") / "milvus.db"))
        return
    server = MilvusProcess() if request.param == "lite-server" else RealMilvusProcess()
    try:
        server.start()
        yield Store(Collections if request.param == "lite-server" else DenseCollections, server.uri)
    finally:
        server.remove()


@pytest.fixture
async def collections(store: Store) -> AsyncIterator[Collections]:
    found = await store.opened(f"faq_{next(numbers)}x")
    yield found
    await found.close()


def faqs_of(number: int, answer: str = "메뉴에서 봅니다.") -> list[FAQ]:
    return [
        FAQ(
            id=FaqId(f"id{row:05d}"),
            version="1",
            row=row,
            categories=("정산", "세금"),
            title=f"[안내] {row}번째 '질문'은 \"무엇\"인가요?",
            question=f"{row}번째 '질문'은 \"무엇\"인가요?",
            answer=f"{row}: {answer}",
            related=(f"id{row - 1:05d}",),
        )
        for row in range(1, number + 1)
    ]


def vectors_of(number: int, seed: int = 0) -> np.ndarray:
    """Return unit vectors, (number, DIMENSIONS) float32."""
    drawn = np.random.default_rng(seed).standard_normal((number, DIMENSIONS)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def nodes_of(faqs: list[FAQ], seed: int = 0) -> list[BaseNode]:
    vectors = iter(vectors_of(len(PARTS) * len(faqs), seed))
    return [
        to_node(faq, part, NodeParts(next(vectors).tolist(), f"안내 질문 번호{faq.row} {part}"))
        for faq in faqs
        for part in PARTS
    ]


def manifest_of(faqs: list[FAQ]) -> Manifest:
    return Manifest(
        format=2,
        embedder="e5",
        dimensions=DIMENSIONS,
        version="v1",
        faqs=len(faqs),
        source="/faq/'한글' \"파일\".jsonl",
        built_at="2026-11-24T00:00:00Z",
        requests=("하나", "둘"),
    )


async def made(collections: Collections, stamp: str, faqs: list[FAQ] | None = None, seed: int = 0) -> str:
    """Make a searchable collection that is not in use, and return its name."""
    rows = faqs_of(FAQS) if faqs is None else faqs
    name = collections.name_for(stamp)
    await collections.create(name, manifest_of(rows), nodes_of(rows, seed))
    await collections.load(name)
    return name


async def test_nothing_is_in_use_where_nothing_was_indexed(collections: Collections) -> None:
    assert (await collections.current(), await collections.names()) == (None, [])


async def test_collection_keeps_every_faq_vector_and_manifest(collections: Collections) -> None:
    faqs = faqs_of(FAQS)
    name = await made(collections, "1", faqs)

    assert await collections.count(name) == len(PARTS) * FAQS
    assert await collections.manifest(name) == manifest_of(faqs)
    assert await collections.faqs(name) == faqs
    parts = await collections.parts(name)
    assert len(parts) == len(PARTS) * FAQS
    for node in nodes_of(faqs):
        assert np.array_equal(np.float32(parts[node.node_id].vector), np.float32(node.embedding or []))
        assert parts[node.node_id].morphs == node.metadata["morphs"]
    assert await collections.current() is None  # made, and under no alias yet


async def test_more_rows_than_one_reading_takes_are_read_back_once_each(collections: Collections) -> None:
    faqs = faqs_of(READ_BATCH + 1)
    name = await made(collections, "1", faqs)

    assert await collections.faqs(name) == faqs
    assert set(await collections.parts(name)) == {node_id(faq.id, part) for faq in faqs for part in PARTS}


async def test_longest_answer_is_read_back_whole(collections: Collections) -> None:
    faqs = faqs_of(1, LONGEST)

    assert await collections.faqs(await made(collections, "1", faqs)) == faqs


async def test_nearest_are_those_of_an_exact_search_with_their_cosines(collections: Collections) -> None:
    name = await made(collections, "1")
    vectors, ids = vectors_of(len(PARTS) * FAQS), [node.node_id for node in nodes_of(faqs_of(FAQS))]
    for query in vectors_of(5, seed=7):
        found = await collections.nearest(name, query, limit=10)
        cosines = vectors @ query
        wanted = np.argsort(-cosines)[:10]
        assert [node_id(FaqId(hit.faq_id), hit.part) for hit in found] == [ids[place] for place in wanted]
        assert np.allclose([hit.score for hit in found], cosines[wanted], atol=1e-5)


async def test_words_find_their_node_and_no_words_find_nothing(store: Store, collections: Collections) -> None:
    name = await made(collections, "1")
    if store.kind is DenseCollections:
        with pytest.raises(StoreUnavailable):
            await collections.matching(name, "번호17", limit=3)
    else:
        found = await collections.matching(name, "번호17", limit=3)
        assert {hit.faq_id for hit in found} == {"id00017"}
        assert all(hit.score > 0 for hit in found)
    assert await collections.matching(name, "", limit=3) == []


async def test_alias_moves_in_one_step_for_who_reads_meanwhile(store: Store, collections: Collections) -> None:
    first, second = await made(collections, "1"), await made(collections, "2", seed=1)
    await collections.use(first)
    seen: list[str | None] = []
    over = asyncio.Event()

    async def look() -> None:
        while not over.is_set():
            seen.append(await collections.current())
            found = await collections.nearest(str(seen[-1]), vectors_of(1)[0], limit=1)
            assert (found[0].score > 0.999) == (seen[-1] == first)

    looking = asyncio.create_task(look())
    for number in range(SWITCHES):
        await collections.use(first if number % 2 else second)
        assert await collections.current() == (first if number % 2 else second)
    over.set()
    await looking

    assert seen
    assert set(seen) <= {first, second}
    assert await collections.names() == [first, second]


async def test_collection_in_use_is_not_dropped_and_others_are(collections: Collections) -> None:
    first, second = await made(collections, "1"), await made(collections, "2")
    await collections.use(second)
    with pytest.raises(ValueError, match=re.escape(second)):
        await collections.drop(second)
    await collections.drop(first)
    await collections.drop(first)  # one that does not exist is no error

    assert (await collections.current(), await collections.names()) == (second, [second])
    assert await collections.count(second) == len(PARTS) * FAQS


async def test_alias_has_nothing_to_do_with_one_whose_name_begins_alike(store: Store, collections: Collections) -> None:
    name = await made(collections, "1")
    await collections.use(name)
    other = await store.opened(f"{collections._alias}_b")
    try:
        theirs = await made(other, "1")
        await other.use(theirs)

        assert (await other.current(), await other.names()) == (theirs, [theirs])
        assert (await collections.current(), await collections.names()) == (name, [name])
    finally:
        if "://" in store.uri:  # Milvus Lite's file is the other one's too
            await other.close()


async def test_closed_collections_are_found_again(store: Store) -> None:
    alias = f"faq_{next(numbers)}x"
    before = await store.opened(alias)
    name = await made(before, "1")
    await before.use(name)
    await before.close()

    after = await store.opened(alias)
    await after.load(name)
    assert (await after.current(), await after.faqs(name)) == (name, faqs_of(FAQS))
    await after.close()


async def test_server_that_is_gone_is_said_to_be() -> None:
    process = MilvusProcess()
    try:
        process.start()
        collections = await Store(Collections, process.uri).opened("faq", timeout_seconds=3)
        name = await made(collections, "1", faqs_of(3))
        process.kill()
        with pytest.raises(StoreUnavailable, match="Milvus 서버가 응답하지 않습니다"):
            await collections.nearest(name, vectors_of(1)[0], limit=1)
        with pytest.raises(StoreUnavailable, match="Milvus 서버가 응답하지 않습니다"):
            await collections.use(name)
        await collections.close()
    finally:
        process.remove()
