import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartstore_indexing.errors import ModelUnavailable
from smartstore_workflows.events import Usage
from smartstore_workflows.guarding import EVERYDAY, STRETCH, Guard, guarded
from smartstore_workflows.prompting import answer_messages, prompts, rules

LINES = [line for prompt in prompts() for line in rules(prompt).splitlines() if line]
LATER = 9  # letters of a line's beginning that may be left out
PARTS = [
    part for line in LINES for part in re.split(r"</?\w+>", line) if sum(map(str.isalnum, part)) >= STRETCH + LATER
]
USAGE = Usage(prompt_tokens=1, completion_tokens=2)
ANSWER = (
    "네, 가능합니다. [판매관리 > 반품 관리]에서 3일 안에 신청해 주세요. [1]\n\n- 숫자, 금액, 기간은 그대로입니다. <3일>"
)


async def streamed(*pieces: str | Usage) -> AsyncGenerator[str | Usage, None]:
    for piece in pieces:
        yield piece


async def shown(*pieces: str | Usage) -> tuple[list[str | Usage], bool]:
    """Return what was let through, and whether the answer was stopped."""
    out: list[str | Usage] = []
    try:
        async for piece in guarded(streamed(*pieces)):
            out.append(piece)  # noqa: PERF401  what came before it was stopped is wanted
    except ModelUnavailable:
        return out, True
    return out, False


def through(pieces: Sequence[str]) -> tuple[str, bool]:
    out, stopped = asyncio.run(shown(*pieces))
    return "".join(map(str, out)), stopped


def letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.replace("\u3164", "")))


@st.composite
def split(draw: st.DrawFn, text: str) -> list[str]:
    """Cut a text anywhere."""
    places = sorted(draw(st.sets(st.integers(1, max(len(text) - 1, 1)), max_size=12)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def test_answer_comes_as_it_was_written() -> None:
    for size in (1, 2, 5, 1000):
        assert through([ANSWER[at : at + size] for at in range(0, len(ANSWER), size)]) == (ANSWER, False)


@pytest.mark.parametrize(
    "answer",
    [
        "FAQ에서 확인되지 않는 내용입니다.",
        "등록 방법은 FAQ에서 확인되지 않는 내용입니다. [1]",
        "네이버 스마트스토어 판매자라면 누구나 가능합니다. [1]",
        "5<10이면 할인됩니다. <b>굵게</b> <질문>",
        "",
    ],
)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_what_a_model_may_say_comes_whole(answer: str, data: st.DataObject) -> None:
    assert through(data.draw(split(answer))) == (answer, False)


@given(text=st.text(max_size=200), data=st.data())
@settings(deadline=None)
def test_any_other_text_comes_as_it_was_written(text: str, data: st.DataObject) -> None:
    assert through(data.draw(split(text))) in [(text, False), (text.partition("<")[0], True)]


@pytest.mark.parametrize("prompt", prompts())
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_nothing_of_the_rules_is_shown_wherever_they_are_cut(prompt: str, data: st.DataObject) -> None:
    assert through(data.draw(split(rules(prompt)))) == ("", True)


@given(part=st.sampled_from(PARTS), start=st.integers(0, LATER), data=st.data())
@settings(max_examples=200, deadline=None)
def test_stretch_from_within_a_rule_is_stopped_before_it_is_read(part: str, start: int, data: st.DataObject) -> None:
    said, stopped = through(data.draw(split(f"규칙은 이렇습니다: {part[start:]}")))
    assert stopped
    assert len(letters(said)) < len(letters("규칙은 이렇습니다")) + EVERYDAY


@pytest.mark.parametrize(
    "written",
    [
        lambda line: line.replace(" ", ""),
        lambda line: line.replace(" ", "\n> "),
        lambda line: "\u200b".join(line),
        lambda line: "-".join(line),
        lambda line: "\u3164".join(line),
        lambda line: " ".join(f"**{word}**" for word in line.split()),
        lambda line: line.lower(),
        lambda line: line.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)}),
        lambda line: f"9) {line}",
    ],
    ids=["no blanks", "lines", "zero width", "dashes", "fillers", "bold", "small", "wide", "renumbered"],
)
@pytest.mark.parametrize("line", [LINES[0], next(line for line in LINES if "지어내지" in line)])
def test_rules_in_another_writing_are_stopped(line: str, written: object) -> None:
    assert callable(written)
    said, stopped = through(list(written(line)))
    assert stopped
    assert letters(said).strip("19１") == ""  # the number in the list


@pytest.mark.parametrize(
    "fence", ['<faq number="1">', "</faq>", "<question>", "< / QUESTION >", "<history>", "＜ｆａｑ＞"]
)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_nothing_of_a_fence_is_shown(fence: str, data: st.DataObject) -> None:
    said, stopped = through(data.draw(split(f"답입니다. {fence}\n질문: 정산")))
    assert stopped
    assert "답입니다. ".startswith(said)


async def test_whole_prompt_is_stopped_at_its_first_piece() -> None:
    prompt = "\n".join(message.content or "" for message in answer_messages("질문", [], []))
    assert await shown(*re.findall(r"\s*\S{1,4}", prompt)) == ([], True)


async def test_usage_goes_through_at_once() -> None:
    assert await shown(USAGE, "당신은 네이버 ", USAGE, "스토어") == ([USAGE, USAGE, "당신은 네이버 스토어"], False)


async def test_text_that_waits_at_the_end_is_shown() -> None:
    assert await shown("답은 ", "숫자, 금액, 기간", USAGE) == (["답은 ", USAGE, "숫자, 금액, 기간"], False)


@pytest.mark.parametrize("first", ["네", "가능합니다", "판매", "스마트", "메뉴 이름", "1", "[", "다"])
def test_first_piece_that_begins_no_rule_does_not_wait(first: str) -> None:
    assert Guard().let_through(first) == first


@given(st.text(alphabet="당신은네이버숫자금액 ,<faq질문", max_size=80))
@settings(deadline=None)
def test_no_more_waits_than_could_begin_a_rule(text: str) -> None:
    guard = Guard()
    try:
        free = "".join(map(guard.let_through, text))
    except ModelUnavailable:
        return
    assert free + guard.rest() == text
    assert len(letters(guard.rest())) < STRETCH


async def test_stopping_the_answer_closes_the_model() -> None:
    closed = []

    async def model() -> AsyncGenerator[str | Usage, None]:
        try:
            for piece in rules().split():
                yield f"{piece} "
        finally:
            closed.append(True)

    async with aclosing(guarded(model())) as answer:
        with pytest.raises(ModelUnavailable):
            await anext(answer)
    assert closed == [True]
