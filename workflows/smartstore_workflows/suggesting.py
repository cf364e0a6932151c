"""Follow-up offers that can surely be answered: each is bound to an FAQ. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

from smartstore_indexing.faq import FAQ, Catalog, FaqId
from smartstore_workflows.events import Kind, Passage, Suggestion, Turn
from smartstore_workflows.lexical import grams
from smartstore_workflows.wording import offer

OFFERS = 3
CANDIDATES = 10
BESIDE = 12  # rows to either side: the help centre lists a topic together
SURE = 0.1  # a passage of at least this probability may well be what was meant
SAME_QUESTION = 0.75  # share of grams in common from which two titles ask the same


def follow_ups(
    kind: Kind,
    catalog: Catalog,
    cited: Sequence[str],
    passages: Sequence[Passage],
    history: Sequence[Turn],
    bridges: Sequence[FAQ],
) -> list[FAQ]:
    """Return at most ten FAQs that may be offered, best first.

    After an answer: along the cited FAQs' own links, then what else was surely found, then the FAQs that stand beside
    the cited one in the help centre. After a not-found: the nearest FAQs. After a refusal: one FAQ to lead back with,
    the first of `bridges`, else the most linked to, else the nearest. FAQs that the conversation has answered are
    left out, and so are titles that ask what another offer asks.
    """
    ranked = [faq for passage in passages if (faq := catalog.get(passage.faq_id)) is not None]
    if kind == "refused":
        return [*bridges, *_most_linked(catalog), *ranked][:1]
    asked = [faq for faq_id in cited if (faq := catalog.get(faq_id))]
    linked = [other for faq in asked for other in catalog.related(faq)]
    sure = [faq for passage in passages if passage.score >= SURE and (faq := catalog.get(passage.faq_id))]
    beside = [other for faq in asked[:1] for other in _beside(faq, catalog)]
    chosen: list[FAQ] = []
    answered = {faq_id for turn in history for faq_id in turn.faq_ids} | set(cited)
    for faq in (*linked, *sure, *beside, *ranked):
        if faq.id not in answered and not _asks_the_same(faq, [*asked, *chosen]):
            chosen.append(faq)
        if len(chosen) == CANDIDATES:
            break
    return chosen


def offers(faqs: Sequence[FAQ], kind: Kind) -> tuple[Suggestion, ...]:
    """Return the first three FAQs as offers."""
    return tuple(Suggestion(text=offer(faq.question, kind), faq_id=faq.id) for faq in faqs[:OFFERS])


def _beside(faq: FAQ, catalog: Catalog) -> list[FAQ]:
    """Return the FAQs that the help centre lists around this one, those whose titles share most with its own first."""
    mine = set(grams(faq.question))

    def unlike(other: FAQ) -> tuple[int, int]:
        return -len(mine.intersection(grams(other.question))), abs(other.row - faq.row)

    around = (other for other in catalog if abs(other.row - faq.row) <= BESIDE and other.id != faq.id)
    return sorted(around, key=unlike)


def _most_linked(catalog: Catalog) -> list[FAQ]:
    counts: Counter[FaqId] = Counter(other.id for faq in catalog for other in catalog.related(faq))
    return [catalog[faq_id] for faq_id, _ in counts.most_common(OFFERS * 2)]


def _asks_the_same(faq: FAQ, others: Iterable[FAQ]) -> bool:
    mine = set(grams(faq.question))
    for other in others:
        theirs = set(grams(other.question))
        if len(mine & theirs) >= SAME_QUESTION * max(1, min(len(mine), len(theirs))):
            return True
    return False
