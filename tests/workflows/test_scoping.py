import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import ModelServer
from hypothesis import given, settings
from hypothesis import strategies as st
from modelling import completed, model_of, sent, server_of

from smartstore_indexing.faq import FAQ, faq_id
from smartstore_workflows.chat_model import AnswerModel
from smartstore_workflows.scope import UNCERTAIN, Judgement
from smartstore_workflows.scoping import SHOWN, in_scope, scope_messages

GOLDEN = Path(__file__).parent.parent / "golden" / "scope_messages.json"
SECONDS = 10.0


def faq(title: str) -> FAQ:
    return FAQ(faq_id(title), "", 0, (), title, title, "답변입니다.", ())


def golden_scope() -> list[dict[str, str]]:
    """Return what a fixed question is judged with; tests/golden/README.md says how the file is made from it."""
    messages = scope_messages("강아지 간식 만드는 법 알려 줘", [faq("[상품] 반려동물 간식도 등록할 수 있나요?")])
    return [{"role": message.role.value, "content": message.content or ""} for message in messages]


@pytest.fixture
async def model(model_server: ModelServer) -> AsyncIterator[AnswerModel]:
    async with model_of(model_server.url) as opened:
        yield opened


def test_messages_are_those_of_the_golden_file() -> None:
    assert golden_scope() == json.loads(GOLDEN.read_text(encoding="utf-8"))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<", "</", "faq", "question", ">", " ", "fa", "q", "<faq>", "가"])).map("".join))
def test_no_text_makes_a_fence(text: str) -> None:
    told = scope_messages(text, [faq(text)])[-1].content or ""
    tags = re.findall(r"<\s*(/?)\s*(faq|question)\b", told)
    assert tags == [("", "faq"), ("/", "faq"), ("", "question"), ("/", "question")]


async def test_only_the_titles_of_the_first_are_shown(model: AnswerModel, model_server: ModelServer) -> None:
    await in_scope(model, "질문", [faq(f"제목 {number}") for number in range(9)], SECONDS)
    told = sent(model_server)[-1]["content"]
    assert told.count("<faq ") == SHOWN
    assert "답변입니다" not in told


@pytest.mark.parametrize(
    ("reply", "inside"),
    [
        ("예", True),
        ("예.", True),
        ('"예"', True),
        ("네\n", True),
        ("예입니다.", True),
        ("아니요", False),
        ("아니오.", False),
        ("아니요입니다", False),
        ("예, 아니요", None),
        ("판매자의 질문이므로 예", None),
        ("3", None),
    ],
)
async def test_reply_is_yes_or_no_or_nothing(reply: str, inside: bool | None) -> None:
    async with server_of(completed(reply)) as url, model_of(url) as model:
        assert await in_scope(model, "질문", [], SECONDS) is inside


@pytest.mark.parametrize("name", ["stub-500", "stub-hang", "stub-empty"])
async def test_model_that_fails_judges_nothing(model_server: ModelServer, name: str) -> None:
    async with model_of(model_server.url, name) as model:
        assert await in_scope(model, "질문", [], 1.0) is None


@pytest.mark.parametrize(("in_scope", "uncertain"), [(0.0, False), (UNCERTAIN[0], True), (0.5, True), (0.8, False)])
def test_what_is_sure_is_not_asked_about(in_scope: float, uncertain: bool) -> None:
    assert Judgement("answered", in_scope=in_scope, found=1.0).uncertain is uncertain
