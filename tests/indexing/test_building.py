"""Building an index in a real Milvus Lite with real vectors: what is embedded, what is kept, what a failure leaves."""

import asyncio
import fcntl
import json
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode

from smartstore_indexing import building, reading
from smartstore_indexing.building import IndexBuilder
from smartstore_indexing.checking import IndexCheck
from smartstore_indexing.embedding import DIMENSIONS, MODEL_NAME, E5Embedding
from smartstore_indexing.errors import (
    Conflict,
    IndexMissing,
    IndexOutdated,
    IndexRejected,
    InvalidRequest,
    Misconfigured,
    StoreUnavailable,
    UnsafeSource,
)
from smartstore_indexing.faq import FAQ, FaqId
from smartstore_indexing.korean import Morphemes
from smartstore_indexing.milvus import Collections, Manifest
from smartstore_indexing.nodes import PARTS, NodeParts, to_node
from smartstore_indexing.reading import IndexReader, Snapshot
from smartstore_indexing.summaries import IndexSummary

pytestmark = pytest.mark.slow
FAQS = {
    "영업시간이 어떻게 되나요?": "오전 9시부터 오후 6시까지 문을 엽니다.",
    "주차할 수 있나요?": "건물 뒤에 두 시간까지 무료로 댈 수 있습니다.",
    "[단체] 예약은 어떻게 하나요?": "전화로 이틀 전까지 예약해 주세요.",
    "포장이 되나요?": "모든 차림을 포장해 드립니다.",
    "강아지와 함께 가도 되나요?": "마당 자리에서는 함께하실 수 있습니다.",
}
Rows = Sequence[tuple[str, str]]


class RecordingEmbedding(E5Embedding):
    """The real embedding, which also keeps the texts that it was given."""

    _texts: list[str] = PrivateAttr(default_factory=list)
    _before_each: Callable[[], object] = PrivateAttr(default_factory=lambda: int)  # int() does nothing

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self._texts += texts
        self._before_each()
        return super()._get_text_embeddings(texts)


@dataclass
class World:
    """One alias of the store, with a builder of its own."""

    folder: Path
    collections: Collections
    morphemes: Morphemes
    embedding: RecordingEmbedding
    golden: Path | None = None

    async def build(self, rows: Rows | Path, *, full: bool = False, by: Collections | None = None) -> IndexSummary:
        """Index these rows (or this file) through these collections, by default this world's."""
        self.embedding._texts.clear()
        path = rows if isinstance(rows, Path) else written(self.folder, rows)
        return await self.builder(by).build(path, full=full)

    def builder(self, by: Collections | None = None) -> IndexBuilder:
        """Return what builds through these collections, by default this world's."""
        parts: dict[str, Any] = {
            "collections": by or self.collections,
            "embedding": self.embedding,
            "morphemes": self.morphemes,
        }
        check = IndexCheck(**parts, golden=self.golden, golden_hit=0.5)
        return IndexBuilder(**parts, check=check)

    async def snapshot(self) -> Snapshot:
        """Return what a reader that starts now sees."""
        return await IndexReader(collections=self.collections, embedder=MODEL_NAME).snapshot()

    async def answers(self) -> dict[str, str]:
        """Return question and answer of all FAQs of the index in use, having found each by its own vector and terms."""
        snapshot = await self.snapshot()
        for place, faq in enumerate(snapshot.catalog):
            index = snapshot.parts["question"]
            nearest = await self.collections.nearest(snapshot.collection, index.vectors[place], limit=1)
            assert nearest[0].faq_id == faq.id
            matching = await self.collections.matching(snapshot.collection, " ".join(index.terms[place]), limit=1)
            assert matching[0].faq_id == faq.id
        return {faq.title: faq.answer for faq in snapshot.catalog}


def written(folder: Path, rows: Rows) -> Path:
    path = folder / "faq.jsonl"
    lines = (json.dumps({"question": question, "answer": answer}) for question, answer in rows)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def morphemes() -> Morphemes:
    return Morphemes()


async def opened(folder: Path, morphemes: Morphemes) -> World:
    uri = str(folder / "milvus.db")
    collections = await Collections.open(uri=uri, token="", alias="faq", timeout_seconds=30)
    return World(folder, collections, morphemes, RecordingEmbedding())


@pytest.fixture
async def world(tmp_path: Path, morphemes: Morphemes) -> AsyncIterator[World]:
    """Yield a world of this test's own where nothing was ever indexed."""
    world = await opened(tmp_path, morphemes)
    yield world
    await world.collections.close()


@pytest.fixture(scope="module")
async def indexed(tmp_path_factory: pytest.TempPathFactory, morphemes: Morphemes) -> Path:
    """Return a folder with FAQS indexed and nobody using it, to be copied."""
    world = await opened(tmp_path_factory.mktemp("indexed"), morphemes)
    await world.build(rows_of(FAQS))
    await world.collections.close()
    return world.folder


@pytest.fixture
async def ready(indexed: Path, tmp_path: Path, morphemes: Morphemes) -> AsyncIterator[World]:
    """Yield a world of this test's own where FAQS are indexed."""
    world = await opened(Path(shutil.copytree(indexed, tmp_path / "ready")), morphemes)
    yield world
    await world.collections.close()


def like(collections: Collections, kind: type[Collections], alias: str = "faq") -> Collections:
    """Return collections of another kind, or behind another alias, in the same store."""
    return kind(collections._client, uri=collections._uri, token="", alias=alias, timeout_seconds=30)


def rows_of(table: dict[str, str]) -> Rows:
    return list(table.items())


def counts(summary: IndexSummary) -> tuple[int, int, int, int, int]:
    return summary.added, summary.changed, summary.removed, summary.unchanged, summary.duplicates


async def test_first_build_adds_every_faq_and_puts_it_to_use(world: World) -> None:
    summary = await world.build(rows_of(FAQS))
    assert counts(summary) == (5, 0, 0, 0, 0)
    assert (summary.faqs, summary.embedded, summary.switched) == (5, 5, True)
    assert len(world.embedding._texts) == 2 * 5
    assert await world.answers() == FAQS
    manifest = (await world.snapshot()).manifest
    assert (manifest.faqs, manifest.embedder, manifest.dimensions) == (5, MODEL_NAME, DIMENSIONS)
    assert (manifest.source, manifest.version) == ("faq.jsonl", summary.version)


async def test_second_build_of_the_same_file_embeds_nothing_and_does_not_switch(ready: World) -> None:
    first = await ready.snapshot()
    summary = await ready.build(rows_of(FAQS))
    assert counts(summary) == (0, 0, 0, 5, 0)
    assert (summary.switched, summary.embedded, summary.version) == (False, 0, first.manifest.version)
    assert ready.embedding._texts == []
    assert await ready.collections.names() == [await ready.collections.current()] == [first.collection]


async def test_only_what_changed_is_embedded_and_row_numbers_follow_the_file(ready: World) -> None:
    before = await ready.snapshot()
    removed, changed, new = "포장이 되나요?", "주차할 수 있나요?", "와이파이가 있나요?"
    table = {new: "비밀번호는 계산대에 있습니다.", **FAQS, changed: "주차장은 없습니다."}
    del table[removed]
    summary = await ready.build(rows_of(table))
    assert counts(summary) == (1, 1, 1, 3, 0)
    assert summary.embedded == 2
    assert sorted(text for text in ready.embedding._texts if text in table) == sorted([new, changed])
    assert len(ready.embedding._texts) == 2 * 2
    assert await ready.answers() == table
    after = await ready.snapshot()
    assert [(faq.row, faq.title) for faq in after.catalog] == list(enumerate(table))
    kept = [faq.id for faq in after.catalog if faq.id in before.catalog.ids and faq.title != changed]
    for part in PARTS:
        old, new_ = before.parts[part], after.parts[part]
        places = [(before.catalog.ids.index(faq), after.catalog.ids.index(faq)) for faq in kept]
        assert len(places) == 3
        assert all(np.array_equal(old.vectors[was], new_.vectors[is_]) for was, is_ in places)
        assert all(old.terms[was] == new_.terms[is_] for was, is_ in places)


async def test_moved_rows_switch_without_embedding_anything(ready: World) -> None:
    moved = list(reversed(FAQS.items()))
    summary = await ready.build(moved)
    assert counts(summary) == (0, 0, 0, 5, 0)
    assert (summary.switched, ready.embedding._texts) == (True, [])
    assert [(faq.row, faq.title) for faq in (await ready.snapshot()).catalog] == [
        (row, question) for row, (question, _) in enumerate(moved)
    ]


async def test_full_build_embeds_every_faq_again(ready: World) -> None:
    summary = await ready.build(rows_of(FAQS), full=True)
    assert (summary.embedded, summary.switched) == (5, True)
    assert len(ready.embedding._texts) == 2 * 5
    assert await ready.answers() == FAQS


async def test_of_rows_with_the_same_question_the_last_one_is_indexed_and_the_others_counted(world: World) -> None:
    twice = next(iter(FAQS))
    summary = await world.build([*FAQS.items(), (twice, "처음 바뀐 답"), (twice, "문을 닫았습니다.")])
    assert counts(summary) == (5, 0, 0, 0, 2)
    snapshot = await world.snapshot()
    assert [(faq.row, faq.answer) for faq in snapshot.catalog if faq.title == twice] == [(6, "문을 닫았습니다.")]
    assert len(snapshot.catalog) == summary.faqs == 5


async def test_previous_collection_is_kept_and_older_ones_are_dropped(ready: World) -> None:
    used = [await ready.collections.current()]
    for number in range(2):
        await ready.build([("질문", f"답 {number}")])
        used.append(await ready.collections.current())
        assert await ready.collections.names() == used[-2:]
    assert len(set(used)) == 3
    await ready.collections.load(str(used[1]))
    assert [faq.answer for faq in await ready.collections.faqs(str(used[1]))] == ["답 0"]


async def test_alias_keeps_its_hands_off_an_alias_whose_name_begins_alike(ready: World) -> None:
    neighbour = like(ready.collections, Collections, alias="faq_b")
    await ready.build([("이웃", "답")], by=neighbour)
    theirs = await neighbour.names()
    await ready.build([("질문", "답")])
    assert await neighbour.names() == theirs == [await neighbour.current()]
    assert len(await ready.collections.names()) == 2


async def test_closed_store_can_be_opened_by_another_process(
    indexed: Path, tmp_path: Path, morphemes: Morphemes
) -> None:
    folder = Path(shutil.copytree(indexed, tmp_path / "closed"))
    for _ in range(2):
        world = await opened(folder, morphemes)
        assert await world.answers() == FAQS
        await world.collections.close()
        with (folder / "milvus.db" / "LOCK").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where Milvus Lite still holds it


async def test_longest_answer_is_indexed_and_read_back_whole(world: World) -> None:
    row = ("가나다라" * 50, "마" * 20_000)
    await world.build([row])
    assert await world.answers() == dict([row])


async def test_collection_in_use_cannot_be_dropped(ready: World) -> None:
    with pytest.raises(ValueError, match="in use"):
        await ready.collections.drop(str(await ready.collections.current()))
    assert await ready.answers() == FAQS


# Readers


async def test_reader_of_an_empty_store_says_what_to_run(world: World) -> None:
    with pytest.raises(IndexMissing, match="smartstore index"):
        await world.snapshot()


async def test_index_of_another_embedding_model_is_noticed_and_mended_by_the_next_build(world: World) -> None:
    world.embedding.model_name = "another-model"
    await world.build(rows_of(FAQS))
    with pytest.raises(IndexOutdated, match="smartstore index") as caught:
        await world.snapshot()
    assert "another-model" in caught.value.message
    assert MODEL_NAME in caught.value.message
    world.embedding.model_name = MODEL_NAME
    summary = await world.build(rows_of(FAQS))
    assert (summary.embedded, summary.switched) == (5, True)
    assert await world.answers() == FAQS


async def test_index_of_an_older_format_is_noticed_and_mended_by_the_next_build(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(building, "FORMAT", 0)
        await world.build(rows_of(FAQS))
    with pytest.raises(IndexOutdated, match="smartstore index"):
        await world.snapshot()
    summary = await world.build(rows_of(FAQS))
    assert (summary.embedded, summary.switched) == (5, True)
    assert await world.answers() == FAQS


async def test_reader_follows_the_alias_and_keeps_a_snapshot_that_has_not_moved(
    ready: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FOLLOW_SECONDS", 0.0)
    reader = IndexReader(collections=ready.collections, embedder=MODEL_NAME)
    old = await reader.snapshot()
    assert await reader.snapshot() is old
    await ready.build([("질문", "새 답")])
    new = await reader.snapshot()
    assert {faq.title: faq.answer for faq in old.catalog} == FAQS
    assert {faq.title: faq.answer for faq in new.catalog} == {"질문": "새 답"}
    # A question that began before the switch is still searched in the collection it began with.
    assert await ready.collections.nearest(old.collection, old.parts["question"].vectors[0], limit=1)


async def test_readers_that_start_together_load_one_snapshot(ready: World) -> None:
    reader = IndexReader(collections=ready.collections, embedder=MODEL_NAME)
    found = await asyncio.gather(*(reader.snapshot() for _ in range(20)))
    assert len({id(snapshot) for snapshot in found}) == 1


class MovesOn(Collections):
    """Has two builds end while a reader loads what was in use when it began."""

    world: World
    moved = False

    async def faqs(self, name: str) -> list[FAQ]:
        if not self.moved:
            self.moved = True
            for number in range(2):
                await self.world.build([("질문", f"답 {number}")])
        return await super().faqs(name)


async def test_reader_whose_index_is_dropped_while_it_loads_gets_the_one_in_use(ready: World) -> None:
    collections = like(ready.collections, MovesOn)
    assert isinstance(collections, MovesOn)
    collections.world = ready
    snapshot = await IndexReader(collections=collections, embedder=MODEL_NAME).snapshot()
    assert {faq.title: faq.answer for faq in snapshot.catalog} == {"질문": "답 1"}


# Builds that fail


class HalfWritten(Collections):
    """Writes only some of the nodes."""

    async def create(self, name: str, manifest: Manifest, nodes: Sequence[BaseNode]) -> None:
        await super().create(name, manifest, nodes[: len(nodes) // 2])


class WrongVectors(Collections):
    """Writes other vectors than it was given."""

    async def create(self, name: str, manifest: Manifest, nodes: Sequence[BaseNode]) -> None:
        random = np.random.default_rng(0).normal(size=(len(nodes), manifest.dimensions))
        vectors = random / np.linalg.norm(random, axis=1, keepdims=True)
        others = (node.model_copy(update={"embedding": row.tolist()}) for node, row in zip(nodes, vectors, strict=True))
        await super().create(name, manifest, list(others))


class WrongTerms(Collections):
    """Writes other morphemes than it was given."""

    async def create(self, name: str, manifest: Manifest, nodes: Sequence[BaseNode]) -> None:
        others = (node.model_copy(update={"metadata": {**node.metadata, "morphs": "다른"}}) for node in nodes)
        await super().create(name, manifest, list(others))


class FullDisk(Collections):
    """Cannot write."""

    async def create(self, name: str, manifest: Manifest, nodes: Sequence[BaseNode]) -> None:
        await super().create(name, manifest, nodes)
        raise StoreUnavailable("디스크가 가득 찼습니다.")


@pytest.mark.parametrize("kind", [HalfWritten, WrongVectors, WrongTerms])
async def test_index_that_fails_its_check_is_not_put_to_use_and_leaves_nothing(
    ready: World, kind: type[Collections]
) -> None:
    before = await ready.collections.names()
    with pytest.raises(IndexRejected, match="이전 색인이 그대로"):
        await ready.build([("질문", "답"), ("다른 질문", "다른 답")], by=like(ready.collections, kind))
    assert await ready.collections.names() == before == [await ready.collections.current()]
    assert await ready.answers() == FAQS


async def test_first_index_that_fails_its_check_leaves_an_empty_store(world: World) -> None:
    with pytest.raises(IndexRejected):
        await world.build(rows_of(FAQS), by=like(world.collections, HalfWritten))
    assert await world.collections.names() == []
    assert await world.collections.current() is None


async def test_store_that_cannot_write_leaves_the_index_in_use_as_it_was(ready: World) -> None:
    with pytest.raises(StoreUnavailable):
        await ready.build([("질문", "답")], by=like(ready.collections, FullDisk))
    assert await ready.collections.names() == [await ready.collections.current()]
    assert await ready.answers() == FAQS


class CannotDrop(FullDisk):
    """Can neither write nor drop."""

    async def drop(self, name: str) -> None:
        raise StoreUnavailable("삭제하지 못했습니다.")


async def test_what_could_not_be_dropped_hides_no_error_and_goes_with_the_next_build(ready: World) -> None:
    with pytest.raises(StoreUnavailable, match="가득"):
        await ready.build([("질문", "답")], by=like(ready.collections, CannotDrop))
    assert len(await ready.collections.names()) == 2
    assert await ready.answers() == FAQS
    await ready.build([("질문", "답")])
    assert await ready.answers() == {"질문": "답"}
    assert len(await ready.collections.names()) == 2  # the one in use and the one before it


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("faq.pkl", b"cos\nsystem\n(S'true'\ntR.", UnsafeSource),
        ("faq.pkl", b"\x80\x04}", InvalidRequest),
        ("faq.csv", "question,answer\n질문,\n".encode(), InvalidRequest),
        ("faq.jsonl", '{"question": "질문", "answer": "위 도움말이 도움이 되었나요?"}'.encode(), InvalidRequest),
        ("faq.jsonl", '{"question": "\u200b", "answer": "답"}'.encode(), InvalidRequest),
        ("faq.jsonl", json.dumps({"question": "질문", "answer": "■" * 20_000}).encode(), InvalidRequest),
        ("missing.csv", None, InvalidRequest),
    ],
    ids=["hostile", "cut off", "no answer", "nothing but furniture", "invisible question", "too long", "missing"],
)
async def test_source_that_cannot_be_indexed_leaves_the_index_in_use_as_it_was(
    ready: World, name: str, content: bytes | None, expected: type[InvalidRequest]
) -> None:
    before = await ready.collections.names()
    path = ready.folder / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(expected):
        await ready.build(path)
    assert await ready.collections.names() == before
    assert await ready.answers() == FAQS


async def test_build_cancelled_while_it_embeds_leaves_the_index_in_use_as_it_was(ready: World) -> None:
    before = await ready.collections.names()
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(ready.build([("질문", "답")]))
    ready.embedding._before_each = lambda: loop.call_soon_threadsafe(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ready.embedding._texts
    assert await ready.collections.names() == before
    assert await ready.answers() == FAQS


def cancel_this_task() -> None:
    """Have the running task cancelled at its next await that waits."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


class CancelledAtCreate(Collections):
    """Has the build cancelled while the nodes are being written."""

    async def create(self, name: str, manifest: Manifest, nodes: Sequence[BaseNode]) -> None:
        cancel_this_task()
        await super().create(name, manifest, nodes)


class CancelledAtLoad(Collections):
    """Has the build cancelled between writing and checking."""

    async def load(self, name: str) -> None:
        if name != await self.current():
            cancel_this_task()
        await super().load(name)


class CancelledAtUse(Collections):
    """Has the build cancelled while the alias moves."""

    async def use(self, name: str) -> None:
        cancel_this_task()
        await super().use(name)


class CancelledAtDrop(Collections):
    """Has the build cancelled while it drops what is no longer needed."""

    async def drop(self, name: str) -> None:
        cancel_this_task()
        await super().drop(name)


@pytest.mark.parametrize("kind", [CancelledAtCreate, CancelledAtLoad])
async def test_build_cancelled_while_it_writes_leaves_the_index_in_use_as_it_was(
    ready: World, kind: type[Collections]
) -> None:
    before = await ready.collections.names()
    cancelled = like(ready.collections, kind)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(ready.build([("질문", "답")], by=cancelled))
    await asyncio.to_thread(cancelled._threads.shutdown)  # nobody writes any more, so nothing is left later either
    assert await ready.collections.names() == before
    assert await ready.answers() == FAQS


async def test_build_cancelled_while_the_alias_moves_leaves_a_whole_index_in_use(ready: World) -> None:
    cancelled = like(ready.collections, CancelledAtUse)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(ready.build([("질문", "답")], by=cancelled))
    await asyncio.to_thread(cancelled._threads.shutdown)
    assert await ready.answers() in (FAQS, {"질문": "답"})
    await ready.build([("질문", "답 2")])
    assert await ready.answers() == {"질문": "답 2"}
    assert len(await ready.collections.names()) <= 2


async def test_build_cancelled_while_it_drops_has_put_the_new_index_to_use(ready: World) -> None:
    await ready.build([("질문", "답")])
    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(ready.build([("질문", "새 답")], by=like(ready.collections, CancelledAtDrop)))
    assert await ready.answers() == {"질문": "새 답"}


async def test_alias_that_cannot_be_moved_stays_where_it_was(ready: World) -> None:
    # As on a disk that has filled up by now: Milvus Lite has moved the alias in its memory when it cannot write it.
    (ready.folder / "milvus.db" / "aliases.json.tmp").mkdir()
    before = await ready.collections.names()
    with pytest.raises(StoreUnavailable):
        await ready.build([("질문", "답")])
    assert await ready.collections.names() == before == [await ready.collections.current()]
    assert await ready.answers() == FAQS


async def test_first_alias_that_cannot_be_made_leaves_nothing_in_use(world: World) -> None:
    in_the_way = world.folder / "milvus.db" / "aliases.json.tmp"
    in_the_way.mkdir()
    with pytest.raises(StoreUnavailable):
        await world.build([("질문", "답")])
    assert await world.collections.names() == []
    with pytest.raises(IndexMissing):
        await world.snapshot()
    in_the_way.rmdir()
    await world.build([("질문", "답")])
    assert await world.answers() == {"질문": "답"}


async def test_build_that_only_removes_loads_no_model(ready: World) -> None:
    ready.morphemes = Morphemes()
    kept = rows_of(FAQS)[:2]
    summary = await ready.build(kept)
    assert (summary.removed, summary.embedded, ready.embedding._texts) == (3, 0, [])
    assert "_kiwi" not in vars(ready.morphemes)
    assert await ready.answers() == dict(kept)


# What a killed build leaves, the way back, and golden questions


async def test_what_killed_builds_left_is_dropped_by_the_next_one_that_changes_nothing_too(ready: World) -> None:
    await ready.build([("질문", "답")])
    kept = await ready.collections.names()
    nodes = await ready.collections.parts(kept[-1])
    assert nodes
    manifest = await ready.collections.manifest(kept[-1])
    assert manifest is not None
    for stamp in ("00000000000000000001", "99991231235959999999"):
        await ready.collections.create(ready.collections.name_for(stamp), manifest, [a_node()])
    assert len(await ready.collections.names()) == 4
    summary = await ready.build([("질문", "답")])
    assert not summary.switched
    assert await ready.collections.names() == kept
    assert await ready.answers() == {"질문": "답"}


def a_node() -> BaseNode:
    faq = FAQ(id=FaqId("0"), version="0", row=0, categories=(), title="반", question="반", answer="반", related=())
    return to_node(faq, "answer", NodeParts([1.0] + [0.0] * (DIMENSIONS - 1), "반"))


async def test_collection_of_a_machine_whose_clock_is_behind_is_the_newest_all_the_same(
    ready: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Behind(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Behind":
            return cls(2001, 1, 1, tzinfo=tz)

    before = await ready.collections.current()
    with monkeypatch.context() as behind:
        behind.setattr(building, "datetime", Behind)
        await ready.build([("질문", "답")])
    assert await ready.collections.names() == [before, await ready.collections.current()]


async def test_rollback_puts_the_index_before_to_use_again_once(ready: World) -> None:
    await ready.build([("질문", "답")])
    summary = await ready.builder().rollback()
    assert (summary.faqs, summary.switched, summary.embedded) == (len(FAQS), True, 0)
    assert await ready.answers() == FAQS
    with pytest.raises(Conflict, match="되돌릴 이전 색인이 없습니다"):
        await ready.builder().rollback()
    await ready.build([("질문", "다른 답")])
    assert len(await ready.collections.names()) == 2
    assert await ready.answers() == {"질문": "다른 답"}
    await ready.builder().rollback()
    assert await ready.answers() == FAQS


async def test_first_index_has_no_way_back(world: World) -> None:
    with pytest.raises(Conflict):
        await world.builder().rollback()
    await world.build([("질문", "답")])
    with pytest.raises(Conflict):
        await world.builder().rollback()
    assert await world.answers() == {"질문": "답"}


async def test_index_of_another_embedding_model_is_no_way_back(ready: World) -> None:
    await ready.build([("질문", "답")])
    ready.embedding.model_name = "another-model"
    with pytest.raises(Conflict, match="임베딩 모델"):
        await ready.builder().rollback()
    assert await ready.answers() == {"질문": "답"}


async def test_rollback_during_a_build_leaves_a_whole_index_and_a_way_back(ready: World) -> None:
    await ready.build([("질문", "답")])
    loop = asyncio.get_running_loop()

    def roll_back() -> None:
        asyncio.run_coroutine_threadsafe(ready.builder().rollback(), loop).result(30)

    ready.embedding._before_each = roll_back
    await ready.build([("질문", "새 답")])
    assert await ready.answers() == {"질문": "새 답"}
    ready.embedding._before_each = int
    await ready.builder().rollback()
    assert await ready.answers() == FAQS


GOLDEN = [("주차", 1), ("단체 예약", 2), ("강아지", 4), ("포장", 3)]


def golden(folder: Path, questions: Sequence[tuple[str, int]]) -> Path:
    path = folder / "golden.jsonl"
    lines = (json.dumps({"id": "a", "query": query, "gold": [row]}) for query, row in questions)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def many(answer: str) -> Rows:
    """Return so many rows that not all are among the first ten."""
    return [*FAQS.items(), *((f"{number}번 창구는 무엇을 합니까?", answer) for number in range(20))]


async def test_index_that_finds_enough_golden_questions_is_put_to_use(ready: World) -> None:
    ready.golden = golden(ready.folder, [*GOLDEN[:2], ("화성 탐사", 0), ("우주선", 0)])  # half of them
    summary = await ready.build(many("접수합니다."))
    assert summary.switched


async def test_index_that_misses_golden_questions_is_not_put_to_use_and_the_figure_is_said(ready: World) -> None:
    ready.golden = golden(ready.folder, [*GOLDEN[:1], *((f"{number}번 창구", 0) for number in range(4))])
    before = await ready.collections.names()
    with pytest.raises(IndexRejected, match=r"5개 가운데 1개\(20\.0%\).*기준 50\.0%"):
        await ready.build(many("접수합니다."))
    assert await ready.collections.names() == before
    assert await ready.answers() == FAQS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "읽을 수 없습니다"),
        (b"\xff", "읽을 수 없습니다"),
        (b"\n", "질문이 없습니다"),
        (b'{"query": "a", "gold": [0]}\n{"query', "2번째 줄"),
        (b'{"query": "a", "gold": []}', "1번째 줄"),
        (b'{"query": "a"}', "1번째 줄"),
        (b'{"query": "a", "gold": [0, 5]}', "5번 행.*5행"),
        (b" " * (4 * 1024 * 1024 + 1), "너무 큽니다"),
    ],
    ids=["missing", "no text", "empty", "cut off", "no rows", "no gold", "another file's", "huge"],
)
async def test_golden_file_that_cannot_be_used_is_said_before_anything_is_embedded(
    ready: World, content: bytes | None, said: str
) -> None:
    ready.golden = ready.folder / "golden.jsonl"
    if content is not None:
        ready.golden.write_bytes(content)
    with pytest.raises(Misconfigured, match=said):
        await ready.build([(question, "새 답") for question in FAQS])
    assert ready.embedding._texts == []
    assert await ready.answers() == FAQS
