import json
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from smartstore_workflows.ranking import FEATURES, RANKED, RankingModel, distinct, features_of

untimed = settings(deadline=None)
ONES = RankingModel(np.ones(len(FEATURES), dtype=np.float32))
# Whole numbers, so that equal scores are equal and others far enough apart for float32.
tables = st.integers(1, 60).flatmap(
    lambda rows: arrays.arrays(np.float32, (rows, len(FEATURES)), elements=st.integers(-2, 1).map(float))
)
cosines = st.floats(-1, 1, width=32)
bm25_scores = st.floats(0, 100, width=32)
LEXICAL = ["terms", "grams"]


@untimed
@given(tables)
def test_rank_is_a_stable_permutation_by_score(features: np.ndarray) -> None:
    places, _ = ONES.rank(features, np.arange(len(features)))
    scores = features.sum(axis=1).tolist()
    assert places == sorted(range(len(scores)), key=lambda place: -scores[place])[:RANKED]


@untimed
@given(tables)
def test_probabilities_descend_and_sum_to_at_most_one(features: np.ndarray) -> None:
    places, shares = ONES.rank(features, np.arange(len(features)))
    assert len(places) == len(shares) == min(len(features), RANKED)
    assert shares == sorted(shares, reverse=True)
    assert all(0 < share <= 1 for share in shares)
    assert sum(shares) <= 1 + 1e-5
    assert len(features) > RANKED or sum(shares) == pytest.approx(1, rel=1e-4)


def test_probabilities_are_those_of_the_softmax() -> None:
    features = np.zeros((3, len(FEATURES)), dtype=np.float32)
    features[1, 0], features[2, 0] = np.log(2), np.log(5)
    places, shares = ONES.rank(features, np.arange(3))
    assert places == [2, 1, 0]
    assert shares == pytest.approx([5 / 8, 2 / 8, 1 / 8])


def test_huge_scores_do_not_overflow() -> None:
    features = np.full((2, len(FEATURES)), 1e6, dtype=np.float32)
    features[1] = -1e6
    places, shares = ONES.rank(features, np.arange(2))
    assert places == [0, 1]
    assert shares == pytest.approx([1, 0])


def test_of_equal_answers_only_the_best_is_listed() -> None:
    scores = np.array([1.0, 4.0, 3.0, 2.0])
    assert distinct(scores, np.array([0, 1, 1, 0]), 30) == [1, 3]
    assert distinct(scores, np.array([0, 1, 2, 0]), 2) == [1, 2]


@untimed
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=50))
def test_listed_are_the_best_of_each_answer_in_their_order(items: list[tuple[int, int]]) -> None:
    scores, answers = (np.array(column, dtype=float) for column in zip(*items, strict=True))
    found = distinct(scores, answers, RANKED)
    assert len({answers[place] for place in found}) == len(found) == len(set(answers.tolist()))
    assert [scores[place] for place in found] == sorted((scores[place] for place in found), reverse=True)
    assert all(scores[place] == scores[answers == answers[place]].max() for place in found)


@untimed
@given(
    st.integers(1, 12).flatmap(
        lambda rows: st.tuples(
            *(arrays.arrays(np.float32, rows, elements=cosines) for _ in range(2)),
            *(arrays.arrays(np.float32, rows, elements=bm25_scores) for _ in LEXICAL),
        )
    )
)
def test_features_stay_within_their_bounds(columns: tuple[np.ndarray, ...]) -> None:
    titles, answers, *lexical = columns
    features = features_of(titles=titles, answers=answers, **dict(zip(LEXICAL, lexical, strict=True)))
    assert features.shape == (len(titles), len(FEATURES))
    assert features.dtype == np.float32
    assert features[:, 0].max() == 0
    assert ((features[:, 1:] >= 0) & (features[:, 1:] <= 1)).all()


def test_question_that_shares_no_word_has_features_of_zero_and_not_of_nan() -> None:
    nothing = np.zeros(4, dtype=np.float32)
    features = features_of(titles=nothing, answers=nothing, **dict.fromkeys(LEXICAL, nothing))
    assert features.tolist() == np.zeros((4, len(FEATURES))).tolist()


def test_shipped_weights_are_those_of_the_features_and_no_others() -> None:
    text = resources.files("smartstore_workflows").joinpath("ranking.json").read_text(encoding="utf-8")
    assert sorted(json.loads(text)["weights"]) == sorted(FEATURES)
    weights = RankingModel.shipped().weights
    assert weights.shape == (len(FEATURES),)
    assert weights.dtype == np.float32
    assert np.isfinite(weights).all()
