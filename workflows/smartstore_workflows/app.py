"""The composition root: the only place that opens clients, and closes them in reverse."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from smartstore_indexing.building import IndexBuilder
from smartstore_indexing.embedding import DIMENSIONS, E5Embedding, QueryVectors
from smartstore_indexing.holding import held
from smartstore_indexing.korean import Morphemes
from smartstore_indexing.milvus import Collections
from smartstore_indexing.reading import IndexReader
from smartstore_indexing.settings import Settings
from smartstore_workflows.answering import AnswerWorkflow
from smartstore_workflows.follow_ups import FollowUpModel
from smartstore_workflows.memory import ConversationStore
from smartstore_workflows.models import AnswerModel
from smartstore_workflows.ranking import RankingModel
from smartstore_workflows.retrieving import FaqRetriever
from smartstore_workflows.scope import ScopeModel

CONVERSATIONS = "conversations.sqlite3"


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that is open; the doors and the tests take what they need from here."""

    settings: Settings
    collections: Collections
    builder: IndexBuilder
    reader: IndexReader
    retriever: FaqRetriever
    vectors: QueryVectors
    morphemes: Morphemes
    conversations: ConversationStore
    scope: ScopeModel
    model: AnswerModel | None
    workflow: AnswerWorkflow


@asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[Services]:
    """Open every client that the settings ask for and yield them wired; close them in reverse.

    Raises:
        FolderInUse: another process holds the data folder.
        StoreUnavailable: Milvus or a local file cannot be opened.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(held(settings.data_dir))
        collections = await Collections.open(
            uri=settings.milvus_uri,
            token=settings.milvus.token.get_secret_value(),
            alias=settings.milvus.alias,
            timeout_seconds=settings.milvus.timeout_seconds,
        )
        stack.push_async_callback(collections.close)
        conversations = await ConversationStore.open(
            settings.data_dir / CONVERSATIONS, max_turns=settings.memory.max_turns, days=settings.memory.days
        )
        stack.push_async_callback(conversations.close)
        model = None
        if key := settings.openai_api_key.get_secret_value():
            model = AnswerModel(settings.openai, key=key, base_url=settings.openai_base_url)
            stack.push_async_callback(model.close)
        embedding, morphemes = E5Embedding(), Morphemes()
        vectors = QueryVectors(embedding)
        reader = IndexReader(collections=collections, embedder=embedding.model_name)
        retriever = FaqRetriever(
            reader=reader,
            vectors=vectors,
            morphemes=morphemes,
            ranking=RankingModel.shipped(),
        )
        scope = ScopeModel.shipped()
        workflow = AnswerWorkflow(
            retriever=retriever,
            vectors=vectors,
            morphemes=morphemes,
            scope=scope,
            follow_ups=FollowUpModel.shipped(),
            model=model,
            timeout_seconds=settings.question_timeout_seconds,
            steps=settings.steps,
        )
        workflow.validate()
        builder = IndexBuilder(collections=collections, embedding=embedding, dimensions=DIMENSIONS, morphemes=morphemes)
        yield Services(
            settings=settings,
            collections=collections,
            builder=builder,
            reader=reader,
            retriever=retriever,
            vectors=vectors,
            morphemes=morphemes,
            conversations=conversations,
            scope=scope,
            model=model,
            workflow=workflow,
        )
