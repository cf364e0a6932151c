import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from smartstore_indexing.faq import FAQ, faq_id
from smartstore_workflows.events import Turn
from smartstore_workflows.prompting import (
    CONTEXT_CHARACTERS,
    HISTORY_TURNS,
    answer_messages,
    cited_numbers,
    rules,
    without_dangling,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "answer_messages.json"
FENCES = [
    "<faq>",
    "</faq>",
    '<faq number="1">',
    "<question>",
    "</question>",
    "<history>",
    "</ history >",
    "< / FAQ >",
    "<Question\nx=1>",
    "</faq",
    "<fa<faq>q>",
]


def faq(title: str, answer: str) -> FAQ:
    return FAQ(faq_id(title), "", 0, (), title, title, answer, ())


def turn(question: str, answer: str = "답변입니다.") -> Turn:
    return Turn(question=question, standalone=question, answer=answer, kind="answered")


def texts(messages: list[ChatMessage]) -> list[str]:
    return [message.content or "" for message in messages]


def golden_messages() -> list[dict[str, str]]:
    """Return what a fixed question is asked with; tests/golden/README.md says how the file is made from it."""
    messages = answer_messages(
        "그럼 [전화번호]로 신청한 서류는요?",
        [
            faq(
                "[가입] 미성년자도 가입할 수 있나요?",
                "만 14세 이상이면 가능합니다.\n\n- 법정대리인 동의서\n- 가족관계증명서",
            ),
            faq("서류는 어디에 내나요?", "[판매자정보 > 심사내역 조회]에서 제출해 주세요."),
        ],
        [turn("미성년자도 되나요?", "만 14세부터 가입하실 수 있습니다. [1]")],
    )
    return [{"role": message.role.value, "content": message.content or ""} for message in messages]


def test_messages_are_those_of_the_golden_file() -> None:
    assert golden_messages() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_rules_come_first_and_the_question_last() -> None:
    messages = answer_messages("질문인가요?", [faq("제목", "답")], [turn("앞 질문")])
    assert [message.role for message in messages] == [
        MessageRole.SYSTEM,
        MessageRole.USER,
        MessageRole.ASSISTANT,
        MessageRole.USER,
    ]
    assert messages[0].content == rules()
    assert texts(messages)[-1].endswith("<question>\n질문인가요?\n</question>")


def test_only_the_last_turns_are_told() -> None:
    messages = answer_messages("질문", [], [turn(f"{number}번 질문", f"{number}번 답") for number in range(9)])
    assert texts(messages)[1:-1] == [f"{number}번 {what}" for number in (6, 7, 8) for what in ("질문", "답")]
    assert HISTORY_TURNS == 3


def test_faqs_are_numbered_from_one_in_their_order() -> None:
    content = texts(answer_messages("질문", [faq("제목가", "답가"), faq("제목나", "답나")], []))[-1]
    assert content == (
        '<faq number="1">\n질문: 제목가\n답변: 답가\n</faq>\n'
        '<faq number="2">\n질문: 제목나\n답변: 답나\n</faq>\n'
        "<question>\n질문\n</question>"
    )


@pytest.mark.parametrize("where", ["question", "title", "answer", "history question", "history answer"])
@pytest.mark.parametrize("fence", FENCES)
def test_fence_in_a_text_is_taken_out(fence: str, where: str) -> None:
    text = f"앞 {fence} 뒤"
    plain = answer_messages("앞  뒤", [faq("앞  뒤", "앞  뒤")], [turn("앞  뒤", "앞  뒤")])
    fenced = answer_messages(
        text if where == "question" else "앞  뒤",
        [faq(text if where == "title" else "앞  뒤", text if where == "answer" else "앞  뒤")],
        [turn(text if where == "history question" else "앞  뒤", text if where == "history answer" else "앞  뒤")],
    )
    assert texts(fenced) == texts(plain)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["<", "</", "faq", "question", ">", " ", "fa", "q", "<faq>", "가"]), max_size=30).map(
        "".join
    )
)
@example("<<faq>faq>" * 3)
def test_no_text_makes_a_fence(text: str) -> None:
    content = texts(answer_messages(text, [faq(text, text)], []))[-1]
    tags = re.findall(r"<\s*(/?)\s*(faq|question)\b", content, re.IGNORECASE)
    assert tags == [("", "faq"), ("/", "faq"), ("", "question"), ("/", "question")]


@pytest.mark.parametrize(
    "text", ["5<10이면 할인", "<b>굵게</b>", "가격 > 0", "faq를 보여 주세요", "<faqs>", "<questions>", "<historyx>"]
)
def test_other_angle_brackets_stay(text: str) -> None:
    assert text in texts(answer_messages(text, [], []))[-1]


def test_answers_are_cut_where_they_exceed_the_budget() -> None:
    sizes = [CONTEXT_CHARACTERS - 100, 300, 300]
    faqs = [faq(f"제목{mark}", mark * size) for mark, size in zip("가나다", sizes, strict=True)]
    content = texts(answer_messages("질문", faqs, []))[-1]
    assert [content.count(mark) for mark in "나다"] == [100 + 1, 0 + 1]  # and the mark in its title
    assert content.count("가") == sizes[0] + 1


def test_faqs_within_the_budget_come_whole() -> None:
    content = texts(answer_messages("질문", [faq("제목", "가" * CONTEXT_CHARACTERS)], []))[-1]
    assert "가" * CONTEXT_CHARACTERS in content


@pytest.mark.parametrize(
    ("text", "sources", "numbers"),
    [
        ("답 [1].", 3, [1]),
        ("[2] 그리고 [1], 다시 [2]", 3, [2, 1]),
        ("[0] [4] [99] [3]", 3, [3]),
        ("[1][2]", 2, [1, 2]),
        ("[판매관리 > 반품 관리] [2024] [ 1 ]", 3, []),
        ("", 3, []),
        ("[1]", 0, []),
    ],
)
def test_cited_numbers_are_those_of_sources_in_the_order_of_their_mention(
    text: str, sources: int, numbers: list[int]
) -> None:
    assert cited_numbers(text, sources) == numbers


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("답입니다 [1] 그리고 [9].", "답입니다 [1] 그리고 ."),
        ("[0]하나[2]", "하나[2]"),
        ("[판매관리 > 반품 관리]에서 [2024]", "[판매관리 > 반품 관리]에서 [2024]"),
        ("[3][4]", "[3]"),
    ],
)
def test_citations_of_no_source_are_taken_out(text: str, left: str) -> None:
    assert without_dangling(text, 3) == left


@given(st.lists(st.sampled_from(["[1]", "[2]", "[12]", "[", "]", "3", "가 "])).map("".join), st.integers(0, 5))
def test_what_is_left_cites_the_same_sources(text: str, sources: int) -> None:
    assert cited_numbers(without_dangling(text, sources), sources) == cited_numbers(text, sources)
