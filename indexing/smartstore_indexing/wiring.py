"""Makes the parts that the index is built with, as the settings say: collections, builder, worker."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path

from smartstore_indexing.building import IndexBuilder
from smartstore_indexing.checking import IndexCheck
from smartstore_indexing.embedders import opened_embedder
from smartstore_indexing.embedding import E5Embedding, Embedder
from smartstore_indexing.holding import held
from smartstore_indexing.index_sources import fetched
from smartstore_indexing.index_worker import IndexWorker
from smartstore_indexing.korean import Morphemes
from smartstore_indexing.milvus import Collections
from smartstore_indexing.queues import INDEX, Queues, named, work_queues
from smartstore_indexing.settings import Settings

BYTES_OF_A_MB = 1024 * 1024
INCOMING = "incoming"  # in the data folder: who may write there may have anything indexed


@asynccontextmanager
async def opened_collections(settings: Settings) -> AsyncIterator[Collections]:
    """Yield the FAQ's collections, for who holds the data folder where they are in it; StoreUnavailable as in open."""
    collections = await Collections.open(
        uri=settings.milvus_uri,
        token=settings.milvus.token.get_secret_value(),
        alias=settings.milvus.alias,
        timeout_seconds=settings.milvus.timeout_seconds,
    )
    try:
        yield collections
    finally:
        await collections.close()


@asynccontextmanager
async def opened_builder(settings: Settings) -> AsyncIterator[IndexBuilder]:
    """Yield what builds indexes, and nothing that answers.

    Raises:
        FolderInUse: another process holds the data folder that the collections are in.
        Misconfigured: the embedding model lacks its key, its name or its packages.
        StoreUnavailable: Milvus does not answer.
    """
    async with AsyncExitStack() as stack:
        if settings.milvus_is_embedded:
            stack.enter_context(held(settings.data_dir))
        collections = await stack.enter_async_context(opened_collections(settings))
        local = E5Embedding()
        embedding = await stack.enter_async_context(opened_embedder(settings, local=local))
        yield builder_of(settings, collections=collections, embedding=embedding, local=local, morphemes=Morphemes())


def builder_of(
    settings: Settings, *, collections: Collections, embedding: Embedder, local: E5Embedding, morphemes: Morphemes
) -> IndexBuilder:
    """Return what builds indexes out of these parts; `embedding` searches, `local` judges, and may be the same."""
    check = IndexCheck(
        collections=collections,
        embedding=embedding,
        morphemes=morphemes,
        golden=Path(settings.index.golden) if settings.index.golden else None,
        golden_hit=settings.index.golden_hit,
    )
    return IndexBuilder(
        collections=collections,
        embedding=embedding,
        morphemes=morphemes,
        check=check,
        local=None if embedding is local else local,
    )


def index_worker_of(settings: Settings, *, builder: IndexBuilder, queues: Queues) -> IndexWorker:
    """Return the handler of the index queue."""
    folders = allowed_folders(settings)

    def fetch(source: str | None) -> AbstractAsyncContextManager[Path]:
        if source is None:
            return nullcontext(settings.faq)
        return fetched(source, allowed_folders=folders, max_bytes=settings.index.max_source_mb * BYTES_OF_A_MB)

    attempts = 1 + len(named(work_queues(settings.rabbitmq.max_answers), INDEX).retry_seconds)
    return IndexWorker(builder=builder, queues=queues, fetch=fetch, attempts=attempts)


def allowed_folders(settings: Settings) -> list[Path]:
    """Return the folders whose files a request may name."""
    named_folders = [Path(part.strip()) for part in settings.index.folders.split(",") if part.strip()]
    return [*(named_folders or [settings.faq.parent]), settings.data_dir / INCOMING]
