"""What happens to a question: the answer workflow, its steps in the order in which they run.

QuestionAsked ─► understand ─┬─► filter ───┬─► synthesize ─► suggest ─► Answered | Refused | NotFound
                             └─► retrieve ─┘
A chosen follow-up, and a question whose answer is remembered, go from understand to synthesize at once. `filter` never
ends a run: what `retrieve` found decides with it, and a refusal's bridge comes from there.
"""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from typing_extensions import override
from workflows import Context, Workflow, step
from workflows.decorators import StepFunction

from smartstore_indexing.embedding import QueryVectors
from smartstore_indexing.faq import FAQ, Catalog
from smartstore_indexing.korean import Morphemes
from smartstore_indexing.setting_groups import StepSettings
from smartstore_workflows.answer_writing import write_extract, write_in_turn
from smartstore_workflows.caching import AnswerCache, AnswerKey, key_of, recalled
from smartstore_workflows.events import (
    ANSWERED,
    REFUSED,
    Answered,
    AnswerRecalled,
    AnswerWritten,
    Asked,
    FollowUpChosen,
    Kind,
    NotFound,
    Outcome,
    Passage,
    PassagesRetrieved,
    QuestionAsked,
    QuestionUnderstood,
    Refused,
    RememberedAnswer,
    ScopeJudged,
    SourcesFound,
    Turn,
)
from smartstore_workflows.follow_ups import FollowUpModel
from smartstore_workflows.locking import LocalLocks, Locks
from smartstore_workflows.masking import mask
from smartstore_workflows.model_steps import ModelSteps
from smartstore_workflows.models import Models
from smartstore_workflows.progress import stage, stream_text
from smartstore_workflows.retrieving import FaqRetriever
from smartstore_workflows.scope import Judgement, ScopeModel
from smartstore_workflows.sources import faqs_of
from smartstore_workflows.suggesting import follow_ups, offers
from smartstore_workflows.understanding import accepts_offer, joined, searched, stand_alone, topic
from smartstore_workflows.wording import NOT_FOUND, REFUSAL
from smartstore_workflows.words import bridge_terms

REMEMBERED_WORDS = 10  # that are streamed at a time: an answer given again is to be there at once
NO_STEPS = StepSettings()
KINDS: dict[Kind, type[Outcome]] = {"answered": Answered, "refused": Refused, "not_found": NotFound}
CHOSEN = Judgement(ANSWERED, in_scope=1.0, found=1.0)  # a follow-up was offered because an FAQ answers it
Steps = dict[str, StepFunction[Any, Any]]  # as the library has them


class AnswerWorkflow(Workflow):
    """Answers one question; an instance serves any number of runs at once and keeps nothing of them."""

    def __init__(
        self,
        *,
        retriever: FaqRetriever,
        vectors: QueryVectors,
        morphemes: Morphemes,
        scope: ScopeModel,
        follow_ups: FollowUpModel,
        models: Models,
        timeout_seconds: float,
        steps: StepSettings = NO_STEPS,
        cache: AnswerCache | None = None,
        locks: Locks | None = None,
    ) -> None:
        """Borrow the parts; who made them closes them.

        With no `cache` every answer is new; with no `locks` this process's own keep equal questions apart.
        """
        self._found_steps: Steps = {}
        # How many run at once is the doors' to bound.
        super().__init__(timeout=timeout_seconds, num_concurrent_runs=None)
        self._retriever = retriever
        self._vectors = vectors
        self._morphemes = morphemes
        self._scope = scope
        self._follow_ups = follow_ups
        self._models = models
        self._cache = cache or AnswerCache(None, read=morphemes.read)
        self._locks = locks or LocalLocks(wait_seconds=timeout_seconds)
        self._steps = ModelSteps(models, scope, steps)

    @override
    def _get_steps(self) -> Steps:
        """Return the steps, looked up once: the library looks through every member of the workflow at every step."""
        if not self._found_steps:
            self._found_steps.update(super()._get_steps())
        return self._found_steps

    @step(num_workers=1)
    async def understand(self, ctx: Context, ev: QuestionAsked) -> QuestionUnderstood | FollowUpChosen | AnswerRecalled:
        """Mask personal data, see what the question means within its conversation, and whether it was answered."""
        async with stage(ctx, "understand"):
            question = mask(ev.question)
            chosen = ev.faq_id or accepts_offer(question, ev.history)
            before = None if chosen else await self._leans_on(question, ev.history)
            asked = Asked(
                question=question,
                standalone=stand_alone(question, before) if before else question,
                before=before,
                history=ev.history,
                faq_id=chosen,
                model=ev.model,
                index_version="" if chosen or before or question != ev.question else await self._index_version(),
            )
            asked = await self._steps.rewritten(asked)
            if chosen:
                return FollowUpChosen(asked=asked, faq_id=chosen)
            remembered = await self._cache.exact(self._key(asked))
            return AnswerRecalled(asked=asked, answer=remembered) if remembered else QuestionUnderstood(asked=asked)

    @step(num_workers=1)
    async def filter(self, ctx: Context, ev: QuestionUnderstood) -> ScopeJudged:
        """Judge by its text whether the question is a SmartStore seller's."""
        async with stage(ctx, "filter"):
            return self._scope.judge_text(await self._vectors.of(searched(ev.asked)))

    @step(num_workers=1)
    async def retrieve(self, ctx: Context, ev: QuestionUnderstood) -> PassagesRetrieved:
        """Search the FAQs."""
        async with stage(ctx, "retrieve"):
            found = await self._retriever.retrieve(searched(ev.asked))
            return PassagesRetrieved(asked=ev.asked, passages=tuple(found.passages), evidence=found.evidence)

    @step(num_workers=1)
    async def synthesize(
        self, ctx: Context, ev: ScopeJudged | PassagesRetrieved | FollowUpChosen | AnswerRecalled
    ) -> AnswerWritten | None:
        """Decide how to answer, and write the answer; None while the other of filter and retrieve is out."""
        if isinstance(ev, AnswerRecalled):
            async with stage(ctx, "synthesize"):
                written = self._write_again(ctx, ev.asked, ev.answer)
                ctx.write_event_to_stream(written)
                return written
        judgement = CHOSEN
        passages: tuple[Passage, ...]
        if isinstance(ev, FollowUpChosen):
            asked, passages = ev.asked, (Passage(faq_id=ev.faq_id, score=1.0),)
        else:
            both = ctx.collect_events(ev, [ScopeJudged, PassagesRetrieved])
            if both is None:
                return None
            judged, found = both
            assert isinstance(judged, ScopeJudged)
            assert isinstance(found, PassagesRetrieved)
            asked, passages = found.asked, found.passages
            judgement = self._scope.judge(judged, found.evidence)
        async with stage(ctx, "synthesize"):
            catalog = await self._retriever.catalog()
            asked, judgement = await self._steps.judged(asked, judgement, faqs_of(passages, catalog))
            unjudged = await self._write(ctx, asked, judgement.kind, passages, catalog)
            written = unjudged.model_copy(update={"in_scope": judgement.in_scope, "found": judgement.found})
            ctx.write_event_to_stream(written)
            return written

    @step(num_workers=1)
    async def suggest(self, ctx: Context, ev: AnswerWritten) -> Outcome:
        """Offer follow-ups that an FAQ surely answers."""
        async with stage(ctx, "suggest"):
            catalog = await self._retriever.catalog()
            bridges: list[FAQ] = []
            if ev.kind == REFUSED:
                nouns = await asyncio.to_thread(self._morphemes.nouns, ev.asked.question)
                bridges = await self._retriever.titled_with(bridge_terms(nouns))
            used = ev.citations or tuple(best.faq_id for best in ev.passages[: ev.kind == ANSWERED])  # of a model, none
            found = follow_ups(ev.kind, catalog, used, ev.passages, ev.asked.history, bridges)
            ev, faqs = await self._steps.chosen(ev, found)
            return KINDS[ev.kind](written=ev, suggestions=offers(faqs, ev.kind))

    async def _leans_on(self, question: str, history: Sequence[Turn]) -> Turn | None:
        """Return the turn that a question leans on; None when it stands alone."""
        before = topic(history)
        if before is None:
            return None
        alone, within = await asyncio.gather(self._vectors.of(question), self._vectors.of(joined(before, question)))
        return before if self._follow_ups.leans(alone, within) else None

    async def _write(
        self, ctx: Context, asked: Asked, kind: Kind, passages: tuple[Passage, ...], catalog: Catalog
    ) -> AnswerWritten:
        if kind != ANSWERED:
            text = REFUSAL if kind == REFUSED else NOT_FOUND
            stream_text(ctx, text)
            return AnswerWritten(asked=asked, kind=kind, text=text, passages=passages, usage=asked.usage)
        key = self._key(asked)
        if remembered := await self._cache.alike(key, passages):
            await self._cache.keep_again(key, remembered)
            return self._write_again(ctx, asked, remembered)
        models = self._models.in_turn(asked.model)
        if not models:
            written = write_extract(ctx, asked, passages, catalog)
            await self._keep(key, written)
            return written
        # Equal questions that come at once ask the model once; where the first fails, the next one asks.
        async with self._locks.hold(f"answer:{key.name}") if key else nullcontext():
            if remembered := await self._cache.exact(key):
                return self._write_again(ctx, asked, remembered)
            asked, passages = await self._steps.reranked(asked, passages, catalog)
            written = await write_in_turn(ctx, models, asked, passages, catalog)
            if not asked.history:  # the model saw it, and it is another's
                await self._keep(key, written)
            return written

    def _write_again(self, ctx: Context, asked: Asked, answer: RememberedAnswer) -> AnswerWritten:
        ctx.write_event_to_stream(SourcesFound(sources=answer.sources))
        stream_text(ctx, answer.text, words=REMEMBERED_WORDS)
        return recalled(answer, asked)

    async def _keep(self, key: AnswerKey | None, written: AnswerWritten) -> None:
        if written.asked.index_version == await self._index_version():  # else another index may have been searched
            await self._cache.keep(key, written)

    def _key(self, asked: Asked) -> AnswerKey | None:
        return key_of(asked, self._models.writer(asked.model))

    async def _index_version(self) -> str:
        return (await self._retriever.searchable()).snapshot.manifest.version
