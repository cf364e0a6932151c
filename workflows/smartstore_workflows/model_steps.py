"""The optional steps that a model makes around the answer; where one fails the answer goes on without it."""

from collections.abc import Sequence

from smartstore_indexing.faq import FAQ, Catalog
from smartstore_indexing.setting_groups import StepSettings
from smartstore_workflows.choosing import choose
from smartstore_workflows.events import ANSWERED, AnswerWritten, Asked, Passage
from smartstore_workflows.model_calls import Meter
from smartstore_workflows.models import Models
from smartstore_workflows.reranking import rerank
from smartstore_workflows.rewriting import rewrite
from smartstore_workflows.scope import Judgement, ScopeModel
from smartstore_workflows.scoping import in_scope
from smartstore_workflows.suggesting import OFFERS


class ModelSteps:
    """Makes the steps that the settings turn on, for questions that a model is to answer."""

    def __init__(self, models: Models, scope: ScopeModel, settings: StepSettings) -> None:
        """Borrow the models; for a question that none is to answer no step is made."""
        self._models = models
        self._scope = scope
        self._settings = settings

    async def rewritten(self, asked: Asked) -> Asked:
        """Return what is asked with the model's standalone question, where the question leans on its conversation."""
        meter = self._meter(asked) if asked.before and self._settings.rewrite else None
        if meter is None:
            return asked
        question = await rewrite(meter, asked.question, asked.history, self._settings.timeout_seconds)
        spent = asked.usage + meter.usage
        if question is None:
            return asked.model_copy(update={"usage": spent})
        return asked.model_copy(update={"standalone": question, "before": None, "usage": spent})

    async def judged(self, asked: Asked, judgement: Judgement, found: Sequence[FAQ]) -> tuple[Asked, Judgement]:
        """Return what is asked, its tokens counted, and the judgement as the model made it, where it was uncertain."""
        meter = self._meter(asked) if judgement.uncertain and self._settings.scope else None
        if meter is None:
            return asked, judgement
        inside = await in_scope(meter, asked.standalone, found, self._settings.timeout_seconds)
        if inside is not None:
            judgement = self._scope.decided(judgement.in_scope, judgement.found, inside=inside)
        return asked.model_copy(update={"usage": asked.usage + meter.usage}), judgement

    async def chosen(self, written: AnswerWritten, faqs: Sequence[FAQ]) -> tuple[AnswerWritten, Sequence[FAQ]]:
        """Return the answer, its tokens counted, and what may be offered after it, first what the model chose."""
        wanted = self._settings.suggest and written.kind == ANSWERED and not written.cached and len(faqs) > OFFERS
        meter = self._meter(written.asked) if wanted else None
        if meter is None:
            return written, faqs
        chosen = await choose(meter, written.asked.standalone, faqs, self._settings.timeout_seconds)
        return written.model_copy(update={"usage": written.usage + meter.usage}), chosen or faqs

    async def reranked(
        self, asked: Asked, passages: tuple[Passage, ...], catalog: Catalog
    ) -> tuple[Asked, tuple[Passage, ...]]:
        """Return what is asked, its tokens counted, and the passages in the order that the model gave them.

        Where it gave one, passages whose FAQs the index no longer holds come last.
        """
        meter = self._meter(asked) if self._settings.rerank else None
        if meter is None:
            return asked, passages
        held = [passage for passage in passages if catalog.get(passage.faq_id)]
        faqs = [faq for passage in held if (faq := catalog.get(passage.faq_id))]
        order = await rerank(meter, asked.standalone, faqs, self._settings.timeout_seconds)
        if order is not None:
            passages = tuple(dict.fromkeys([*(held[number - 1] for number in order), *passages]))
        return asked.model_copy(update={"usage": asked.usage + meter.usage}), passages

    def _meter(self, asked: Asked) -> Meter | None:
        model = self._models.get(asked.model)
        return None if model is None else Meter(model)
