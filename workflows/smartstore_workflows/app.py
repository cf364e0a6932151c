"""The composition root of what answers: opens every client, and closes them in reverse."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from smartstore_indexing.building import IndexBuilder
from smartstore_indexing.embedders import opened_embedder
from smartstore_indexing.embedding import DIMENSIONS, E5Embedding, Embedder, QueryVectors
from smartstore_indexing.holding import held
from smartstore_indexing.korean import Morphemes
from smartstore_indexing.milvus import Collections
from smartstore_indexing.reading import IndexReader
from smartstore_indexing.settings import Settings
from smartstore_indexing.wiring import builder_of, opened_collections
from smartstore_workflows.answering import AnswerWorkflow
from smartstore_workflows.cache_stores import RedisAnswers, RedisVectors, SqliteAnswers
from smartstore_workflows.caching import AnswerCache, AnswerStore
from smartstore_workflows.follow_ups import FollowUpModel
from smartstore_workflows.models import Models
from smartstore_workflows.ranking import RankingModel
from smartstore_workflows.retrieving import FaqRetriever
from smartstore_workflows.scope import ScopeModel
from smartstore_workflows.stores import Stores, opened_stores


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that is open; the doors and the tests take what they need from here.

    `embedding` is what is searched with, `vectors` are the shipped encoder's, by which questions are judged.
    """

    settings: Settings
    collections: Collections
    builder: IndexBuilder
    reader: IndexReader
    retriever: FaqRetriever
    embedding: Embedder
    vectors: QueryVectors
    morphemes: Morphemes
    stores: Stores
    answers: AnswerStore | None
    scope: ScopeModel
    models: Models
    workflow: AnswerWorkflow
    uncached: AnswerWorkflow
    workflow_with: Callable[[AnswerCache], AnswerWorkflow]


@asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[Services]:
    """Open every client that the settings ask for and yield them wired; close them in reverse.

    Raises:
        FolderInUse: another process holds the data folder.
        Misconfigured: the embedding model lacks its key, its name or its packages.
        StoreUnavailable: Milvus or Redis does not answer, or a local file cannot be opened.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(held(settings.data_dir))
        collections = await stack.enter_async_context(opened_collections(settings))
        stores = await stack.enter_async_context(opened_stores(settings))
        models = Models.of(settings)
        stack.push_async_callback(models.close)
        local, morphemes = E5Embedding(), Morphemes()
        embedding = await stack.enter_async_context(opened_embedder(settings, local=local))
        vectors = searching = QueryVectors(local, shared=_shared_vectors(settings, stores, local, DIMENSIONS))
        if embedding is not local:
            shared = _shared_vectors(settings, stores, embedding, settings.embedding.dimensions)
            searching = QueryVectors(embedding, at_once=embedding.embed_batch_size, shared=shared)
        reader = IndexReader(collections=collections, embedder=embedding.model_name)
        retriever = FaqRetriever(
            reader=reader,
            vectors=searching,
            local=vectors,
            morphemes=morphemes,
            ranking=RankingModel.shipped(),
        )
        scope = ScopeModel.shipped()
        follow_ups = FollowUpModel.shipped()

        def workflow_with(cache: AnswerCache) -> AnswerWorkflow:
            workflow = AnswerWorkflow(
                retriever=retriever,
                vectors=vectors,
                morphemes=morphemes,
                scope=scope,
                follow_ups=follow_ups,
                models=models,
                timeout_seconds=settings.question_timeout_seconds,
                steps=settings.steps,
                cache=cache,
                locks=stores.locks,
            )
            workflow.validate()
            return workflow

        answers = await answer_store(settings, stores)
        yield Services(
            settings=settings,
            collections=collections,
            builder=builder_of(
                settings, collections=collections, embedding=embedding, local=local, morphemes=morphemes
            ),
            reader=reader,
            retriever=retriever,
            embedding=embedding,
            vectors=vectors,
            morphemes=morphemes,
            stores=stores,
            answers=answers,
            scope=scope,
            models=models,
            workflow=workflow_with(AnswerCache(answers, read=morphemes.read)),
            uncached=workflow_with(AnswerCache(None, read=morphemes.read)),
            workflow_with=workflow_with,
        )


async def answer_store(settings: Settings, stores: Stores) -> AnswerStore | None:
    """Return where answers that may be given again are kept; None where none are."""
    if not settings.cache.enabled:
        return None
    most, days = settings.cache.max_answers, settings.cache.days
    if stores.redis is not None:
        return RedisAnswers(stores.redis, most=most, days=days)
    return await SqliteAnswers.open(stores.file, most=most, days=days) if stores.file is not None else None


def _shared_vectors(settings: Settings, stores: Stores, embedding: Embedder, dimensions: int) -> RedisVectors | None:
    if stores.redis is None or not settings.cache.enabled:
        return None
    days = settings.cache.days
    return RedisVectors(stores.redis, embedder=embedding.model_name, dimensions=dimensions, days=days)
