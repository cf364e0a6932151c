"""Which FAQs are near each other, and which so alike that one may stand for the other, by their letters alone. Pure."""

from collections.abc import Sequence

import numpy as np

from smartstore_indexing.faq import FAQ, FaqId
from smartstore_workflows.lexical import Bm25, grams

SEARCHED_CHARACTERS = 200  # of an answer
NEIGHBOURS = 12
# Shares of 5-grams that the shorter of two answers has in common with the other. Of the real FAQ's neighbours 2 in 100
# have 0.6: below it they share a sentence of politeness, or the way to a menu.
ALIKE_ANSWERS, TOUCHING_ANSWERS = 0.6, 0.3
# Shares of 2-grams: of those in either question, and of those in the shorter one.
SAME_QUESTION, LIKE_QUESTION = 0.9, 0.6


class Neighbours:
    """FAQs that share words and a category with a text."""

    def __init__(self, faqs: Sequence[FAQ]) -> None:
        """Index the FAQs."""
        self._faqs = faqs
        texts = (f"{faq.category} {faq.title} {faq.answer[:SEARCHED_CHARACTERS]}" for faq in faqs)
        self._search = Bm25((grams(text, (2,)) for text in texts), k1=1.2, b=0.75)

    def near(self, text: str, most: int = NEIGHBOURS) -> list[FAQ]:
        """Return so many FAQs, or all there are, best first."""
        scores = self._search.scores(grams(text, (2,)))
        return [self._faqs[place] for place in np.argsort(-scores, kind="stable")[:most].tolist()]


def same_question(one: FAQ, other: FAQ) -> bool:
    """Tell whether two FAQs ask the same, so that an answer to either is right."""
    first, second = _grams(one.question, 2), _grams(other.question, 2)
    return len(first & second) >= SAME_QUESTION * len(first | second)


def may_answer(one: FAQ, other: FAQ) -> bool:
    """Tell whether an FAQ may answer the other's question too: it asks or says much the same, or one links to it."""
    return (
        other.title in one.related
        or one.title in other.related
        or _share(one.question, other.question, 2) >= LIKE_QUESTION
        or _share(one.answer, other.answer, 5) >= TOUCHING_ANSWERS
    )


def grouped(faqs: Sequence[FAQ]) -> dict[FaqId, FaqId]:
    """Return the name of each FAQ's group: FAQs whose answers are equal, or near each other and alike, are of one."""
    leader: dict[FaqId, FaqId] = {faq.id: faq.id for faq in faqs}

    def leader_of(faq_id: FaqId) -> FaqId:
        while leader[faq_id] != faq_id:
            faq_id = leader[faq_id]
        return faq_id

    neighbours, first = Neighbours(faqs), {"".join(faq.answer.split()): faq for faq in reversed(faqs)}
    for faq in faqs:
        near = (other for other in neighbours.near(f"{faq.category} {faq.title}") if alike(faq, other))
        for other in (first["".join(faq.answer.split())], *near):
            leader[leader_of(faq.id)] = leader_of(other.id)
    return {faq.id: leader_of(faq.id) for faq in faqs}


def alike(one: FAQ, other: FAQ) -> bool:
    """Tell whether one of two answers says most of what the other says, in its words."""
    return _share(one.answer, other.answer, 5) >= ALIKE_ANSWERS


def _share(one: str, other: str, size: int) -> float:
    """Return the share of the shorter text's n-grams that stand in the other, 0 to 1; 0 when it has none."""
    first, second = _grams(one, size), _grams(other, size)
    return len(first & second) / max(1, min(len(first), len(second)))


def _grams(text: str, size: int) -> set[str]:
    return set(grams(text, (size,)))
