"""How well the ranking and the thresholds do on lines that they were not fitted on: k-fold cross-validation.

For each fold, the ranking's weights and both thresholds are fitted on the lines of the other folds, of all sets
together. Lines with the same gold row share a fold, so that no weight has seen a line's FAQ. What judges scope and
finding besides the thresholds stays as it ships: it is fitted on the project's own lines, never on these.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from smartstore_workflows.evaluation import Judged
from smartstore_workflows.events import Kind
from smartstore_workflows.learning import FOLDS, RankedQuestion, fit_ranking, found_threshold, scope_threshold
from smartstore_workflows.ranking import RANKED, distinct
from smartstore_workflows.retrieving import FaqRetriever
from smartstore_workflows.understanding import searched


@dataclass(frozen=True, slots=True)
class Case:
    """A judged line; where it has a gold FAQ, the features of all FAQs, and `answers` (n,), equal for equal answers."""

    judged: Judged
    question: RankedQuestion | None = None
    answers: np.ndarray | None = None

    @property
    def fold(self) -> int:
        """Return the fold of a line: by its gold row, else by its text."""
        named = str(self.question.row) if self.question else self.judged.line.query
        return zlib.crc32(named.encode()) % FOLDS


async def cases(judged: Sequence[Judged], retriever: FaqRetriever) -> list[Case]:
    """Return judged lines with what ranks their FAQs, searched once more."""
    found = []
    for item in judged:
        if item.asked is None or not item.line.gold:
            found.append(Case(item))
            continue
        retrieved = await retriever.retrieve(searched(item.asked))
        answers = {faq.answer for faq in retrieved.catalog if faq.row in item.line.gold}
        gold = np.array([faq.answer in answers for faq in retrieved.catalog])
        question = RankedQuestion(retrieved.features.astype(float), gold, item.line.gold[0])
        found.append(Case(item, question if gold.any() else None, retrieved.answers))
    return found


def cross_validated(sets: Sequence[Sequence[Case]], *, least_scope: float, least_found: float) -> list[list[Judged]]:
    """Return the sets' lines as they would go, each by what was fitted on other folds.

    The thresholds given stand where the other folds have no line to place them by.
    """
    cases = [case for cases in sets for case in cases]
    found: dict[int, Judged] = {}
    for fold in range(FOLDS):
        seen = [case for case in cases if case.fold != fold]
        questions = [case.question for case in seen if case.question]
        weights = fit_ranking(questions) if questions else None
        scope, finding = _scope(seen, least_scope), _finding(seen, least_found)
        for case in cases:
            if case.fold == fold:
                found[id(case)] = _judged(case, weights, scope, finding)
    return [[found[id(case)] for case in cases] for cases in sets]


def _scope(cases: Sequence[Case], default: float) -> float:
    inside = [case.judged.in_scope for case in cases if case.judged.line.label == "in"]
    outside = [case.judged.in_scope for case in cases if case.judged.line.label == "out"]
    return scope_threshold(np.array(inside), np.array(outside)) if inside and outside else default


def _finding(cases: Sequence[Case], default: float) -> float:
    answerable = [case.judged.found for case in cases if case.question and not case.judged.line.history]
    return found_threshold(np.array(answerable)) if answerable else default


def _judged(case: Case, weights: np.ndarray | None, scope: float, finding: float) -> Judged:
    judged = case.judged
    kind: Kind = "refused" if judged.in_scope < scope else "not_found" if judged.found < finding else "answered"
    if case.question is None or case.answers is None or weights is None:
        return replace(judged, kind=kind)
    order = distinct(case.question.features @ weights, case.answers, RANKED)
    ranks = [rank for rank, place in enumerate(order, start=1) if case.question.gold[place]]
    return replace(judged, kind=kind, rank=min(ranks, default=0))
