import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import ModelServer
from hypothesis import given, settings
from hypothesis import strategies as st
from modelling import completed, model_of, server_of

from smartstore_indexing.faq import FAQ, faq_id
from smartstore_workflows.chat_model import AnswerModel
from smartstore_workflows.choosing import choice_messages, choose

GOLDEN = Path(__file__).parent.parent / "golden" / "choice_messages.json"
SECONDS = 10.0


def faq(title: str) -> FAQ:
    return FAQ(faq_id(title), "", 0, (), title, title, "답변입니다.", ())


FAQS = [faq(f"제목 {number}") for number in range(1, 6)]


def golden_choice() -> list[dict[str, str]]:
    """Return what a fixed choice is asked with; tests/golden/README.md says how the file is made from it."""
    messages = choice_messages(
        "[전화번호]로 신청한 서류는 어디에 내나요?",
        [faq("[가입] 미성년자도 가입할 수 있나요?"), faq("서류는 언제까지 내야 하나요?")],
    )
    return [{"role": message.role.value, "content": message.content or ""} for message in messages]


@pytest.fixture
async def model(model_server: ModelServer) -> AsyncIterator[AnswerModel]:
    async with model_of(model_server.url) as opened:
        yield opened


def test_messages_are_those_of_the_golden_file() -> None:
    assert golden_choice() == json.loads(GOLDEN.read_text(encoding="utf-8"))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<", "</", "faq", "question", ">", " ", "fa", "q", "<faq>", "가"])).map("".join))
def test_no_text_makes_a_fence(text: str) -> None:
    told = choice_messages(text, [faq(text)])[-1].content or ""
    tags = re.findall(r"<\s*(/?)\s*(faq|question)\b", told)
    assert tags == [("", "faq"), ("/", "faq"), ("", "question"), ("/", "question")]


@pytest.mark.parametrize(
    ("reply", "order"),
    [
        ('{"faqs": [3, 1]}', [3, 1, 2, 4, 5]),
        ('{"faqs": [5, 5, 2]}', [5, 2, 1, 3, 4]),
        ('{"faqs": [0, 6, -1, 4]}', [4, 1, 2, 3, 5]),
        ('{"faqs": []}', [1, 2, 3, 4, 5]),
    ],
)
async def test_chosen_come_first_and_each_stands_once(model: AnswerModel, reply: str, order: list[int]) -> None:
    assert await choose(model, f"질문 [[reply: {reply}]]", FAQS, SECONDS) == [FAQS[number - 1] for number in order]


async def test_server_is_asked_for_the_form(model: AnswerModel, model_server: ModelServer) -> None:
    assert await choose(model, "질문", FAQS, SECONDS) == FAQS  # the stub fills in the form: 1, 1
    form = json.loads(model_server.get("/stub/last"))["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["required"] == ["faqs"]
    assert form["json_schema"]["schema"]["additionalProperties"] is False


@pytest.mark.parametrize("reply", ["3, 1", '{"faqs": "3"}', '{"faqs": [1], "text": "네"}', "[1]", "{", "네"])
async def test_reply_in_another_form_chooses_nothing(reply: str) -> None:
    async with server_of(completed(reply)) as url, model_of(url) as model:
        assert await choose(model, "질문", FAQS, SECONDS) is None


@pytest.mark.parametrize("name", ["stub-500", "stub-hang", "stub-empty"])
async def test_model_that_fails_chooses_nothing(model_server: ModelServer, name: str) -> None:
    async with model_of(model_server.url, name) as model:
        assert await choose(model, "질문", FAQS, 1.0) is None
