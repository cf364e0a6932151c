import re
from pathlib import Path

import pytest
from conftest import REAL_FAQ
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smartstore_indexing.cleaning import clean_all
from smartstore_indexing.faq import FAQ
from smartstore_indexing.loading import SAMPLE, load
from smartstore_workflows.extracting import EXTRACT_CHARACTERS, extract, pieces, plain

untimed = settings(deadline=None)
FILES = [path for path in (SAMPLE, REAL_FAQ) if path.exists()]

FILLER = "판매자님께서는 아래 내용을 천천히 확인하신 다음 진행해 주시면 됩니다."
lines = st.lists(
    st.one_of(
        st.sampled_from(
            ["", " ", "■ 반품 안내", "※ 참고.", "[정산 기준]", "- 항목입니다.", "1. 첫 단계", "발송 방법", "가." * 400]
        ),
        st.text(st.characters(codec="utf-8"), max_size=80),
        st.builds(lambda words: " ".join(words), st.lists(st.sampled_from(FILLER.split()), max_size=120)),
    ),
    max_size=30,
)
markdown = st.builds(lambda parts, glue: glue.join(parts), lines, st.sampled_from(["\n", "\n\n"]))


def letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)


def broken_rules(faq: FAQ, question: str) -> list[str]:
    """Return what is wrong with an extract; never its text, which may be the user's."""
    found = extract(faq.answer, question)
    wrong = []
    if len(found) > EXTRACT_CHARACTERS:
        wrong.append("too long")
    if not letters(found):
        wrong.append("empty")
    if len(faq.answer) <= EXTRACT_CHARACTERS and found != faq.answer:
        wrong.append("a short answer was cut")
    if not in_order(found, faq.answer):
        wrong.append("not pieces of the answer in their order")
    if len(faq.answer) > EXTRACT_CHARACTERS and found.endswith((":", "※ 참고.")):
        wrong.append("a heading dangles")
    return wrong


def in_order(found: str, answer: str) -> bool:
    """Tell whether each block of an extract stands in the answer, behind the block before it."""
    whole, at = letters(answer), 0
    for block in found.removesuffix("…").split("\n\n"):
        place = whole.find(letters(block), at)
        if place < 0:
            return False
        at = place + len(letters(block))
    return True


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_extracts_of_all_faqs_are_short_whole_and_in_order(path: Path) -> None:
    faqs = clean_all(load(path))
    asked = ((faq, question) for faq in faqs for question in (faq.question, "수수료는 얼마인가요?", faq.answer[-60:]))
    assert [(faq.row, wrong) for faq, question in asked if (wrong := broken_rules(faq, question))] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_extracts_of_long_answers_use_most_of_their_room(path: Path) -> None:
    long = [faq for faq in clean_all(load(path)) if len(faq.answer) > EXTRACT_CHARACTERS]
    lengths = [len(extract(faq.answer, faq.question)) for faq in long]
    assert len(long) >= 5
    assert sum(length >= EXTRACT_CHARACTERS / 2 for length in lengths) >= 0.9 * len(long)


@untimed
@given(markdown, st.text(max_size=60))
@example("가" * 1000, "가나다")
@example("■ 반품 안내\n\n" * 100, "반품 안내")
@example("한 문장입니다. " + "나" * 700, "문장")
@example(" " * 700, "?")
def test_any_markdown_is_cut_to_size_and_keeps_its_order(answer: str, question: str) -> None:
    found = extract(answer, question)
    assert len(found) <= EXTRACT_CHARACTERS
    assert found == answer if len(answer) <= EXTRACT_CHARACTERS else in_order(found, answer)
    assert found.strip() or not answer.strip()


@untimed
@given(markdown, st.text(max_size=60), st.integers(20, 200))
def test_any_limit_holds(answer: str, question: str, limit: int) -> None:
    assert len(extract(answer, question, limit)) <= limit


def test_short_answer_comes_whole_whatever_is_asked() -> None:
    answer = "■ 안내\n\n- 하나\n- 둘"
    assert extract(answer, "전혀 다른 질문") == answer


def test_answer_at_the_limit_comes_whole_and_one_character_more_is_cut() -> None:
    answer = "가나다라 " * 118
    assert len(answer) == EXTRACT_CHARACTERS
    assert extract(answer, "가나다라") == answer
    assert len(extract(answer + "끝", "가나다라")) < EXTRACT_CHARACTERS


def test_long_answer_gives_its_start_when_that_answers() -> None:
    paragraphs = [f"{place}번 문단입니다. {FILLER * 3}" for place in range(8)]
    found = extract("\n\n".join(paragraphs), "0번 문단이 무엇인가요?")
    assert found.split("\n\n")[0] == paragraphs[0]
    assert "7번" not in found


def test_later_block_is_chosen_when_it_holds_the_questions_words() -> None:
    paragraphs = [FILLER * 4 for _ in range(6)]
    paragraphs[4] = "해외배송 관부가세는 구매자가 부담합니다."
    found = extract("\n\n".join(["첫 문단입니다.", *paragraphs]), "해외배송 관부가세는 누가 부담하나요?")
    assert found.startswith("첫 문단입니다.\n\n")
    assert paragraphs[4] in found


def test_room_that_a_last_block_leaves_goes_to_what_follows_the_first() -> None:
    paragraphs = [
        "첫 문단입니다.",
        "둘째 문단입니다.",
        *(FILLER * 4 for _ in range(5)),
        "관부가세는 구매자가 부담합니다.",
    ]
    found = extract("\n\n".join(paragraphs), "관부가세는 누가 부담하나요?")
    assert found.split("\n\n")[:2] == paragraphs[:2]
    assert found.split("\n\n")[-1] == paragraphs[-1]


def test_heading_stays_with_what_it_heads() -> None:
    head, body = "■ 관부가세 부담 안내", "관부가세는 구매자가 부담하며 세관에 직접 냅니다."
    answer = "\n\n".join(["첫 문단입니다.", *(FILLER * 4 for _ in range(5)), head, body])
    assert f"{head}\n\n{body}" in extract(answer, "관부가세 부담은 누가 하나요?")


@pytest.mark.parametrize("heading", ["■ 배송비 안내", "※ 참고.", "[정산 기준]", "준비할 서류:", "신청 방법"])
def test_heading_whose_text_does_not_fit_is_left_out(heading: str) -> None:
    start = FILLER * 13
    assert EXTRACT_CHARACTERS - 100 < len(start) < EXTRACT_CHARACTERS - 20
    assert extract(f"{start}\n\n{heading}\n\n{FILLER * 5}", "안내") == start


def test_heading_that_ends_the_cut_of_a_list_is_left_out() -> None:
    items = "\n".join(f"- {FILLER}" for _ in range(12))
    assert EXTRACT_CHARACTERS - 100 < len(items) < EXTRACT_CHARACTERS - 20
    assert extract(f"{items}\n준비할 서류:\n- {'나' * 200}", "안내") == items


def test_cut_start_is_not_followed_by_a_later_block() -> None:
    long = "\n".join(f"- {place}번째 항목입니다. {FILLER}" for place in range(20))
    found = extract(f"{long}\n\n끝.", "항목")
    assert found == long[: len(found)]
    assert "끝." not in found


@pytest.mark.parametrize(
    "answer", ["가" * 1000, "가나다 " * 300, "가나다라 " * 118 + "바"], ids=["letters", "words", "one"]
)
def test_endless_sentence_gives_its_first_words(answer: str) -> None:
    found = extract(answer, "무엇인가요?")
    assert found.endswith("…")
    assert EXTRACT_CHARACTERS / 2 < len(found) <= EXTRACT_CHARACTERS
    assert answer.startswith(found.removesuffix("…"))


@given(st.text())
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


@given(st.text(min_size=1))
def test_no_piece_is_empty(text: str) -> None:
    assert all(pieces(text))


@given(st.text(), st.integers(1, 300))
def test_plain_is_one_line_within_its_limit(text: str, limit: int) -> None:
    line = plain(text, limit)
    assert len(line) <= limit
    assert line == " ".join(line.split())


def test_plain_drops_the_marks_of_markdown_and_says_where_it_cut() -> None:
    assert plain("# 제목\n\n- 하나\n- 둘\n> 인용", 100) == "제목 하나 둘 인용"
    assert plain("하나 둘 셋", 5) == "하나 둘…"
    assert plain("하나 둘 셋", 6) == "하나 둘 셋"
