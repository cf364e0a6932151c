"""The FAQ's Milvus collections: one for each index version, an alias on the one in use, the one before it kept.

Milvus stands behind LlamaIndex's MilvusVectorStore, which makes the collections and writes the nodes. Aliases, counts,
manifests and searches that keep each branch's scores go to its pymilvus client (shared trap list, 3). The sync client
is used, in threads: the async one binds to the first event loop that touches it.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

import grpc
import numpy as np
from llama_index.core.schema import BaseNode
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.milvus.utils import BM25BuiltInFunction
from pydantic import BaseModel, ConfigDict, ValidationError
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from smartstore_indexing.errors import StoreUnavailable
from smartstore_indexing.faq import FAQ
from smartstore_indexing.nodes import FAQ_FIELDS, NodeParts, Part, parse_node_id, to_faq
from smartstore_indexing.summaries import IndexSummary

T = TypeVar("T")
MANIFEST = "smartstore.manifest"
NO_SUCH_ALIAS = (100, 1600)  # Milvus Lite's code, and Milvus's own
THREADS = 8
# Milvus Lite's server allows a ping in 5 minutes, pymilvus sends one in 10 seconds: after a long embedding the
# connection was closed for "too many pings", and the first call failed.
LITE_KEEPALIVE_MS = 330_000
READ_BATCH = 1_000
INSERT_BATCH = 2_000


class Manifest(BaseModel):
    """What a collection was made of; stands in its properties."""

    model_config = ConfigDict(frozen=True)

    format: int
    embedder: str
    dimensions: int
    version: str  # a digest of all FAQs, their rows and this manifest's other fields
    faqs: int
    source: str
    built_at: str  # UTC, ISO 8601
    requests: tuple[str, ...] = ()  # the ids of those that asked for it
    summary: IndexSummary | None = None


class Hit(NamedTuple):
    """One node that a search found; `score` is the cosine (dense) or BM25, more is better."""

    faq_id: str
    part: Part
    score: float


class Index(NamedTuple):
    """A searched field and its metric."""

    field: str
    metric: str


# Vectors have unit length, so the inner product is the cosine; Milvus Lite computes a fifth faster than with COSINE.
DENSE = Index("embedding", "IP")
LEXICAL = Index("sparse_embedding", "BM25")


class Collections:
    """The collections behind one alias; every method raises StoreUnavailable when Milvus does not answer."""

    def __init__(self, client: MilvusClient, *, uri: str, token: str, alias: str, timeout_seconds: float) -> None:
        """Borrow an open client; `open` makes one."""
        self._client = client
        self._uri, self._token = uri, token
        self._alias = alias
        self._timeout = timeout_seconds
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="milvus")

    @classmethod
    async def open(cls, *, uri: str, token: str, alias: str, timeout_seconds: float) -> Self:
        """Connect to Milvus (a file name opens Milvus Lite in this process); the timeout bounds every call."""
        with _mapped(uri):
            client = await asyncio.to_thread(
                MilvusClient, uri=uri, token=token, timeout=timeout_seconds, grpc_options=_grpc_options(uri)
            )
        return cls(client, uri=uri, token=token, alias=alias, timeout_seconds=timeout_seconds)

    async def close(self) -> None:
        """Close the connection, and Milvus Lite with it: another process may then open its file."""
        with _mapped(self._uri):
            await self._call(self._client.close)
            if "://" not in self._uri:
                from milvus_lite.server_manager import server_manager_instance  # a second's import, for Lite only

                await self._call(partial(server_manager_instance.release_server, self._uri))
        self._threads.shutdown(wait=False)

    async def current(self) -> str | None:
        """Return the name of the collection in use, None when nothing was ever indexed."""
        return await self._call(self._current)

    async def manifest(self, name: str) -> Manifest | None:
        """Return the manifest of a collection, None when it has none that can be read."""
        found = await self._call(partial(self._client.describe_collection, name, timeout=self._timeout))
        try:
            return Manifest.model_validate_json(found.get("properties", {}).get(MANIFEST, ""))
        except ValidationError:
            return None

    async def load(self, name: str) -> None:
        """Make a collection searchable; after a restart it is not."""
        await self._call(partial(self._client.load_collection, name, timeout=self._timeout))

    async def faqs(self, name: str) -> list[FAQ]:
        """Return all FAQs of a collection in the order of their rows."""
        rows = await self._call(partial(self._read_all, name, 'part == "answer"', list(FAQ_FIELDS)))
        return sorted(map(to_faq, rows), key=lambda faq: faq.row)

    async def parts(self, name: str) -> dict[str, NodeParts]:
        """Return what was computed for every node of a collection, by node id."""
        fields = ["id", "embedding", "morphs", "local"]
        rows = await self._call(partial(self._read_all, name, 'faq_id != ""', fields))
        return {
            row["id"]: NodeParts(list(map(float, row["embedding"])), row["morphs"], row.get("local") or "")
            for row in rows
        }

    async def create(self, name: str, manifest: Manifest, nodes: Sequence[BaseNode]) -> None:
        """Make a collection of these nodes, complete and on disk when this returns, under no alias yet."""
        await self._finish(partial(self._create, name, manifest, nodes))

    async def count(self, name: str) -> int:
        """Return the number of nodes in a collection."""
        query = partial(self._client.query, name, filter="", output_fields=["count(*)"], timeout=self._timeout)
        rows = await self._call(query)
        return int(rows[0]["count(*)"])

    async def use(self, name: str) -> None:
        """Move the alias to a collection, in one step for all readers."""
        await self._finish(partial(self._use, name))

    async def drop(self, name: str) -> None:
        """Drop a collection that is not in use; one that does not exist is no error."""
        await self._finish(partial(self._drop, name))

    async def names(self) -> list[str]:
        """Return the names of this alias's collections, oldest first."""
        names = await self._call(partial(self._client.list_collections, timeout=self._timeout))
        ours = re.compile(rf"{self._alias}_\d+")  # an alias "faq" has nothing to do with another one's "faq_b_2026…"
        return sorted(name for name in names if ours.fullmatch(name))

    def name_for(self, stamp: str) -> str:
        """Return the name of the collection built at a UTC time stamp (digits, sortable)."""
        return f"{self._alias}_{stamp}"

    async def nearest(self, name: str, vector: np.ndarray, *, limit: int) -> list[Hit]:
        """Return at most `limit` nodes, best cosine first; `vector` is (dimensions,) of unit length."""
        return await self._call(partial(self._search, name, vector.tolist(), DENSE, limit))

    async def matching(self, name: str, terms: str, *, limit: int) -> list[Hit]:
        """Return at most `limit` nodes, best BM25 first; no terms find nothing.

        Milvus Lite gives BM25 as negative distances and Milvus as positive ones: the score is the absolute value.
        """
        return await self._call(partial(self._search, name, terms, LEXICAL, limit)) if terms else []

    async def _call(self, function: Callable[[], T]) -> T:
        with _mapped(self._uri):
            return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def _finish(self, function: Callable[[], None]) -> None:
        """Call what writes; when cancelled wait for its end first, so that who cleans up knows what there is."""
        writing = asyncio.ensure_future(self._call(function))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.gather(writing, return_exceptions=True)
            raise

    def _search(self, name: str, query: list[float] | str, index: Index, limit: int) -> list[Hit]:
        found = self._client.search(
            name,
            data=[query],
            anns_field=index.field,
            limit=limit,
            output_fields=["part"],  # with none, Milvus Lite reads every field: twice the time
            search_params={"metric_type": index.metric},
            timeout=self._timeout,
        )
        return [Hit(*parse_node_id(hit["id"]), abs(hit["distance"])) for hit in found[0]]

    def _current(self) -> str | None:
        # Not list_collections: Milvus Lite opens every collection for it, which takes seconds.
        try:
            found = self._client.describe_alias(self._alias, timeout=self._timeout)
        except MilvusException as error:
            if error.code in NO_SUCH_ALIAS:
                return None
            raise
        return str(found["collection_name"])

    def _read_all(self, name: str, condition: str, fields: list[str]) -> list[dict[str, Any]]:
        rows = self._client.query_iterator(name, batch_size=READ_BATCH, filter=condition, output_fields=fields)
        found: list[dict[str, Any]] = []
        while batch := rows.next():
            found += batch
        rows.close()
        return found

    def _create(self, name: str, manifest: Manifest, nodes: Sequence[BaseNode]) -> None:
        store = MilvusVectorStore(
            uri=self._uri,
            token=self._token,
            collection_name=name,
            collection_properties={MANIFEST: manifest.model_dump_json()},
            dim=manifest.dimensions,
            similarity_metric=DENSE.metric,
            index_config={"index_type": "FLAT"},  # exact; 2 x 2,717 vectors of 384 are searched in some 10 ms
            **self._bm25(),
            scalar_field_names=["morphs", "faq_id", "part"],
            scalar_field_types=[DataType.VARCHAR, DataType.VARCHAR, DataType.VARCHAR],
            batch_size=INSERT_BATCH,
            use_async_client=False,
            grpc_options=_grpc_options(self._uri),
        )
        store.add(list(nodes))
        store.client.flush(name)  # Milvus Lite scans unflushed rows in Python: 10 times slower

    def _bm25(self) -> dict[str, Any]:
        """Return the store's options for the field that BM25 searches."""
        function = BM25BuiltInFunction(
            input_field_names="morphs",
            output_field_names=LEXICAL.field,
            analyzer_params={"tokenizer": "standard"},  # the only one of Milvus Lite that fits joined morphemes
        )
        return {"enable_sparse": True, "sparse_embedding_function": function}

    def _use(self, name: str) -> None:
        before = self._current()
        try:
            if before is None:
                self._client.create_alias(name, self._alias, timeout=self._timeout)
            else:
                self._client.alter_alias(name, self._alias, timeout=self._timeout)
        except MilvusException:
            # Milvus Lite moves the alias in its memory first, and leaves it so where the disk is full.
            with suppress(MilvusException):
                if before is None:
                    self._client.drop_alias(self._alias, timeout=self._timeout)
                else:
                    self._client.alter_alias(before, self._alias, timeout=self._timeout)
            raise

    def _drop(self, name: str) -> None:
        if name == self._current():  # Milvus Lite would drop it, and the alias with it
            raise ValueError(f"{name} is in use")
        self._client.drop_collection(name, timeout=self._timeout)


def _grpc_options(uri: str) -> dict[str, int]:
    """Return the options of the connection: a server is asked as pymilvus asks, Milvus Lite seldom."""
    return {} if "://" in uri else {"grpc.keepalive_time_ms": LITE_KEEPALIVE_MS}


@contextmanager
def _mapped(uri: str) -> Iterator[None]:
    """Turn what Milvus raises into StoreUnavailable, with what to do about it."""
    try:
        yield
    except (MilvusException, grpc.RpcError, OSError) as error:
        if "://" in uri:
            raise StoreUnavailable(
                "Milvus 서버가 응답하지 않습니다. SMARTSTORE_MILVUS__URI를 확인하고 "
                "`docker compose up -d standalone`으로 서버를 시작해 주세요."
            ) from error
        raise StoreUnavailable(
            f"벡터 저장소({uri})를 열거나 쓸 수 없습니다. 디스크 여유 공간과 폴더 권한을 확인해 주세요."
        ) from error
