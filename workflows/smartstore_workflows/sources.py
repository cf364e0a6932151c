"""The FAQs that passages name, as they are shown under an answer. Pure."""

from collections.abc import Sequence

from smartstore_indexing.errors import UnknownResource
from smartstore_indexing.faq import FAQ, Catalog
from smartstore_workflows.events import Passage, Source
from smartstore_workflows.extracting import plain

SNIPPET_CHARACTERS = 120


def faqs_of(passages: Sequence[Passage], catalog: Catalog) -> list[FAQ]:
    """Return the passages' FAQs that the index still holds; UnknownResource when it holds none of them."""
    faqs = [faq for passage in passages if (faq := catalog.get(passage.faq_id)) is not None]
    if not faqs:
        raise UnknownResource("안내해 드리려던 FAQ가 지금 색인에 없습니다. 질문을 다시 입력해 주세요.")
    return faqs


def sources_of(faqs: Sequence[FAQ], passages: Sequence[Passage]) -> tuple[Source, ...]:
    """Return the FAQs, numbered from 1, with the scores that their passages have."""
    scores = {passage.faq_id: passage.score for passage in passages}
    return tuple(
        Source(
            n=number,
            id=faq.id,
            category=faq.category,
            question=faq.question,
            score=round(scores[faq.id], 4),
            snippet=plain(faq.answer, SNIPPET_CHARACTERS),
        )
        for number, faq in enumerate(faqs, start=1)
    )
