import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smartstore_workflows.bootstrap import interval

SCORES = arrays(float, st.integers(1, 30), elements=st.floats(-1, 1))


@settings(deadline=None, max_examples=20)
@given(SCORES)
def test_interval_lies_within_the_scores_and_its_ends_are_in_order(scores: np.ndarray) -> None:
    low, high = interval(scores)
    assert scores.min() - 1e-9 <= low <= high <= scores.max() + 1e-9


@settings(deadline=None, max_examples=20)
@given(SCORES)
def test_same_scores_have_the_same_interval(scores: np.ndarray) -> None:
    assert interval(scores) == interval(scores.copy())


@settings(deadline=None, max_examples=20)
@given(st.floats(-1, 1), st.integers(1, 30))
def test_equal_scores_leave_no_doubt(score: float, n: int) -> None:
    assert interval(np.full(n, score)) == pytest.approx((score, score), abs=1e-9)


def test_interval_of_a_share_is_the_textbooks() -> None:
    scores = np.repeat([1.0, 0.0], [300, 100])
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert interval(scores) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)


def test_more_lines_make_a_narrower_interval() -> None:
    low, high = interval(np.tile([1.0, 0.0], 20))
    lower, higher = interval(np.tile([1.0, 0.0], 500))
    assert higher - lower < (high - low) / 3


def test_differences_that_cancel_are_0() -> None:
    assert interval(np.array([0.1 + 0.2 - 0.3] * 4)) == (0.0, 0.0)
