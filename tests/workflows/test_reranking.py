import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import ModelServer
from hypothesis import given, settings
from hypothesis import strategies as st
from modelling import model_of, stats

from smartstore_indexing.faq import FAQ, faq_id
from smartstore_workflows.chat_model import AnswerModel
from smartstore_workflows.reranking import ANSWER_CHARACTERS, RERANKED, named_numbers, rerank, rerank_messages

GOLDEN = Path(__file__).parent.parent / "golden" / "rerank_messages.json"


def faq(title: str, answer: str = "답변입니다.") -> FAQ:
    return FAQ(faq_id(title), "", 0, (), title, title, answer, ())


def faqs(count: int) -> list[FAQ]:
    return [faq(f"제목 {number}") for number in range(1, count + 1)]


def content(question: str, found: list[FAQ]) -> str:
    return rerank_messages(question, found)[-1].content or ""


def golden_rerank() -> list[dict[str, str]]:
    """Return what a fixed order is asked with; tests/golden/README.md says how the file is made from it."""
    messages = rerank_messages(
        "[전화번호]로 신청한 서류는 어디에 내나요?",
        [
            faq("[가입] 미성년자도 가입할 수 있나요?", "만 14세 이상이면 가능합니다.\n\n- 동의서\n- 가족관계증명서"),
            faq(
                "서류는 어디에 내나요?", "[판매자정보 > 심사내역 조회]에서 제출해 주세요. " + "자세한 설명입니다. " * 40
            ),
        ],
    )
    return [{"role": message.role.value, "content": message.content or ""} for message in messages]


@pytest.fixture
async def model(model_server: ModelServer) -> AsyncIterator[AnswerModel]:
    async with model_of(model_server.url) as opened:
        yield opened


def test_messages_are_those_of_the_golden_file() -> None:
    assert golden_rerank() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_only_the_first_ten_are_shown_with_the_beginning_of_their_answers() -> None:
    told = content("질문", [faq(f"제목 {number}", f"{number}번 " + "가" * 2_000) for number in range(1, 13)])
    assert re.findall(r'<faq number="(\d+)">', told) == [str(number) for number in range(1, RERANKED + 1)]
    assert re.findall(r"(\d+)번", told) == [str(number) for number in range(1, RERANKED + 1)]
    assert told.count("가") < RERANKED * ANSWER_CHARACTERS


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<", "</", "faq", "question", ">", " ", "fa", "q", "<faq>", "가"])).map("".join))
def test_no_text_makes_a_fence(text: str) -> None:
    tags = re.findall(r"<\s*(/?)\s*(faq|question)\b", content(text, [faq(text, text)]))
    assert tags == [("", "faq"), ("/", "faq"), ("", "question"), ("/", "question")]


@pytest.mark.parametrize(
    ("reply", "numbers"),
    [
        ("3, 1, 2", [3, 1, 2]),
        ("3,1", [3, 1]),
        ("3 > 1 > 2", [3, 1, 2]),
        ("[3][1]", [3, 1]),
        ("[3, 1, 2]", [3, 1, 2]),
        ("3번, 1번, 2번입니다.", [3, 1, 2]),
        ("3\n1\n2", [3, 1, 2]),
        ("관련도 순서: 3, 1", [3, 1]),
        ("3", [3]),
        ("3, 1, 3, 1", [3, 1]),
        ("0, 11, 3, 999", [3]),
        ("0", []),
        ("없음", []),
        ("", []),
        ("1. 3\n2. 1", []),
        ("FAQ 10개 가운데 3, 1입니다", []),
        ("0.9, 0.8", []),
        ("9" * 5_000, []),
    ],
)
def test_numbers_are_those_of_a_reply_that_lists_nothing_else(reply: str, numbers: list[int]) -> None:
    assert named_numbers(reply, 10) == numbers


@settings(deadline=None)
@given(
    st.one_of(
        st.text(), st.lists(st.sampled_from(["1", "2", "10", "0", ", ", "\n", ".", "번", "답", "١"])).map("".join)
    ),
    st.integers(0, 10),
)
def test_numbers_of_any_reply_are_in_range_and_named_once(reply: str, count: int) -> None:
    numbers = named_numbers(reply, count)
    assert set(numbers) <= set(range(1, count + 1))
    assert len(set(numbers)) == len(numbers)


@settings(deadline=None)
@given(st.lists(st.integers(1, 10), unique=True), st.sampled_from([", ", ",", " ", "\n", " > "]))
def test_numbers_that_were_listed_come_back(numbers: list[int], between: str) -> None:
    assert named_numbers(between.join(map(str, numbers)), 10) == numbers


async def test_numbers_that_are_not_named_keep_their_order_behind(model: AnswerModel) -> None:
    assert await rerank(model, "질문 [[reply: 9, 3]]", faqs(12), 10.0) == [9, 3, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12]


@pytest.mark.parametrize("reply", ["0", "없습니다", "11, 12"])
async def test_reply_that_names_no_faq_gives_no_order(model: AnswerModel, reply: str) -> None:
    assert await rerank(model, f"질문 [[reply: {reply}]]", faqs(12), 10.0) is None


@pytest.mark.parametrize("count", [0, 1])
async def test_fewer_than_two_faqs_are_not_asked_about(
    model: AnswerModel, model_server: ModelServer, count: int
) -> None:
    before = stats(model_server)["chat"]
    assert await rerank(model, "질문", faqs(count), 10.0) == list(range(1, count + 1))
    assert stats(model_server)["chat"] == before


@pytest.mark.parametrize("name", ["stub-429", "stub-500", "stub-401", "stub-hang", "stub-empty"])
async def test_failing_model_gives_no_order_and_is_asked_once(model_server: ModelServer, name: str) -> None:
    seconds = 1.0 if name == "stub-hang" else 10.0
    before = stats(model_server)["chat"]
    async with model_of(model_server.url, name, max_retries=2) as model:
        assert await rerank(model, "질문 [[reply: 2, 1]]", faqs(3), seconds) is None
    assert stats(model_server)["chat"] == before + 1
