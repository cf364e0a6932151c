import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartstore_workflows.learning import (
    CONTENDERS,
    WRONGLY_NOT_FOUND,
    RankedQuestion,
    fit_ranking,
    found_threshold,
    scope_threshold,
)

# Between 0 and the least subnormal number there is nothing in the middle.
probabilities = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=30).map(np.array)


def questions(telling: int, features: int = 3, count: int = 40) -> list[RankedQuestion]:
    """Return questions whose gold FAQ is best by one feature, while the others say nothing."""
    random = np.random.default_rng(7)
    found = []
    for row in range(count):
        table = random.random((30, features))
        gold = np.arange(30) == random.integers(30)
        table[gold, telling] = 1.5
        found.append(RankedQuestion(table, gold, row))
    return found


@pytest.mark.parametrize("telling", [0, 1, 2])
def test_the_feature_that_tells_the_gold_faq_weighs_most(telling: int) -> None:
    weights = fit_ranking(questions(telling))
    assert int(np.abs(weights).argmax()) == telling
    assert weights[telling] > 5 * np.abs(np.delete(weights, telling)).max()


def test_contenders_keep_the_gold_faqs_and_the_best_by_each_feature() -> None:
    features = np.zeros((5_000, 2))
    features[7], features[8, 1] = (2.0, 0.0), 2.0
    kept = RankedQuestion(features, np.arange(5_000) == 4_000, 0).contenders()
    assert kept.gold.sum() == 1
    assert len(kept.features) <= 2 * CONTENDERS + 1
    assert kept.features.max(0).tolist() == [2.0, 2.0]


def test_threshold_that_tells_apart_lies_between() -> None:
    assert scope_threshold(np.array([0.6, 0.9]), np.array([0.1, 0.2])) == pytest.approx(0.4)


@settings(deadline=None)
@given(probabilities, probabilities)
def test_no_threshold_does_better(inside: np.ndarray, outside: np.ndarray) -> None:
    def share(at: float) -> float:
        return float((inside >= at).mean() + (outside < at).mean())

    best = share(scope_threshold(inside, outside))
    assert all(share(at) <= best + 1e-9 for at in np.concatenate([inside, outside, [0.0, 1.1]]))


@settings(deadline=None)
@given(probabilities)
def test_few_answerable_questions_lie_below_the_found_threshold(answerable: np.ndarray) -> None:
    assert (answerable < found_threshold(answerable)).mean() <= WRONGLY_NOT_FOUND + 1e-9
