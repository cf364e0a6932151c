"""Cross-validation: what a fold is judged by comes from the other folds."""

import numpy as np

from smartstore_workflows.crossvalidating import Case, cross_validated
from smartstore_workflows.evaluation import Judged, Line
from smartstore_workflows.events import Kind
from smartstore_workflows.learning import FOLDS, RankedQuestion

FAQS = 40
ROWS = 60


def queries(telling: int, found: float = 0.9) -> list[Case]:
    """Return queries whose gold FAQ is best by one of two features."""
    random = np.random.default_rng(3)
    cases = []
    for row in range(ROWS):
        features = random.random((FAQS, 2))
        gold = np.arange(FAQS) == row % FAQS
        features[gold, telling] = 2.0
        line = Line(id=f"q{row}", query=f"질문 {row}", gold=[row])
        judged = Judged(line, "not_found", 7, in_scope=0.9, found=found + row / 10_000)
        cases.append(Case(judged, RankedQuestion(features, gold, row), np.arange(FAQS)))
    return cases


def scope(label: str, probability: float) -> list[Case]:
    lines = [Line(id=f"{label}{place}", query=f"{label} {place}", label=label) for place in range(30)]
    return [Case(Judged(line, "answered", 0, in_scope=probability)) for line in lines]


def test_weights_come_from_the_other_folds() -> None:
    (judged,) = cross_validated([queries(telling=1)], least_scope=0.5, least_found=0.1)
    assert [item.line.id for item in judged] == [f"q{row}" for row in range(ROWS)]
    assert all(item.rank == 1 for item in judged)


def test_a_fold_never_teaches_itself() -> None:
    # In one fold another feature tells: what the others teach cannot rank it.
    cases = queries(telling=0)
    odd = [case for case in queries(telling=1) if case.fold == 0]
    mixed = [case for case in cases if case.fold != 0] + odd
    (judged,) = cross_validated([mixed], least_scope=0.5, least_found=0.1)
    strange = [item.rank for item in judged[len(mixed) - len(odd) :]]
    assert len(odd) > 3
    assert np.mean([rank == 1 for rank in strange]) < 0.5
    assert {item.rank for item in judged[: len(mixed) - len(odd)]} == {1}


def test_scope_threshold_is_placed_by_the_other_folds() -> None:
    inside, outside = cross_validated([scope("in", 0.3), scope("out", 0.1)], least_scope=0.9, least_found=0.0)
    assert {item.kind for item in inside} == {"answered"}
    assert {item.kind for item in outside} == {"refused"}


def test_found_threshold_turns_few_answerable_questions_down() -> None:
    (judged,) = cross_validated([queries(telling=0)], least_scope=0.5, least_found=1.0)
    kinds: list[Kind] = [item.kind for item in judged]
    assert 0 < kinds.count("not_found") <= 0.15 * ROWS
    unanswerable = [Case(Judged(Line(id="u", query="없는 기능"), "answered", 0, in_scope=0.9, found=0.2))]
    assert cross_validated([queries(0), unanswerable], least_scope=0.5, least_found=0.0)[1][0].kind == "not_found"


def test_thresholds_given_stand_where_no_line_places_them() -> None:
    lines = [Case(Judged(Line(id="u", query="없는 기능"), "answered", 0, in_scope=0.9, found=0.2))]
    assert cross_validated([lines], least_scope=0.5, least_found=0.3)[0][0].kind == "not_found"
    assert cross_validated([lines], least_scope=0.95, least_found=0.3)[0][0].kind == "refused"


def test_lines_of_one_gold_row_share_a_fold() -> None:
    first, *_ = queries(0)
    assert 0 <= first.fold < FOLDS
    twin = Case(Judged(Line(id="t", query="다른 말"), "answered", 1), first.question, first.answers)
    assert twin.fold == first.fold
    assert len({case.fold for case in queries(0)}) == FOLDS
