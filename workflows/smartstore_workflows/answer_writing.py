"""Writes the answer out of what was found: with the models in turn, or as an extract of the best FAQ."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import structlog
from workflows import Context

from smartstore_indexing.errors import ModelUnavailable
from smartstore_indexing.faq import Catalog
from smartstore_indexing.settings import EXTRACTIVE
from smartstore_workflows.events import (
    ANSWERED,
    AnswerWritten,
    Asked,
    Passage,
    Restarted,
    SourcesFound,
    TokenStreamed,
    Usage,
)
from smartstore_workflows.extracting import extract
from smartstore_workflows.guarding import guarded
from smartstore_workflows.model_calls import Writes
from smartstore_workflows.progress import stream_text
from smartstore_workflows.prompting import CONTEXT_FAQS, answer_messages
from smartstore_workflows.sources import faqs_of, sources_of
from smartstore_workflows.supporting import checked

log = structlog.get_logger(__name__)
SHOWN_SOURCES = 3  # of an extractive answer; the first is the one it cites


async def write_in_turn(
    ctx: Context, models: Sequence[Writes], asked: Asked, passages: tuple[Passage, ...], catalog: Catalog
) -> AnswerWritten:
    """Let the models try in turn, and where all fail give an extract."""
    for place, model in enumerate(models):
        try:
            written = await _write_with(ctx, model, asked, passages, catalog)
            return written.model_copy(update={"degraded": place > 0, "writer": model.name})
        except ModelUnavailable as error:
            log.warning("model failed", model=model.name, code=error.code, reason=error.message)
            ctx.write_event_to_stream(Restarted(reason=error.message))
    written = write_extract(ctx, asked, passages, catalog)
    return written.model_copy(update={"degraded": True, "writer": EXTRACTIVE})


def write_extract(ctx: Context, asked: Asked, passages: tuple[Passage, ...], catalog: Catalog) -> AnswerWritten:
    """Answer with what the best FAQ says about the question."""
    faqs = faqs_of(passages[:SHOWN_SOURCES], catalog)
    sources = sources_of(faqs, passages)
    ctx.write_event_to_stream(SourcesFound(sources=sources))
    text = f"{extract(faqs[0].answer, asked.standalone)} [1]"
    stream_text(ctx, text)
    return AnswerWritten(
        asked=asked,
        kind=ANSWERED,
        text=text,
        citations=(faqs[0].id,),
        sources=sources,
        passages=passages,
        usage=asked.usage,
    )


async def _write_with(
    ctx: Context, model: Writes, asked: Asked, passages: tuple[Passage, ...], catalog: Catalog
) -> AnswerWritten:
    faqs = faqs_of(passages[:CONTEXT_FAQS], catalog)
    sources = sources_of(faqs, passages)
    ctx.write_event_to_stream(SourcesFound(sources=sources))
    said: list[str] = []
    usage = Usage()
    messages = answer_messages(asked.standalone, faqs, asked.history, budget_tokens=model.faq_tokens)
    async with aclosing(guarded(model.stream(messages))) as answer:
        async for piece in answer:
            if isinstance(piece, Usage):
                usage = piece
            else:
                said.append(piece)
                ctx.write_event_to_stream(TokenStreamed(text=piece))
    return AnswerWritten(
        asked=asked,
        kind=ANSWERED,
        **(await asyncio.to_thread(checked, "".join(said), faqs))._asdict(),  # 1 to 25 ms
        sources=sources,
        passages=passages,
        usage=asked.usage + usage,
    )
