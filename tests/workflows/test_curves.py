import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from smartstore_workflows.curves import curve, not_finding, refusing
from smartstore_workflows.evaluation import Judged, Line
from smartstore_workflows.events import Kind

LINES = st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=30).filter(
    lambda lines: len({positive for positive, _ in lines}) == 2
)


def judged(kind: Kind, *, label: str | None = None, in_scope: float = 1.0, found: float = 1.0) -> Judged:
    line = Line.model_validate({"id": "x", "query": "질문", "label": label})
    return Judged(line, kind, 0, in_scope=in_scope, found=found)


@settings(deadline=None)
@given(LINES)
def test_curve_is_scikit_learns(lines: list[tuple[bool, int]]) -> None:
    positive = np.array([each for each, _ in lines])
    scores = np.array([score / 4 for _, score in lines])
    found = curve(positive, scores, scores > 0.5)
    assert found is not None
    precision, recall, _ = precision_recall_curve(positive, scores)
    assert found.recall.tolist() == pytest.approx(recall[:-1][::-1].tolist())
    assert found.precision.tolist() == pytest.approx(precision[:-1][::-1].tolist())
    assert found.average == pytest.approx(average_precision_score(positive, scores))


@settings(deadline=None)
@given(LINES, st.integers(0, 3))
def test_a_threshold_works_at_a_point_of_the_curve(lines: list[tuple[bool, int]], least: int) -> None:
    positive = np.array([each for each, _ in lines])
    scores = np.array([float(score) for _, score in lines])
    found = curve(positive, scores, scores > least)
    assert found is not None
    if found.precision_now is None:
        assert not (scores > least).any()
    else:
        points = list(zip(found.recall, found.precision, strict=True))
        assert (found.recall_now, found.precision_now) in [pytest.approx(point) for point in points]


@pytest.mark.parametrize("positive", [[], [True, True], [False]], ids=["no line", "no negative", "no positive"])
def test_one_class_alone_has_no_curve(positive: list[bool]) -> None:
    n = len(positive)
    assert curve(np.array(positive, dtype=bool), np.zeros(n), np.zeros(n, dtype=bool)) is None


def test_refusing_what_is_out_is_what_counts() -> None:
    found = refusing(
        [
            judged("refused", label="out", in_scope=0.1),
            judged("answered", label="out", in_scope=0.9),
            judged("refused", label="in", in_scope=0.2),
            judged("answered", label="in", in_scope=0.8),
        ]
    )
    assert found is not None
    assert (found.positives, found.negatives) == (2, 2)
    assert (found.recall_now, found.precision_now) == (0.5, 0.5)


def test_refused_questions_do_not_count_for_finding() -> None:
    answerable = [judged("answered", found=0.9), judged("refused", found=0.1)]
    unanswerable = [judged("not_found", found=0.2), judged("answered", found=0.8), judged("refused", found=0.3)]
    found = not_finding(answerable, unanswerable)
    assert found is not None
    assert (found.positives, found.negatives) == (2, 1)
    assert (found.recall_now, found.precision_now) == (0.5, 1.0)
