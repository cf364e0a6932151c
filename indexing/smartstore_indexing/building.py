"""Build an index beside the one in use, check it, then move the alias: readers never see a gap or half an index."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from llama_index.core.schema import TextNode

from smartstore_indexing.checking import Golden, IndexCheck
from smartstore_indexing.cleaning import clean_all
from smartstore_indexing.embedding import Embedder, in_batches
from smartstore_indexing.errors import Conflict, IndexRejected, InvalidRequest, StoreUnavailable
from smartstore_indexing.faq import FAQ, FaqId, digest
from smartstore_indexing.korean import Morphemes
from smartstore_indexing.loading import load
from smartstore_indexing.milvus import Collections, Manifest
from smartstore_indexing.nodes import FORMAT, PARTS, NodeParts, embedded_text, node_id, packed, searched_text, to_node
from smartstore_indexing.summaries import IndexSummary

TEXT_BYTES = 65_535  # what a Milvus text field holds; Milvus Lite takes more

Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


class IndexBuilder:
    """Brings the collections up to date with an FAQ file."""

    def __init__(
        self,
        *,
        collections: Collections,
        embedding: Embedder,
        morphemes: Morphemes,
        check: IndexCheck,
        local: Embedder | None = None,
    ) -> None:
        """Borrow the parts; who made them closes them.

        `local` is the shipped encoder, whose vectors are kept beside those of another `embedding`.
        """
        self._collections = collections
        self._embedding = embedding
        self._local = local
        self._morphemes = morphemes
        self._check = check

    async def build(
        self, path: Path, *, full: bool = False, progress: Progress = silent, requests: Sequence[str] = ()
    ) -> IndexSummary:
        """Index an FAQ file; only FAQs whose content changed are embedded, all of them with `full`.

        `progress` is called as (stage, done, total) with the stages "embed" and "write", and before another model than
        the shipped one embeds once as ("plan", texts, tokens), both of what it will embed; `requests` are the ids of
        those that ask, for `met`. What a build that was killed left behind is dropped.

        Raises:
            Conflict: the model's vectors have not the dimensions that it gave the unchanged FAQs; `full` helps.
            InvalidRequest: the file cannot be read, or once cleaned a question or answer is empty or too long.
            IndexRejected: the new index failed its check.
            Misconfigured: the golden questions, or the settings of the embedding model, cannot be used.
            ModelUnavailable: the embedding model does not answer.
            StoreUnavailable: Milvus did not answer or could not write.
        In every case the index in use is left as it was.
        """
        started = time.perf_counter()
        rows = await asyncio.to_thread(load, path)
        golden = await self._check.golden(rows)
        faqs = await asyncio.to_thread(clean_all, rows)
        _refuse_unfit(faqs)
        current = await self._collections.current()
        await self._drop_all_but(current, _previous(await self._collections.names(), current))
        manifest = await self._collections.manifest(current) if current else None
        reusable = current is not None and not full and manifest is not None and self._can_reuse(manifest)
        before: dict[FaqId, FAQ] = {}
        if current and reusable:
            await self._collections.load(current)
            before = {faq.id: faq for faq in await self._collections.faqs(current)}
        fresh = [faq for faq in faqs if faq.id not in before or before[faq.id].version != faq.version]
        version = self._version(faqs)
        added = sum(faq.id not in before for faq in fresh)
        summary = IndexSummary(
            added=added,
            changed=len(fresh) - added,
            removed=len(before.keys() - {faq.id for faq in faqs}),
            unchanged=len(faqs) - len(fresh),
            duplicates=len(rows) - len(faqs),
            embedded=len(fresh),
            faqs=len(faqs),
            version=version,
            switched=manifest is None or not reusable or version != manifest.version,
            seconds=time.perf_counter() - started,
        )
        if summary.switched:
            nodes = await self._nodes(faqs, fresh, current if before else None, progress)
            summary = replace(summary, seconds=time.perf_counter() - started)
            await self._put_to_use(self._manifest(nodes, path, requests, summary), nodes, golden, progress)
        return replace(summary, seconds=time.perf_counter() - started)

    async def ping(self) -> None:
        """Raise StoreUnavailable unless the collections can be read."""
        await self._collections.current()

    async def met(self, request: str) -> IndexSummary | None:
        """Return what the request of that id did, where it made the index in use; StoreUnavailable as in build.

        What it had no time to drop is dropped.
        """
        current = await self._collections.current()
        manifest = await self._collections.manifest(current) if current else None
        if manifest is None or request not in manifest.requests:
            return None
        await self._drop_all_but(current, _previous(await self._collections.names(), current))
        return manifest.summary

    async def rollback(self) -> IndexSummary:
        """Put the index to use again that was in use before the one that is; the next build drops the latter.

        Raises:
            Conflict: there is none, or it was made by another embedding model or an older format.
            IndexRejected: it is not whole.
            StoreUnavailable: as in build.
        """
        started = time.perf_counter()
        previous = _previous(await self._collections.names(), await self._collections.current())
        if previous is None:
            raise Conflict("되돌릴 이전 색인이 없습니다. 색인을 바꾼 뒤 한 번만 되돌릴 수 있습니다.")
        manifest = await self._collections.manifest(previous)
        if manifest is None or not self._can_reuse(manifest):
            raise Conflict("이전 색인은 다른 임베딩 모델이나 형식으로 만들어져 쓸 수 없습니다. 다시 색인해 주세요.")
        await self._collections.load(previous)
        if await self._collections.count(previous) != len(PARTS) * manifest.faqs:
            raise IndexRejected("이전 색인의 건수가 맞지 않아 되돌리지 않았습니다. 다시 색인해 주세요.")
        await self._collections.use(previous)
        return IndexSummary(
            added=0,
            changed=0,
            removed=0,
            unchanged=manifest.faqs,
            duplicates=0,
            embedded=0,
            faqs=manifest.faqs,
            version=manifest.version,
            switched=True,
            seconds=time.perf_counter() - started,
        )

    def _can_reuse(self, manifest: Manifest) -> bool:
        return manifest.format == FORMAT and manifest.embedder == self._embedding.model_name

    def _version(self, faqs: Sequence[FAQ]) -> str:
        contents = (f"{faq.id} {faq.version} {faq.row}" for faq in faqs)
        return digest(str(FORMAT), self._embedding.model_name, *contents)

    def _manifest(
        self, nodes: Sequence[TextNode], path: Path, requests: Sequence[str], summary: IndexSummary
    ) -> Manifest:
        return Manifest(
            format=FORMAT,
            embedder=self._embedding.model_name,
            dimensions=len(nodes[0].embedding or ()),
            version=summary.version,
            faqs=summary.faqs,
            source=path.name,
            built_at=datetime.now(UTC).isoformat(timespec="seconds"),
            requests=tuple(requests),
            summary=summary,
        )

    async def _nodes(
        self, faqs: Sequence[FAQ], fresh: Sequence[FAQ], current: str | None, progress: Progress
    ) -> list[TextNode]:
        """Return the nodes of all FAQs: those of the fresh ones computed, the others as the index in use has them."""
        parts = await self._compute(fresh, progress)
        if current:
            kept = {node_id(faq.id, part) for faq in faqs for part in PARTS} - parts.keys()
            old = await self._collections.parts(current)
            parts |= {name: old[name] for name in kept}
        if len({len(part.vector) for part in parts.values()}) > 1:
            raise Conflict(
                "임베딩 모델이 보낸 벡터의 차원이 지금 색인의 것과 다릅니다. "
                "`smartstore index --full`로 모두 다시 임베딩해 주세요."
            )
        return [to_node(faq, part, parts[node_id(faq.id, part)]) for faq in faqs for part in PARTS]

    async def _compute(self, faqs: Sequence[FAQ], progress: Progress) -> dict[str, NodeParts]:
        """Return the vectors and morphemes of all parts of the FAQs, by node id."""
        wanted = [(faq, part) for faq in faqs for part in PARTS]
        if not wanted:
            return {}  # without loading Kiwi
        texts = [embedded_text(faq, part) for faq, part in wanted]
        if self._local is not None:
            # A token a character: OpenAI's vocabulary (cl100k) makes 25,042 of the 25,285 characters of the sample.
            progress("plan", len(texts), sum(map(len, texts)))
        terms = await asyncio.to_thread(self._morphemes.joined, [searched_text(faq, part) for faq, part in wanted])
        # Texts of like length share a batch, so that no core waits for the longest.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: dict[str, NodeParts] = {}
        for batch in in_batches(order, self._embedding.embed_batch_size):
            vectors = await self._vectors([texts[place] for place in batch])
            for place, (vector, local) in zip(batch, vectors, strict=True):
                faq, part = wanted[place]
                found[node_id(faq.id, part)] = NodeParts(vector, terms[place], local)
            progress("embed", len(found), len(texts))
        return found

    async def _vectors(self, texts: list[str]) -> list[tuple[list[float], str]]:
        """Return each text's vector, and the shipped encoder's as it is kept beside one of another model's."""
        vectors = await self._embedding.aget_text_embedding_batch(texts)
        if self._local is None:
            return [(vector, "") for vector in vectors]
        beside = await self._local.aget_text_embedding_batch(texts)
        return [(vector, packed(local)) for vector, local in zip(vectors, beside, strict=True)]

    async def _put_to_use(
        self, manifest: Manifest, nodes: Sequence[TextNode], golden: Golden, progress: Progress
    ) -> None:
        """Write a new collection, check it, move the alias, and keep no other collection but the previous one."""
        name = self._collections.name_for(_stamp(await self._collections.names()))
        progress("write", 0, len(nodes))
        try:
            await self._collections.create(name, manifest, nodes)
            await self._collections.load(name)
            await self._check.refuse_unfit(name, nodes, golden)
            previous = await self._collections.current()
            await self._collections.use(name)
        except BaseException:
            await asyncio.shield(self._discard(name))
            raise
        progress("write", len(nodes), len(nodes))
        with suppress(StoreUnavailable):  # the new index is in use already; the next build drops what is left
            await self._drop_all_but(name, previous)

    async def _drop_all_but(self, *kept: str | None) -> None:
        for name in await self._collections.names():
            if name not in kept:
                await self._collections.drop(name)

    async def _discard(self, name: str) -> None:
        """Drop a collection that was not put to use; where that fails too, the next build drops it."""
        with suppress(StoreUnavailable):  # what went wrong first is what is to be said
            if name in await self._collections.names() and name != await self._collections.current():
                await self._collections.drop(name)


def _previous(names: Sequence[str], current: str | None) -> str | None:
    """Return the newest collection that is older than the one in use."""
    return max((name for name in names if current and name < current), default=None)


def _stamp(names: Sequence[str]) -> str:
    """Return the time as 20 digits, later than that of every collection, whatever the clock of its machine said."""
    now = int(datetime.now(UTC).strftime("%Y%m%d%H%M%S%f"))
    return str(max([now, *(int(name.rpartition("_")[2]) + 1 for name in names)]))


def _refuse_unfit(faqs: Sequence[FAQ]) -> None:
    for faq in faqs:
        if not faq.title:
            raise InvalidRequest(f"{faq.row + 1}번째 FAQ는 정리하고 나니 질문이 비어 있습니다. 질문을 채워 주세요.")
        if not faq.answer:
            raise InvalidRequest(f"{faq.row + 1}번째 FAQ는 정리하고 나니 답변이 비어 있습니다. 답변을 채워 주세요.")
        if len(faq.answer.encode()) > TEXT_BYTES:
            raise InvalidRequest(f"{faq.row + 1}번째 FAQ의 답변이 너무 깁니다. 답변을 나누어 주세요.")
