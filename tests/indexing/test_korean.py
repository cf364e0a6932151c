"""Search terms: the field's words stay whole, and no text breaks the tokenizer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartstore_indexing.korean import MAX_CHARACTERS, Morphemes, field_nouns


@pytest.fixture(scope="module")
def morphemes() -> Morphemes:
    return Morphemes()


def test_field_nouns_stay_whole_in_a_sentence(morphemes: Morphemes) -> None:
    nouns = field_nouns()
    assert len(nouns) == len(set(nouns)) > 30
    cut = [noun for noun in nouns if noun.lower() not in morphemes.terms(f"{noun}에 대해 알려 주세요.")]
    assert cut == []


def test_terms_are_stems_without_particles_and_endings(morphemes: Morphemes) -> None:
    assert morphemes.terms("가게에서 우산을 샀습니다.") == ["가게", "우산", "사"]
    assert morphemes.terms("가게에는 우산도 사고") == ["가게", "우산", "사"]


def test_terms_are_lower_case(morphemes: Morphemes) -> None:
    assert morphemes.terms("API 연동") == morphemes.terms("api 연동")


def test_nouns_stand_in_their_order_and_once(morphemes: Morphemes) -> None:
    assert list(morphemes.nouns("우산을 가게에서 사고 우산을 썼다")) == ["우산", "가게"]


def test_joined_gives_the_terms_of_each_text(morphemes: Morphemes) -> None:
    texts = ["가게에서 우산을 샀습니다.", "", "!?", "api 연동 3단계"]
    assert morphemes.joined(texts) == [" ".join(morphemes.terms(text)) for text in texts]
    assert morphemes.joined([]) == []


def test_text_beyond_the_limit_is_not_read(morphemes: Morphemes) -> None:
    endless = "가게" + " " * MAX_CHARACTERS + "우산"
    assert morphemes.terms(endless) == list(morphemes.nouns(endless)) == morphemes.joined([endless]) == ["가게"]


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=80))
def test_any_text_has_terms_that_bm25_can_split_again(morphemes: Morphemes, text: str) -> None:
    terms = morphemes.terms(text)
    assert morphemes.joined([text]) == [" ".join(terms)]
    assert " ".join(terms).split() == terms
