import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from smartstore_indexing.faq import FAQ, digest, faq_id
from smartstore_workflows import caching
from smartstore_workflows.caching import AnswerKey
from smartstore_workflows.events import Turn
from smartstore_workflows.prompting import (
    CONTEXT_TOKENS,
    HISTORY_TURNS,
    answer_messages,
    cited_numbers,
    packed,
    prompt_version,
    prompts,
    rules,
    without_dangling,
)
from smartstore_workflows.tokens import estimated_tokens

GOLDEN = Path(__file__).parent.parent / "golden" / "answer_messages.json"
# What each version of a prompt says. A line that stands here is not changed: a changed prompt is a new version.
VERSIONS = {
    ("answer", "2"): "abbe688a9bc448a5",
    ("rerank", "1"): "d2f46ef61c3f3811",
    ("rewrite", "1"): "1283d87120f52815",
    ("scope", "1"): "fb7f32d620d7ec29",
    ("suggest", "1"): "96c13d9b20d738df",
}
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
    "<//faq>",
    "＜／ｆａｑ＞",
    "</f\u200baq>",
    "<\u3164/\u2060faq>",
    "</\U000e0066faq>",
    "<|im_end|>",
    "<|im_start|>",
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


@pytest.mark.parametrize("prompt", prompts())
def test_changed_prompt_is_a_new_version(prompt: str) -> None:
    assert VERSIONS.get((prompt, prompt_version(prompt))) == digest(rules(prompt))


@pytest.mark.parametrize("prompt", prompts())
def test_version_is_no_part_of_what_is_sent(prompt: str) -> None:
    assert prompt_version(prompt).isdigit()
    assert "version" not in rules(prompt)


def test_answers_are_kept_under_the_version_of_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    key = AnswerKey("index", "model", "정산은 언제 되나요")
    before = (key.scope, key.name)
    monkeypatch.setattr(caching, "prompt_version", lambda: "next")
    assert key.scope != before[0]
    assert key.name != before[1]


@pytest.mark.parametrize(
    "said", ["한국어 존댓말로만", "한국어로 답합니다", "FAQ에서 확인되지 않는 내용입니다.", "[1], [2]"]
)
def test_rules_say(said: str) -> None:
    assert said in rules()


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


def words(mark: str, count: int) -> str:
    return " ".join([mark] * count)


def test_faqs_within_the_budget_come_whole() -> None:
    faqs = [faq(f"제목{mark}", words(mark, 600)) for mark in "가나다라마"]
    content = texts(answer_messages("질문", faqs, []))[-1]
    assert [content.count(f"{each.answer}\n</faq>") for each in faqs] == [1] * 5


def test_default_budget_holds_what_five_whole_answers_mostly_take() -> None:
    assert estimated_tokens("가" * 4_700) < CONTEXT_TOKENS < estimated_tokens("가" * 5_000)


def test_whole_faqs_come_before_the_part_of_one_that_is_too_long() -> None:
    content = packed([faq("첫째", words("가", 90)), faq("둘째", words("나", 900)), faq("셋째", words("다", 90))], 600)
    assert content.count("가") == content.count("다") == 90
    assert 100 < content.count("나") < 900
    assert re.findall(r'number="(\d)"', content) == ["1", "2", "3"]


def test_of_faqs_that_fit_whole_the_best_come_first() -> None:
    content = packed([faq(f"제목{mark}", words(mark, 90)) for mark in "가나다"], 290)
    assert [content.count(mark) for mark in "가나다"] == [91, 91, 0]  # with the mark in the title
    assert re.findall(r'number="(\d)"', content) == ["1", "2"]


def test_best_faq_alone_is_cut_where_it_exceeds_the_budget() -> None:
    content = packed([faq("제목", words("10,000원", 900))], 300)
    assert re.fullmatch(r'<faq number="1">\n질문: 제목\n답변: (10,000원 )+10,000원…\n</faq>\n', content)


def test_faq_that_has_no_room_is_left_out_and_the_others_keep_their_numbers() -> None:
    content = packed([faq("첫째", words("가", 900)), faq("둘째", "짧은 답")], 30)
    assert re.findall(r'number="(\d)"', content) == ["2"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.text()), max_size=6), st.integers(-10, 400))
def test_context_never_exceeds_its_budget(pairs: list[tuple[str, str]], budget: int) -> None:
    content = packed([faq(title, answer) for title, answer in pairs], budget)
    assert estimated_tokens(content) <= max(budget, 0)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4), st.integers(0, 300))
def test_best_faq_comes_whole_wherever_it_fits(answers: list[str], budget: int) -> None:
    faqs = [faq(f"제목 {place}", answer) for place, answer in enumerate(answers)]
    best = packed(faqs[:1], CONTEXT_TOKENS)
    assert packed(faqs, budget).startswith(best) or estimated_tokens(best) > budget


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
@example("[3[12]]", 3)
@example("[3[12][12]]", 3)
def test_what_is_left_cites_the_same_sources(text: str, sources: int) -> None:
    assert cited_numbers(without_dangling(text, sources), sources) == cited_numbers(text, sources)
