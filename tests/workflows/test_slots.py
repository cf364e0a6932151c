"""What makes two questions ask the same, and what flips their answer."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartstore_indexing.korean import Morphemes
from smartstore_workflows.alignment import ask_the_same
from smartstore_workflows.mistyping import distance, mistakes
from smartstore_workflows.numerals import value_of
from smartstore_workflows.slots import meaning

PAIRS = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "data" / "cache_pairs.jsonl").read_text(encoding="utf-8").splitlines()
]
# As measured: of the pairs that ask the same, those found out by their text; whole paraphrases are not tried.
FOUND_OUT = {"paraphrase": 7, "typo": 28, "spacing": 19, "word_order": 30, "politeness": 49}
MISTAKEN = 1  # of 200; the set is harder than what sellers ask: 52 of them were written against this very code


@pytest.fixture(scope="module")
def kiwi() -> Morphemes:
    return Morphemes()


def slots(kiwi: Morphemes, question: str) -> set[str]:
    return meaning(kiwi.read(question).morphemes).slots


@pytest.mark.parametrize("kind", FOUND_OUT)
def test_questions_that_ask_the_same_are_found_out(kiwi: Morphemes, kind: str) -> None:
    found = [ask_the_same(pair["a"], pair["b"], kiwi.read) for pair in PAIRS if pair["kind"] == kind]
    assert sum(found) >= FOUND_OUT[kind]


def test_questions_that_ask_another_thing_are_hardly_ever_taken_for_the_same(kiwi: Morphemes) -> None:
    wrong = [pair["id"] for pair in PAIRS if not pair["same"] and ask_the_same(pair["a"], pair["b"], kiwi.read)]
    assert len(wrong) <= MISTAKEN, wrong


def test_pairs_are_of_every_kind() -> None:
    assert len(PAIRS) == len({pair["id"] for pair in PAIRS}) == 350
    assert min(Counter(pair["kind"] for pair in PAIRS).values()) >= 20


def test_asking_the_same_is_mutual(kiwi: Morphemes) -> None:
    one_way = [
        pair["id"]
        for pair in PAIRS
        if ask_the_same(pair["a"], pair["b"], kiwi.read) != ask_the_same(pair["b"], pair["a"], kiwi.read)
    ]
    assert len(one_way) <= 2, one_way  # a mistype is told by its own sentence, and that is another one there


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3개월 결제하고 2개월 뒤에 정산되나요?", "2개월 결제하고 3개월 뒤에 정산되나요?"),
        ("1만원 상품을 3개 사면 얼마인가요?", "3만원 상품을 1개 사면 얼마인가요?"),
        ("10개 중 2개만 반품할 수 있나요?", "2개 중 10개만 반품할 수 있나요?"),
    ],
)
def test_numbers_that_change_places_ask_another_thing(kiwi: Morphemes, one: str, other: str) -> None:
    assert not ask_the_same(one, other, kiwi.read)
    assert ask_the_same(one, f"{one[:-1]}?!", kiwi.read)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_asks_the_same_as_itself(kiwi: Morphemes, text: str) -> None:
    if 0 < len(meaning(kiwi.read(text).morphemes).words) < 20:
        assert ask_the_same(text, text, kiwi.read)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("어떻게 하나요?", "무엇인가요?"),
        ("비즈월렛은 무엇인가요?", "비즈월렛은 어떻게 하나요?"),
        ("こんにちは 반품", "さようなら 반품"),
        ("a.example.com 오류가 나요", "b.example.com 오류가 나요"),
        ("세 개를 보내요", "네 개를 보내요"),
    ],
    ids=["no word", "what and how", "script", "address", "numeral of one jamo"],
)
def test_questions_that_differ_in_what_is_easily_passed_over_are_not_the_same(
    kiwi: Morphemes, one: str, other: str
) -> None:
    assert not ask_the_same(one, other, kiwi.read)


def test_long_question_is_never_taken_for_another(kiwi: Morphemes) -> None:
    story = "주문이 들어와서 상품을 보냈는데 구매자가 반품을 신청했고 " * 8
    assert not ask_the_same(f"{story} 어떻게 하나요?", f"{story} 어떻게 합니까?", kiwi.read)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1분짜리 영상을 올려요", "60초짜리 영상을 올려요"),
        ("일주일 안에 보내요", "7일 안에 보내요"),
        ("사흘 안에 보내요", "3일 안에 보내요"),
        ("3만 원을 받아요", "30,000원을 받아요"),
        ("두 달 쉬어요", "2개월 쉬어요"),
        ("매니저가 다섯 명이에요", "매니저가 5명이에요"),
        ("1년이 지나요", "12개월이 지나요"),
        ("50퍼센트 할인해요", "50% 할인해요"),
    ],
)
def test_number_is_the_same_however_it_is_written(kiwi: Morphemes, one: str, other: str) -> None:
    assert slots(kiwi, one) == slots(kiwi, other) != set()


def test_at_once_is_no_number(kiwi: Morphemes) -> None:
    assert slots(kiwi, "가격을 한 번에 고쳐요") == set()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("3억5천만", 350_000_000), ("이십오", 25), ("만", 10_000), ("천이백", 1_200), ("2만5천", 25_000)),
        *(("1,234.5", 1_234.5), ("스무", 20), ("0", 0), ("1.2.3", None), ("몇십", None)),
    ],
)
def test_value_of_a_number(text: str, value: float | None) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("반품을 안 받아요", "반품을 받지 않아요"),
        ("인증번호를 못 받아요", "인증번호를 받지 못해요"),
        ("브랜드가 없어요", "브랜드 없이 등록해요"),
    ],
)
def test_negation_is_the_same_however_it_is_put(kiwi: Morphemes, one: str, other: str) -> None:
    assert slots(kiwi, one) == slots(kiwi, other) != set()


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("정산은 언제 되나요?", {"물음:언제"}),
        ("누가 부담하나요?", {"물음:누구"}),
        ("왜 보류됐나요?", {"물음:왜"}),
        ("발송 전에 취소하나요?", {"전:발송"}),
        ("구매확정 이후에 반품하나요?", {"후:구매확정"}),
        ("신고를 해야 하나요?", {"해야"}),
        ("어떻게 신고해야 하나요?", set()),
        ("미등록 상품은 어디 있나요?", {"아님:등록"}),
        ("고객에게만 보내나요?", {"만"}),
    ],
)
def test_slots_of_a_question(kiwi: Morphemes, question: str, expected: set[str]) -> None:
    assert slots(kiwi, question) == expected


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ("반품 배송비", "반픔 배송비", 1),
        ("정산이 언제 되나요", "정싼이 언제 돼나요", 2),
        ("10장까지", "20장까지", 0),
        ("연동을 켜요", "연동을 켜요!", 0),
        ("비회원이 문의해요", "회원이 문의해요", 0),
        ("반품하려면", "교환하려면", 0),
    ],
    ids=["one", "two", "number", "punctuation", "prefix", "word"],
)
def test_mistakes_between_two_texts(one: str, other: str, count: int) -> None:
    assert len(mistakes(one, other)) == count


@given(st.text("ㄱ가나다", max_size=6), st.text("ㄱ가나다", max_size=6), st.text("ㄱ가나다", max_size=6))
def test_distance_is_a_metric(one: str, other: str, third: str) -> None:
    assert distance(one, other) == distance(other, one)
    assert (distance(one, other) == 0) == (one == other)
    assert distance(one, third) <= distance(one, other) + distance(other, third)
