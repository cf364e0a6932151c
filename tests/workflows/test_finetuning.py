import random
import re
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartstore_indexing.cleaning import clean_all
from smartstore_indexing.faq import FAQ, faq_id
from smartstore_indexing.loading import SAMPLE, load
from smartstore_workflows.events import Turn
from smartstore_workflows.finetuning import (
    KINDS,
    UNCONFIRMED,
    Asking,
    Example,
    Splits,
    held_out,
    off_topic_lines,
    own_askings,
    shortened,
    splits,
)
from smartstore_workflows.grounding import cited
from smartstore_workflows.likeness import grouped
from smartstore_workflows.masking import mask
from smartstore_workflows.prompting import CITATION, CONTEXT_FAQS, answer_messages, rules, unfenced
from smartstore_workflows.wording import REFUSAL

BLOCK = re.compile(r'<faq number="(\d+)">\n질문: ([^\n]*)\n답변: (.*?)\n</faq>', re.DOTALL)
ASKED = re.compile(r"<question>\n(.*)\n</question>", re.DOTALL)
SHARE = 0.2


@pytest.fixture(scope="module")
def faqs() -> list[FAQ]:
    return clean_all(load(SAMPLE))


@pytest.fixture(scope="module")
def made(faqs: list[FAQ]) -> Splits:
    return splits(faqs, {}, off_topic_lines(), validation=SHARE, seed=7)


def faq(title: str, answer: str) -> FAQ:
    return FAQ(faq_id(title), "", 0, ("정산",), title, title, answer, ())


def some(answers: Sequence[str]) -> list[FAQ]:
    topics = ["정산", "배송", "반품", "쿠폰", "리뷰", "광고", "가입", "문의"]
    return [
        faq(f"{topics[place % len(topics)]} {place}번 메뉴는 어디에 있나요?", answer)
        for place, answer in enumerate(answers)
    ]


def everything(made: Splits) -> list[Example]:
    return [*made.train, *made.validation]


def of(made: Splits, *kinds: str) -> list[Example]:
    return [example for example in everything(made) if example.kind in kinds]


def context(example: Example) -> dict[int, tuple[str, str]]:
    """Return the titles and answers that the model is shown, by their numbers."""
    return {int(number): (title, answer) for number, title, answer in BLOCK.findall(example.messages[-2][1])}


def question(example: Example) -> str:
    found = ASKED.search(example.messages[-2][1])
    assert found
    return found[1]


def unmarked(answer: str) -> str:
    return re.sub(r" \[\d\]", "", answer)


def turns(example: Example) -> list[Turn]:
    said = [text for _, text in example.messages[1:-2]]
    return [
        Turn(question=asked, standalone=asked, answer=answer, kind="answered")
        for asked, answer in zip(said[::2], said[1::2], strict=True)
    ]


def test_chats_are_those_that_the_bot_sends(made: Splits, faqs: list[FAQ]) -> None:
    by_title = {unfenced(faq.title): faq for faq in faqs}
    for example in everything(made):
        shown = [by_title[title] for title, _ in context(example).values()]
        asked = answer_messages(question(example), shown, turns(example))
        assert example.messages[:-1] == tuple((message.role.value, message.content) for message in asked)
        assert example.messages[-1][0] == "assistant"


def test_answers_are_the_words_of_the_faq_that_they_cite(made: Splits, faqs: list[FAQ]) -> None:
    by_id: dict[str, FAQ] = {faq.id: faq for faq in faqs}
    examples = of(made, "answered", "multi_turn")
    for example in examples:
        answer = example.messages[-1][1]
        (number,) = {int(number) for number in CITATION.findall(answer)}
        title, shown = context(example)[number]
        assert title == by_id[example.faq_id].title
        assert [line for line in unmarked(answer).split("\n") if line not in shown] == []
    assert {example.faq_id for example in examples} == by_id.keys()


def test_right_faq_stands_anywhere_among_others_of_its_field(made: Splits, faqs: list[FAQ]) -> None:
    by_title = {faq.title: faq for faq in faqs}
    by_id: dict[str, FAQ] = {faq.id: faq for faq in faqs}
    places, alike, others = Counter[str](), 0, 0
    for example in of(made, "answered"):
        places.update(set(CITATION.findall(example.messages[-1][1])))
        categories = set(by_id[example.faq_id].categories)
        beside = [by_title[title] for title, _ in context(example).values() if title != by_id[example.faq_id].title]
        alike += sum(bool(categories & set(other.categories)) for other in beside)
        others += len(beside)
        assert len(beside) == CONTEXT_FAQS - 1
    assert places.keys() == {str(place) for place in range(1, CONTEXT_FAQS + 1)}
    assert min(places.values()) > places.total() / CONTEXT_FAQS / 2
    assert alike > others / 4  # drawn blindly, one in 26 would be


def test_not_found_has_neither_the_faq_nor_its_answer(made: Splits, faqs: list[FAQ]) -> None:
    by_id: dict[str, FAQ] = {faq.id: faq for faq in faqs}
    assert f'"{UNCONFIRMED}"' in rules()
    for example in of(made, "not_found"):
        assert example.messages[-1][1] == UNCONFIRMED
        left_out = by_id[example.faq_id]
        assert left_out.title not in [title for title, _ in context(example).values()]
        assert unfenced(left_out.answer) not in example.messages[-2][1]
        assert context(example)


def test_refusals_are_of_lines_out_of_scope(made: Splits) -> None:
    lines = {unfenced(mask(line)) for line in off_topic_lines()}
    for example in of(made, "refused"):
        assert (example.faq_id, example.messages[-1][1]) == ("", REFUSAL)
        assert question(example) in lines
        assert context(example)


def test_later_turns_have_a_history_and_some_lean_on_it(made: Splits) -> None:
    later = of(made, "multi_turn")
    assert all(turns(example) for example in later)
    leaning = [example for example in later if question(example).startswith(turns(example)[-1].question)]
    chosen = [example for example in later if question(example).endswith("안내해 드릴까요?")]
    assert leaning
    assert len(chosen) > len(later) / 10
    assert all(len(context(example)) == 1 for example in chosen)
    assert any(turns(example) for example in of(made, "refused"))
    assert any(turns(example) for example in of(made, "not_found"))
    assert not any(turns(example) for example in of(made, "answered"))


def test_no_answer_of_the_validation_stands_in_the_training(made: Splits, faqs: list[FAQ]) -> None:
    asked = {example.faq_id for example in made.validation} - {""}
    shown = "\0".join(text for example in made.train for _, text in example.messages)
    assert len(asked) == pytest.approx(SHARE * len(faqs), abs=4)
    assert [faq.title for faq in faqs if faq.id in asked and unfenced(faq.answer) in shown] == []
    assert asked.isdisjoint(example.faq_id for example in made.train)
    refused = [
        {question(example) for example in part if example.kind == "refused"} for part in (made.train, made.validation)
    ]
    assert refused[0].isdisjoint(refused[1])


def test_equal_and_nearly_equal_answers_are_never_parted() -> None:
    answer = "[정산관리 > 정산 내역] 메뉴에서 날짜를 고르고 조회 버튼을 누르면 확인하실 수 있습니다."
    own = [
        f"{place}번 메뉴는 왼쪽 {place}째 줄에 있으며 누구나 {place * 7}일 동안 볼 수 있습니다." for place in range(30)
    ]
    same = [faq("완전히 다른 질문인가요?", answer), faq("정산 내역은 어디에 있나요?", answer.replace(" ", "\n", 1))]
    near = faq("정산 내역은 어디서 보나요?", f"네, {answer}")
    groups = grouped([*some(own), *same, near])
    assert len({groups[one.id] for one in (*same, near)}) == 1
    for seed in range(5):
        held = held_out(groups, 0.3, random.Random(seed))
        assert len({one.id in held for one in (*same, near)}) == 1


def test_answer_within_an_answer_of_the_training_is_left_out_of_the_validation() -> None:
    whole = [
        f"{place}번 메뉴는 왼쪽 {place}째 줄에 있습니다. 자세한 것은 {place}쪽을 봐 주세요." for place in range(20)
    ]
    parts = [answer.split(". ")[0] + "." for answer in whole]
    faqs = some([*whole, *parts])
    for seed in range(5):
        made = splits(faqs, {}, ["날씨 어때?", "맛집 알려 줘"], validation=0.4, seed=seed)
        shown = "\0".join(text for example in made.train for _, text in example.messages)
        asked = {example.faq_id for example in made.validation}
        assert [one.title for one in faqs if one.id in asked and one.answer in shown] == []


def test_answer_that_the_context_cuts_is_not_learned() -> None:
    long = "\n\n".join(f"{place}번째 문단은 아주 길고 자세하게 설명하는 글입니다." for place in range(700))
    marked = "화면에서 [1] 표시를 누르면 됩니다."
    faqs = some([*(f"{place}번 메뉴는 왼쪽 {place}째 줄에 있습니다." for place in range(20)), long, marked, "가" * 900])
    made = splits(faqs, {}, ["날씨 어때?", "맛집 알려 줘"], validation=0.1, seed=0)
    for example in of(made, "answered", "multi_turn"):
        shown = example.messages[-2][1]
        assert all(line in shown for line in unmarked(example.messages[-1][1]).split("\n"))
    cannot = {faqs[-1].id, faqs[-2].id}  # nothing to cite, and a mark of its own
    assert cannot.isdisjoint(example.faq_id for example in of(made, "answered", "multi_turn"))


def test_same_seed_gives_the_same_lines_and_another_does_not(faqs: list[FAQ]) -> None:
    some_faqs, lines = faqs[:40], off_topic_lines()[:50]
    first, again, other = (splits(some_faqs, {}, lines, validation=SHARE, seed=seed) for seed in (1, 1, 2))
    assert [example.line for example in everything(first)] == [example.line for example in everything(again)]
    assert [example.line for example in first.train] != [example.line for example in other.train]


def test_every_kind_is_in_both_splits(made: Splits) -> None:
    for part in (made.train, made.validation):
        assert {example.kind for example in part} == set(KINDS)
    assert made.left_out == 0


def test_further_questions_are_asked_and_other_right_faqs_stay_out(faqs: list[FAQ]) -> None:
    asked, also = faqs[3], faqs[4]
    questions = {asked.id: [Asking(asked, "중학생인데 가게 열 수 있어여?", frozenset([also.id]))] * 8}
    made = splits(faqs[:40], questions, ["날씨 어때?", "맛집 알려 줘"], validation=SHARE, seed=0)
    found = [example for example in everything(made) if question(example).startswith("중학생인데")]
    assert len(found) >= 8
    assert all(also.title not in [title for title, _ in context(example).values()] for example in found)


def test_own_questions_are_as_a_person_asks() -> None:
    asked = own_askings(faq("서류가 필요한가요? (온라인 교육 제공)", "네."), random.Random(0))
    assert asked[0].question == "서류가 필요한가요?"
    assert re.fullmatch(r"서류가 필요한지 (?:알려 주세요|궁금합니다|알고 싶어요)\.", asked[1].question)


@pytest.mark.parametrize(
    ("asked", "before", "short"),
    [
        ("정기구독 상품은 어떻게 해지하나요?", "정기구독 상품이란 무엇인가요?", "어떻게 해지하나요?"),
        ("반품 배송비는 누가 내나요?", "쿠폰은 어디서 받나요?", ""),
        ("쿠폰은 어디서 받나요?", "쿠폰은 어디서 받나요?", ""),
        ("상품 등록 시 주의할 점이 있나요?", "상품 등록은 어떻게 하나요?", ""),
    ],
    ids=["topic", "nothing in common", "the same", "a word that leans"],
)
def test_follow_up_leaves_out_the_topic(asked: str, before: str, short: str) -> None:
    assert shortened(asked, before) == short


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("네, 됩니다. 다만 심사가 있어요.", "네, 됩니다. [2] 다만 심사가 있어요. [2]"),
        (
            "아래처럼 해 주세요:\n\n1) 메뉴를 엽니다.\n2) 저장",
            "아래처럼 해 주세요:\n\n1) 메뉴를 엽니다. [2]\n2) 저장 [2]",
        ),
        ("※ 참고. 하루가 걸립니다.", "※ 참고. 하루가 걸립니다. [2]"),
        ("■ 준비물\n\n- 신분증\n- 통장", "■ 준비물\n\n- 신분증 [2]\n- 통장 [2]"),
        ("됩니다.\n\n도움말 바로가기\n\n※ 참고.", "됩니다. [2]"),
        ("3%", "3% [2]"),
    ],
    ids=["sentences", "steps", "note", "bullets", "dead ends", "no sentence"],
)
def test_sentences_and_items_are_cited(text: str, marked: str) -> None:
    assert cited(text, 2) == marked


@given(st.text(alphabet="가다.요? \n-1):※바로가기[]", min_size=1, max_size=80).filter(str.strip), st.integers(1, 5))
def test_cited_text_cites_its_number_and_no_other(text: str, number: int) -> None:
    marks = CITATION.findall(cited(CITATION.sub("", text), number))
    assert set(marks) == {str(number)}
