"""The tables of words: synonyms for the search, bridges from questions out of scope."""

import pytest

from smartstore_workflows import Chatbot
from smartstore_workflows.words import bridge_terms, bridges, expansions, synonyms


def test_every_synonym_leads_somewhere_else() -> None:
    for word, leads_to in synonyms().items():
        assert leads_to, word
        assert word not in leads_to, word


def test_every_word_is_one_that_the_analyzer_gives(bot: Chatbot) -> None:
    words = {word for leads_to in synonyms().values() for word in leads_to}
    morphemes = bot.services.morphemes
    assert [word for word in sorted(words) if word not in morphemes.terms(word)] == []


@pytest.mark.parametrize(
    ("terms", "added"),
    [
        (["손님", "돈"], {"구매자", "고객", "정산", "대금", "금액"}),
        (["정산"], set()),
        (["후기", "리뷰"], set()),
        ([], set()),
    ],
    ids=["everyday words", "the FAQ's own word", "a synonym that is there", "nothing"],
)
def test_expansions_add_what_is_not_there(terms: list[str], added: set[str]) -> None:
    assert set(expansions(terms)) == added


def test_a_bridge_leads_to_the_faqs_words_else_to_the_questions_own_nouns() -> None:
    assert bridge_terms(["오늘", "저녁", "여의도", "맛집", "추천"])[0] == "음식"
    assert bridge_terms(["오늘", "바다"]) == ["바다"]
    assert bridge_terms(["오늘", "추천"]) == []
    assert bridges()["오늘"] == []
