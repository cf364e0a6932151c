import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartstore_indexing.errors import InvalidRequest
from smartstore_workflows.events import Kind, Turn
from smartstore_workflows.understanding import (
    BEFORE_CHARACTERS,
    MAX_CHARACTERS,
    accepts_offer,
    checked_question,
    joined,
    stand_alone,
    topic,
)

QUESTION = "정산은 언제 되나요?"
UNUSABLE = {
    "empty": "",
    "blanks": " \t\n\u00a0\u3000 ",
    "2,001 characters": "가" * 2_001,
    "emoji only": "😀👍🏽❤️",
    "control characters only": "\x00\x01\x1f\x7f",
    "C1 control characters only": "\x80\x9f",
    "punctuation only": "?!… ~~",
    "jamo fillers only": "\u3164\u115f\u1160\uffa0",
    "invisible only": "\u200b\ufeff\u2060",
    "lone high surrogate": f"{QUESTION}\ud83d",
    "lone low surrogate": f"\ude00{QUESTION}",
}
PLAIN_YES = [
    *(
        "네",
        "네.",
        "네!",
        "네~",
        "넵",
        "넹",
        "네네",
        "예",
        "응",
        "응응",
        "어",
        "그래",
        "그래요",
        "좋아",
        "좋아요",
        "ㅇㅇ",
        "ok",
        "OK",
    ),
    *(
        "응 알려줘",
        "응, 알려 줘",
        "그래 부탁해요",
        "네 부탁드려요",
        "네, 부탁드립니다.",
        "네 안내해 주세요",
        "네, 안내 부탁드려요",
    ),
    *(
        "예 설명해 주세요",
        "네 해주세요",
        "응 해 줘",
        "좋아요 알려주세요!",
        "네 궁금해요",
        "네 좀 알려주세요",
        "네 알려주시겠어요",
        "네ㅎㅎ",
    ),
    *("알려줘", "알려주세요", "부탁해", "부탁드립니다", "안내해 주세요", "설명해줘요"),
]
NO_PLAIN_YES = [
    *("", " ", ".", "?", "해", "요", "줘", "주세요", "해요", "안내", "설명", "드려", "네?", "응?"),
    *(
        "네 그런데 수수료는요?",
        "네 수수료도 알려주세요",
        "아니요",
        "아니",
        "괜찮아요",
        "싫어요",
        "아뇨 됐어요",
        "네이버",
        "네이버페이",
    ),
    *(
        "예약구매",
        "어떻게 하나요?",
        "어디서 신청해요?",
        "그래도 안 되면요?",
        "응모는 어떻게 해요?",
        "정산",
        "해지",
        "안내 문자",
    ),
    *("수수료 알려줘", "다른 것도 알려줘", "okay google 날씨", "1", "네가 뭔데", "해외배송 안내해 주세요"),
]


def turn(*offered: str, standalone: str = QUESTION, kind: Kind = "answered") -> Turn:
    return Turn(question=QUESTION, standalone=standalone, answer="답", kind=kind, offered=offered)


@pytest.mark.parametrize("text", UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_question_is_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(InvalidRequest, match="주세요"):
        checked_question(text)


@pytest.mark.parametrize(
    "text", ["가", "1", "a", "가" * MAX_CHARACTERS, "①", "中", "정산?", "😀 정산"], ids=lambda text: text[:4]
)
def test_question_with_a_letter_or_digit_comes_back_as_it_is(text: str) -> None:
    assert checked_question(text) == text


def test_length_counts_what_is_left_of_the_question() -> None:
    assert len(checked_question(f"  {'가' * MAX_CHARACTERS}\n\x00")) == MAX_CHARACTERS
    assert len(checked_question(unicodedata.normalize("NFD", "각" * MAX_CHARACTERS))) == MAX_CHARACTERS


def test_message_of_a_long_question_names_both_lengths() -> None:
    with pytest.raises(InvalidRequest, match=r"2,000자.*2,345자"):
        checked_question("가" * 2_345)


def test_decomposed_hangul_is_composed() -> None:
    assert checked_question(unicodedata.normalize("NFD", QUESTION)) == QUESTION


def test_control_characters_inside_are_removed_and_line_breaks_kept() -> None:
    assert checked_question("정\x00산\x1b은\x7f\n언제\t되나요?\x08") == "정산은\n언제\t되나요?"


@given(st.text(st.characters()))
def test_any_text_is_checked_or_refused(text: str) -> None:
    try:
        checked = checked_question(text)
    except InvalidRequest:
        return
    assert 0 < len(checked) <= MAX_CHARACTERS
    assert checked_question(checked) == checked
    assert checked.encode()


@pytest.mark.parametrize("answer", PLAIN_YES)
def test_plain_yes_takes_the_first_offer_of_the_last_turn(answer: str) -> None:
    assert accepts_offer(answer, [turn("earlier"), turn("first", "second")]) == "first"


@pytest.mark.parametrize("answer", NO_PLAIN_YES)
def test_anything_else_takes_no_offer(answer: str) -> None:
    assert accepts_offer(answer, [turn("first", "second")]) is None


@pytest.mark.parametrize("answer", PLAIN_YES)
def test_yes_without_an_offer_takes_none(answer: str) -> None:
    assert accepts_offer(answer, []) is None
    assert accepts_offer(answer, [turn("earlier"), turn()]) is None


@given(st.text(st.sampled_from("네응어예해줘요 .,!~?안내알려부탁드려주세요ㅎ"), max_size=40))
def test_no_text_keeps_the_pattern_searching(text: str) -> None:
    assert accepts_offer(text, [turn("first")]) in ("first", None)


def test_long_run_of_blanks_is_seen_through_at_once() -> None:
    assert accepts_offer("네" + " ," * 1_000 + "가", [turn("first")]) is None


def test_follow_up_leans_on_the_last_turn_that_was_not_refused() -> None:
    first, second, refused = turn(standalone="먼저"), turn(standalone="다음"), turn(kind="refused")
    assert topic([first, second, refused]) == second
    assert topic([refused]) is None
    assert topic([]) is None


def test_follow_up_stands_behind_the_question_before_it() -> None:
    assert stand_alone("그럼 서류는요?", turn()) == f"{QUESTION} 그럼 서류는요?"
    assert joined(turn(), "그럼 서류는요?") == f"{QUESTION} | 그럼 서류는요?"


def test_of_a_long_question_before_only_the_end_is_embedded() -> None:
    before = turn(standalone="가" * 500 + "끝")
    assert joined(before, "왜요?") == "가" * (BEFORE_CHARACTERS - 1) + "끝 | 왜요?"


def test_follow_up_of_a_follow_up_keeps_the_topic() -> None:
    first = stand_alone("그럼 서류는요?", turn())
    assert stand_alone("기간은요?", turn(standalone=first)) == f"{QUESTION} 그럼 서류는요? 기간은요?"


def test_follow_ups_of_follow_ups_stay_bounded() -> None:
    standalone = QUESTION
    for place in range(500):
        standalone = stand_alone(f"그럼 {place}번은요?", turn(standalone=standalone))
    assert len(standalone) <= MAX_CHARACTERS
    assert standalone.endswith("그럼 499번은요?")
