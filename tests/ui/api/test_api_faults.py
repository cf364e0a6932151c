"""A model that fails: every question still ends with a useful answer, in bounded time."""

import time

import pytest
from served import ModelSwitch
from talking import Client, only, said, scripted

SAID = "하나 둘 셋 넷 다섯 여섯 일곱"
FAULTS = {
    "stub-401": "키를 거절했습니다",
    "stub-429": "사용 한도를 넘었습니다",
    "stub-500": "서버에 오류가 있습니다",
    "stub-hang": "제한 시간 안에 답하지 않았습니다",
    "stub-cut": "서버에 오류가 있습니다",
    "stub-empty": "빈 답변을 보냈습니다",
}
BOUND_SECONDS = 8.0  # 2.5 for a call with its retries; the rest is for a busy machine


@pytest.mark.parametrize("name", FAULTS)
def test_fault_ends_in_the_faqs_answer(listener: Client, switch: ModelSwitch, name: str) -> None:
    body = scripted(listener, SAID)
    errors = listener.metric("smartstore_model_errors_total", model=ModelSwitch.NAME.decode())
    began = time.monotonic()
    with switch.model(name):
        events = listener.ask(**body)
    assert time.monotonic() - began < BOUND_SECONDS
    names = [event.name for event in events]
    assert "error" not in names
    assert FAULTS[name] in only(events, "restart")["reason"]
    before = names[: names.index("restart")]
    assert ("token" in before) == (name == "stub-cut")
    answer = only(events, "answer")
    assert (answer["kind"], answer["degraded"], answer["model"]) == ("answered", True, "extractive")
    assert answer["citations"] == [body["faq_id"]]
    assert said(events) == answer["text"]
    assert "법정대리인" in answer["text"]
    assert only(events, "suggestions")
    assert listener.metric("smartstore_model_errors_total", model=ModelSwitch.NAME.decode()) == errors + 1


@pytest.mark.parametrize("name", ["stub-401", "stub-cut"])
def test_whole_answer_of_a_faulty_model_is_the_faqs(listener: Client, switch: ModelSwitch, name: str) -> None:
    with switch.model(name):
        reply = listener.reply(**scripted(listener, SAID))
    assert (reply["answer"]["kind"], reply["answer"]["degraded"]) == ("answered", True)
    assert SAID[:2] not in reply["answer"]["text"]
    (turn,) = listener.turns(reply["session_id"])
    assert turn["answer"] == reply["answer"]["text"]


def test_model_that_fails_once_is_asked_again(listener: Client, switch: ModelSwitch) -> None:
    with switch.model("stub-flaky"):
        events = listener.ask(**scripted(listener, SAID))
    assert only(events, "answer")["degraded"] is False
    assert said(events) == SAID
    assert "restart" not in [event.name for event in events]


def test_model_is_used_again_once_it_is_well(listener: Client, switch: ModelSwitch) -> None:
    with switch.model("stub-500"):
        assert listener.reply(**scripted(listener, SAID))["answer"]["degraded"] is True
    assert listener.reply(**scripted(listener, SAID))["answer"]["text"] == SAID


def test_degraded_answer_is_not_given_again(listener: Client, switch: ModelSwitch) -> None:
    question = "택배가 분실되면 누가 책임지나요?"
    with switch.model("stub-401"):
        first = listener.reply(question)
    again = listener.reply(question)
    assert first["answer"]["kind"] == again["answer"]["kind"] == "answered"
    assert (first["answer"]["degraded"], again["answer"]["degraded"]) == (True, False)
    assert again["answer"]["cached"] is False
    assert listener.reply(question)["answer"]["cached"] is True


def test_reasoning_is_not_the_answer(listener: Client, switch: ModelSwitch) -> None:
    with switch.model("stub-reasoning"):  # its thoughts come in a field of their own
        assert listener.reply(**scripted(listener, SAID))["answer"]["text"] == SAID
