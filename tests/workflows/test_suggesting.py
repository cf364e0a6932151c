from collections.abc import Mapping, Sequence

import pytest

from smartstore_indexing.faq import FAQ, Catalog, faq_id
from smartstore_workflows import Chatbot
from smartstore_workflows.events import Kind, Passage, Suggestion, Turn
from smartstore_workflows.suggesting import BESIDE, OFFERS, follow_ups, offers
from smartstore_workflows.wording import offer

CITED = "정산은 언제 되나요?"
TITLES = [
    "미성년자도 가입할 수 있나요?",
    CITED,
    "빠른정산은 어떻게 신청하나요?",
    "수수료는 얼마인가요?",
    "송장번호는 어디에 입력하나요?",
    "쿠폰은 어떻게 만드나요?",
    "리뷰에 답글을 달 수 있나요?",
    "반품 배송비는 누가 부담하나요?",
]


def faq(row: int, title: str, *related: str) -> FAQ:
    return FAQ(faq_id(title), "", row, (), title, title, "답변입니다.", related)


def catalog(links: Mapping[str, Sequence[str]] | None = None, titles: Sequence[str] = TITLES) -> Catalog:
    return Catalog(faq(row, title, *(links or {}).get(title, ())) for row, title in enumerate(titles))


def passages(scores: dict[str, float]) -> list[Passage]:
    return [Passage(faq_id=faq_id(title), score=score) for title, score in scores.items()]


def answered_before(*titles: str) -> list[Turn]:
    ids = tuple(faq_id(title) for title in titles)
    return [Turn(question="전에 한 질문", standalone="전에 한 질문", answer="답", kind="answered", faq_ids=ids)]


def offered(
    faqs: Catalog,
    found: dict[str, float],
    *,
    kind: Kind = "answered",
    history: Sequence[Turn] = (),
    bridges: Sequence[FAQ] = (),
) -> list[str]:
    """Return the titles of the offers after an answer that cites CITED, or after another outcome."""
    cited = [faq_id(CITED)] if kind == "answered" else []
    suggested = offers(follow_ups(kind, faqs, cited, passages(found), history, bridges), kind)
    return [faqs[faq_id(title)].title for title in map(titles_by_id(faqs).__getitem__, ids(suggested))]


def ids(suggested: Sequence[Suggestion]) -> list[str]:
    return [found.faq_id for found in suggested]


def titles_by_id(faqs: Catalog) -> dict[str, str]:
    return {found.id: found.title for found in faqs}


def test_linked_faqs_come_first_then_sure_passages_then_neighbours() -> None:
    faqs = catalog({CITED: ["쿠폰은 어떻게 만드나요?"]})
    found = offered(faqs, {CITED: 0.6, "리뷰에 답글을 달 수 있나요?": 0.2, "반품 배송비는 누가 부담하나요?": 0.01})
    assert found == ["쿠폰은 어떻게 만드나요?", "리뷰에 답글을 달 수 있나요?", "빠른정산은 어떻게 신청하나요?"]


def test_links_keep_their_order() -> None:
    links = ["쿠폰은 어떻게 만드나요?", "수수료는 얼마인가요?", "리뷰에 답글을 달 수 있나요?"]
    assert offered(catalog({CITED: links}), {CITED: 0.9, TITLES[0]: 0.1}) == links


def test_unlikely_passage_comes_after_the_neighbours() -> None:
    far = [f"멀리 있는 {word} 도움말" for word in ("가", "나")]
    titles = [CITED, TITLES[2], *(f"{place} 채움" for place in "abcdefghijklmnop"), *far]
    assert offered(catalog(titles=titles), {CITED: 0.9, far[0]: 0.05})[0] == TITLES[2]


def test_neighbours_stand_no_further_than_the_bound() -> None:
    near, beyond = "정산 예정 내역은 어디에서 보나요?", "정산은 어느 통장으로 들어오나요?"
    titles = [CITED, *(f"{place} 채움" for place in "abcdefghijk"), near, beyond]
    assert titles.index(near) == BESIDE
    found = offered(catalog(titles=titles), {CITED: 0.9})
    assert found[0] == near
    assert beyond not in found


def test_at_most_three_are_offered() -> None:
    found = offered(catalog({CITED: TITLES}), dict.fromkeys(TITLES, 0.12))
    assert len(found) == OFFERS == 3


@pytest.mark.parametrize("kind", ["answered", "not_found"])
def test_no_faq_is_offered_twice(kind: Kind) -> None:
    found = offered(catalog({CITED: TITLES[2:4]}), {CITED: 0.3, **dict.fromkeys(TITLES[2:], 0.12)}, kind=kind)
    assert len(set(found)) == len(found) == 3


def test_cited_faq_is_never_offered() -> None:
    found = offered(catalog({CITED: [CITED], TITLES[2]: [CITED]}), dict.fromkeys(TITLES, 0.12))
    assert CITED not in found
    assert len(found) == 3


@pytest.mark.parametrize("kind", ["answered", "not_found"])
def test_faq_that_the_conversation_answered_is_not_offered_again(kind: Kind) -> None:
    done = ["쿠폰은 어떻게 만드나요?", "수수료는 얼마인가요?"]
    found = offered(
        catalog({CITED: done}),
        {title: 0.12 for title in TITLES if title != CITED},
        kind=kind,
        history=answered_before(*done),
    )
    assert len(found) == 3
    assert set(found).isdisjoint(done)


@pytest.mark.parametrize(
    "twin", ["정산은 언제 되나요", "정산은 언제되나요?!", "Q. 정산은 언제 되나요?", "혹시 정산은 언제 되나요?"]
)
def test_title_that_asks_what_was_answered_is_not_offered(twin: str) -> None:
    titles = [*TITLES, twin]
    found = offered(catalog({CITED: [twin]}, titles), {CITED: 0.5, twin: 0.3, TITLES[3]: 0.12})
    assert found[0] == TITLES[3]
    assert twin not in found


def test_two_offers_never_ask_the_same() -> None:
    first, second = "반품 배송비는 누가 내나요?", "반품 배송비는 누가 내나요? (해외)"
    found = offered(catalog({CITED: [first, second]}, [*TITLES, first, second]), {CITED: 0.9})
    assert first in found
    assert second not in found


def test_not_found_offers_the_nearest() -> None:
    near = {TITLES[5]: 0.05, TITLES[3]: 0.04, TITLES[0]: 0.03, TITLES[6]: 0.02}
    assert offered(catalog(), near, kind="not_found") == [TITLES[5], TITLES[3], TITLES[0]]


def test_refusal_offers_the_first_bridge_alone() -> None:
    faqs = catalog({title: ["수수료는 얼마인가요?"] for title in TITLES})
    bridges = [faqs[faq_id(TITLES[5])], faqs[faq_id(TITLES[6])]]
    assert offered(faqs, {TITLES[0]: 0.3}, kind="refused", bridges=bridges) == [TITLES[5]]


def test_refusal_without_a_bridge_offers_the_most_linked() -> None:
    links = {TITLES[0]: [TITLES[3]], TITLES[2]: [TITLES[5]], TITLES[4]: [TITLES[5]]}
    assert offered(catalog(links), {TITLES[0]: 0.3}, kind="refused") == [TITLES[5]]


def test_refusal_in_a_catalog_without_links_offers_the_nearest() -> None:
    assert offered(catalog(), {TITLES[6]: 0.3, TITLES[0]: 0.1}, kind="refused") == [TITLES[6]]


def test_passages_that_the_index_no_longer_holds_are_left_out() -> None:
    found = offered(catalog(), {"사라진 질문인가요?": 0.5, TITLES[3]: 0.2}, kind="not_found")
    assert found == [TITLES[3]]


@pytest.mark.parametrize("kind", ["answered", "not_found", "refused"])
def test_catalog_of_one_faq_offers_no_second(kind: Kind) -> None:
    found = offered(catalog(titles=[CITED]), {CITED: 0.9}, kind=kind)
    assert found == ([] if kind == "answered" else [CITED])


def test_offer_is_worded_after_its_faq() -> None:
    faqs = catalog({CITED: [TITLES[5]]})
    first = offers(follow_ups("answered", faqs, [faq_id(CITED)], [], [], []), "answered")[0]
    assert first == Suggestion(text=offer(TITLES[5], "answered"), faq_id=faq_id(TITLES[5]))


@pytest.mark.parametrize(
    "question",
    [
        "미성년자도 판매 회원 등록이 가능한가요?",
        "오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?",
        "정산은 언제 되나요?",
        "내일 비가 오나요?",
    ],
)
async def test_every_offer_names_an_faq_of_the_index(bot: Chatbot, question: str) -> None:
    reply = await bot.ask(question)
    catalog_in_use = await bot.services.retriever.catalog()
    assert 1 <= len(reply.suggestions) <= 3
    assert all(catalog_in_use.get(found.faq_id) is not None for found in reply.suggestions)
    assert set(ids(reply.suggestions)).isdisjoint(reply.answer.citations)


async def test_refusal_leads_back_to_what_the_question_is_near_to(bot: Chatbot) -> None:
    reply = await bot.ask("오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?")
    assert reply.answer.kind == "refused"
    (bridge,) = [await bot.faq(offered_id) for offered_id in ids(reply.suggestions)]
    assert "음식" in bridge.title or "식품" in bridge.title
