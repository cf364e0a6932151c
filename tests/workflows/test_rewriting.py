import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import ModelServer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from modelling import completed, model_of, server_of, stats

from smartstore_workflows.chat_model import AnswerModel
from smartstore_workflows.events import Kind, Turn
from smartstore_workflows.rewriting import (
    ANSWER_CHARACTERS,
    TOPIC_CHARACTERS,
    TURNS,
    cleaned,
    rewrite,
    rewrite_messages,
)
from smartstore_workflows.understanding import MAX_CHARACTERS

GOLDEN = Path(__file__).parent.parent / "golden" / "rewrite_messages.json"
WHOLE = "정산 수수료는 얼마인가요?"
CLEANED = {
    "as it is": (WHOLE, WHOLE),
    "blanks around it": (f"\n  {WHOLE} \n", WHOLE),
    "double quotes": (f'"{WHOLE}"', WHOLE),
    "curly quotes": (f"“{WHOLE}”", WHOLE),
    "quotes in quotes": (f"「'{WHOLE}'」", WHOLE),
    "a label": (f"질문: {WHOLE}", WHOLE),
    "a label and quotes": (f'고쳐 쓴 질문: "{WHOLE}"', WHOLE),
    "a fence": (f"<question>\n{WHOLE}\n</question>", WHOLE),
    "an explanation below": (f"{WHOLE}\n\n(대화의 수수료를 넣어 고쳐 썼습니다.)", WHOLE),
    "a line of marks above": (f"---\n{WHOLE}", WHOLE),
    "control characters": ("정산\x00 수수료는\x1f 얼마인가요?", WHOLE),
    "tabs and wide blanks": ("정산\t수수료는\u3000얼마인가요?", WHOLE),
    "decomposed Hangul": ("\u1100\u1161", "가"),
    "quotes within it": ("'정산'과 '수수료'는 어떻게 다른가요?", "'정산'과 '수수료'는 어떻게 다른가요?"),
    "2,000 characters": ("가" * MAX_CHARACTERS, "가" * MAX_CHARACTERS),
}
NOT_USABLE = {
    "nothing": "",
    "blanks": " \n\t",
    "marks": "?!…",
    "digits": "1, 2, 3",
    "empty quotes": '""',
    "a label alone": "질문:",
    "a fence alone": "<question></question>",
    "jamo fillers": "\u3164\u115f",
    "2,001 characters": "가" * (MAX_CHARACTERS + 1),
}


def turn(question: str, answer: str = "답변입니다.", standalone: str | None = None, kind: Kind = "answered") -> Turn:
    return Turn(question=question, standalone=standalone or question, answer=answer, kind=kind)


def content(question: str, history: list[Turn]) -> str:
    return rewrite_messages(question, history)[-1].content or ""


def golden_rewrite() -> list[dict[str, str]]:
    """Return what a fixed follow-up is rewritten with; tests/golden/README.md says how the file is made from it."""
    messages = rewrite_messages(
        "그럼 [전화번호]로 신청한 서류는요?",
        [
            turn("미성년자도 되나요?", "만 14세부터\n\n- 동의서를 내시면\n\n가입하실 수 있습니다. [1]"),
            turn("오늘 날씨는요?", "저는 챗봇입니다.", kind="refused"),
            turn("그건 언제까지요?", "확인되지 않습니다.", "동의서는 언제까지 내나요?", kind="not_found"),
        ],
    )
    return [{"role": message.role.value, "content": message.content or ""} for message in messages]


@pytest.fixture
async def model(model_server: ModelServer) -> AsyncIterator[AnswerModel]:
    async with model_of(model_server.url) as opened:
        yield opened


def test_messages_are_those_of_the_golden_file() -> None:
    assert golden_rewrite() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_only_the_last_turns_are_told_and_none_that_was_refused() -> None:
    turns = [turn(f"{number}번 질문") for number in range(9)]
    told = content("질문", [*turns, turn("맛집은요?", kind="refused")])
    assert re.findall(r"\d번", told) == ["6번", "7번", "8번"]
    assert TURNS == 3


def test_long_turns_are_cut_at_the_beginning_of_the_question_and_the_end_of_the_answer() -> None:
    told = content("질문", [turn("ㄱ" * 2_000 + "끝", "처음" + "ㄴ" * 2_000)])
    assert f"{'ㄱ' * (TOPIC_CHARACTERS - 1)}끝\n답변: 처음" in told
    assert told.count("ㄱ") == TOPIC_CHARACTERS - 1
    assert told.count("ㄴ") < ANSWER_CHARACTERS


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<", "</", "history", "question", ">", " ", "\n", "his", "tory", "가"])).map("".join))
@example("<<history>history>" * 3)
def test_no_text_makes_a_fence_or_a_turn(text: str) -> None:
    told = content(text, [turn(text, text), turn(text, text)])
    assert re.findall(r"<\s*(/?)\s*(history|question)\b", told) == [
        *(("", "history"), ("/", "history"), ("", "question"), ("/", "question"))
    ]
    assert len(re.findall("^질문: ", told, re.MULTILINE)) == 2


@pytest.mark.parametrize(("reply", "question"), CLEANED.values(), ids=CLEANED)
def test_question_is_taken_out_of_the_reply(reply: str, question: str) -> None:
    assert cleaned(reply) == question


@pytest.mark.parametrize("reply", NOT_USABLE.values(), ids=NOT_USABLE)
def test_reply_without_a_question_gives_none(reply: str) -> None:
    assert cleaned(reply) is None


@settings(deadline=None)
@given(
    st.one_of(
        st.text(st.characters()),
        st.lists(st.sampled_from(['"', "'", "“", "”", "질문:", "질문", "<faq>", "<", ">", "\n", " ", "가", "1"])).map(
            "".join
        ),
    )
)
@example("<fa\x00q>가")
def test_cleaned_reply_is_one_line_with_a_letter_and_clean(reply: str) -> None:
    question = cleaned(reply)
    if question is None:
        return
    assert question == question.strip()
    assert len(question.splitlines()) == 1
    assert any(character.isalpha() for character in question)
    assert len(question) <= MAX_CHARACTERS
    question.encode()


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(['"', "“", "”", "「", "」", "질문: ", "질문", "<faq>", "<", ">", "\n", "가"])).map("".join)
)
def test_cleaning_again_changes_nothing(reply: str) -> None:
    if question := cleaned(reply):
        assert cleaned(question) == question


async def test_rewriting_is_the_models_question(model: AnswerModel) -> None:
    asked = f'그럼 수수료는요? [[reply: "{WHOLE}"]]'
    assert await rewrite(model, asked, [turn("정산은 언제 되나요?")], 10.0) == WHOLE


async def test_reply_without_a_letter_is_no_rewriting(model: AnswerModel) -> None:
    assert await rewrite(model, "그럼 수수료는요? [[reply: 1, 2?]]", [turn("정산은 언제 되나요?")], 10.0) is None


@pytest.mark.parametrize("name", ["stub-429", "stub-500", "stub-401", "stub-hang", "stub-empty"])
async def test_failing_model_rewrites_nothing_and_is_asked_once(model_server: ModelServer, name: str) -> None:
    seconds = 1.0 if name == "stub-hang" else 10.0
    before = stats(model_server)["chat"]
    async with model_of(model_server.url, name, max_retries=2) as model:
        assert await rewrite(model, "그럼 수수료는요?", [turn("정산은 언제 되나요?")], seconds) is None
    assert stats(model_server)["chat"] == before + 1


async def test_reply_that_is_too_long_is_no_rewriting() -> None:
    async with server_of(completed("가" * (MAX_CHARACTERS + 1))) as url, model_of(url) as model:
        assert await rewrite(model, "그럼요?", [turn("정산은 언제 되나요?")], 10.0) is None
