import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smartstore_workflows.lexical import Bm25, grams

untimed = settings(deadline=None)
terms = st.sampled_from(["정산", "반품", "배송", "쿠폰", "수수료"])
documents = st.lists(st.lists(terms, max_size=8), max_size=8)
k1s, bs = st.floats(0.1, 3), st.floats(0, 1)


def plain_bm25(found: Sequence[Sequence[str]], query: Sequence[str], place: int, k1: float, b: float) -> float:
    """Score one document by the textbook, one query term after the other."""
    document = found[place]
    average = max(sum(len(other) for other in found) / len(found), 1.0)
    score = 0.0
    for term in query:
        holding = sum(term in other for other in found)
        idf = math.log(1 + (len(found) - holding + 0.5) / (holding + 0.5))
        times = document.count(term)
        score += idf * times * (k1 + 1) / (times + k1 * (1 - b + b * len(document) / average)) if times else 0.0
    return score


@untimed
@given(documents, st.lists(terms | st.just("없는말"), max_size=6), k1s, bs)
@example([[]], ["정산"], 1.5, 0.75)
@example([["정산"], []], ["정산", "정산"], 1.5, 0.75)
def test_scores_are_those_of_the_textbook(found: list[list[str]], query: list[str], k1: float, b: float) -> None:
    expected = [plain_bm25(found, query, place, k1, b) for place in range(len(found))]
    assert Bm25(found, k1=k1, b=b).scores(query) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@untimed
@given(documents, st.lists(terms, max_size=6))
def test_document_scores_above_zero_just_when_it_shares_a_term(found: list[list[str]], query: list[str]) -> None:
    scores = Bm25(found, k1=1.5, b=0.75).scores(query)
    assert scores.dtype == np.float32
    assert [bool(score > 0) for score in scores] == [bool(set(document) & set(query)) for document in found]


@untimed
@given(documents, st.lists(terms, max_size=6).flatmap(st.permutations))
def test_order_of_the_terms_does_not_matter(found: list[list[str]], query: list[str]) -> None:
    bm25 = Bm25(found, k1=1.5, b=0.75)
    assert bm25.scores(query) == pytest.approx(bm25.scores(sorted(query)), rel=1e-5)


def test_rare_term_weighs_more_than_a_common_one() -> None:
    bm25 = Bm25([["정산", "주기"], ["정산", "계좌"], ["정산", "내역"]], k1=1.5, b=0.75)
    assert bm25.idf(1) > bm25.idf(3) > 0
    assert bm25.scores(["주기"])[0] > bm25.scores(["정산"])[0]


def test_shorter_document_scores_higher_for_the_same_term() -> None:
    scores = Bm25([["정산"], ["정산", "주기", "계좌", "내역"]], k1=1.5, b=0.75).scores(["정산"])
    assert scores[0] > scores[1]


def test_index_without_documents_scores_nothing() -> None:
    bm25 = Bm25([], k1=1.5, b=0.75)
    assert bm25.scores(["정산"]).shape == (0,)
    assert bm25.ideal(["정산"]) == 1.0


@untimed
@given(documents, st.lists(terms | st.just("없는말"), max_size=6))
def test_ideal_is_the_sum_of_the_terms_weights_and_at_least_one(found: list[list[str]], query: list[str]) -> None:
    weights = [
        math.log(1 + (len(found) - holding + 0.5) / (holding + 0.5))
        for holding in (sum(term in document for document in found) for term in query)
    ]
    assert Bm25(found, k1=1.5, b=0.75).ideal(query) == pytest.approx(max(sum(weights), 1.0))


def test_document_of_average_length_that_equals_the_question_scores_its_ideal() -> None:
    query = ["정산", "주기", "계좌", "변경"]
    bm25 = Bm25([query, *([f"{place}", "말", "둘", "셋"] for place in range(20))], k1=1.5, b=0.75)
    assert bm25.scores(query)[0] == pytest.approx(bm25.ideal(query), rel=1e-5)


def test_unknown_terms_raise_the_ideal_and_no_score() -> None:
    bm25 = Bm25([["정산", "주기"]] * 9, k1=1.5, b=0.75)
    assert bm25.ideal(["정산", "없는말"]) > bm25.ideal(["정산"])
    assert bm25.scores(["정산", "없는말"]) == pytest.approx(bm25.scores(["정산"]))


def test_grams_are_the_runs_of_two_and_three_letters() -> None:
    assert grams("정산 주기") == ["정산", "산주", "주기", "정산주", "산주기"]


@pytest.mark.parametrize("text", ["정산주기", "정 산 주 기", "정산, 주기?!", "정산\n주기", "‘정산’ 주기"])
def test_blanks_and_punctuation_leave_the_grams_alone(text: str) -> None:
    assert grams(text) == grams("정산주기")


def test_grams_are_lower_case() -> None:
    assert grams("API") == ["ap", "pi", "api"]


@pytest.mark.parametrize("text", ["", " ", "가", "?!", "😀😀😀"])
def test_text_of_less_than_two_letters_has_no_grams(text: str) -> None:
    assert grams(text) == []


@given(st.text(), st.sampled_from([(2,), (2, 3), (1, 4)]))
def test_there_are_as_many_grams_as_there_are_starts(text: str, sizes: tuple[int, ...]) -> None:
    found = grams(text, sizes)
    letters = sum((char.isascii() and char.isalnum()) or "가" <= char <= "힣" for char in text.lower())
    assert len(found) == sum(max(0, letters - size + 1) for size in sizes)
    assert {len(gram) for gram in found} <= set(sizes)
