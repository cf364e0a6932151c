"""What the queues' messages may say, and how the others are refused."""

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartstore_indexing import summaries
from smartstore_indexing.errors import InvalidRequest
from smartstore_indexing.messages import (
    MAX_BODY_BYTES,
    AnswerRequested,
    IndexFailed,
    IndexProgress,
    IndexRequested,
    IndexSucceeded,
    IndexSummary,
    Message,
    read,
    written,
)

INDEX = {"request_id": "a1", "source": None, "mode": "full", "requested_by": "관리자"}
ANSWER = {
    "run_id": "r1",
    "session_id": "s1",
    "question": "반품은 어떻게 하나요?",
    "faq_id": None,
    "model": None,
    "deadline": 1_800_000_000.5,
}
SUMMARY = IndexSummary(
    added=1,
    changed=0,
    removed=0,
    unchanged=2,
    duplicates=0,
    embedded=1,
    faqs=3,
    version="v",
    switched=True,
    seconds=0.5,
)
SECRET = "비밀010"


def body(fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    "message",
    [
        IndexRequested(request_id="a", source="https://example.com/faq.csv", mode="incremental", requested_by="b"),
        IndexProgress(request_id="a", stage="embed", done=1, total=2),
        IndexSucceeded(request_id="a", summary=SUMMARY),
        IndexFailed(request_id="a", code="index_rejected", message="색인하지 못했습니다."),
        AnswerRequested(run_id="a", session_id="세션", question=None, faq_id="f", model="openai", deadline=1.0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_message_is_read_as_it_was_written(message: Message) -> None:
    assert read(type(message), written(message)) == message


def test_summary_says_what_the_builder_says() -> None:
    assert list(IndexSummary.model_fields) == [field.name for field in fields(summaries.IndexSummary)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mode": SECRET}, "mode 항목의 값이 올바르지 않습니다."),
        ({"request_id": f"../{SECRET}"}, "request_id 항목의 값이 올바르지 않습니다."),
        ({"request_id": "a\n"}, "request_id 항목의 값이 올바르지 않습니다."),
        ({"source": 7}, "source 항목의 값이 올바르지 않습니다."),
        ({"source": SECRET * 1_000}, "source 항목의 값이 올바르지 않습니다."),
        ({"source": ""}, "source 항목의 값이 올바르지 않습니다."),
        ({SECRET: 1}, "모르는 항목이 있습니다."),
    ],
    ids=lambda value: str(value)[:20].encode("unicode_escape").decode(),
)
def test_field_that_is_wrong_is_named_and_its_content_is_not(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read(IndexRequested, body(INDEX | changes))
    assert refusal.value.message == reason
    assert refusal.value.__cause__ is refusal.value.__context__ is None


@pytest.mark.parametrize("field", INDEX)
def test_field_that_is_missing_is_named(field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read(IndexRequested, body({name: value for name, value in INDEX.items() if name != field}))
    assert refusal.value.message == f"{field} 항목이 없습니다."


@pytest.mark.parametrize(
    "changes",
    [
        {"deadline": "1800000000"},
        {"deadline": True},
        {"deadline": float("nan")},
        {"deadline": float("inf")},
        {"deadline": 0},
        {"question": ""},
        {"question": "가" * 2_001},
        {"question": None},
        {"run_id": "a b"},
        {"run_id": ""},
        {"session_id": "s" * 201},
        {"session_id": None},
    ],
    ids=lambda changes: str(changes)[:24].encode("unicode_escape").decode(),
)
def test_answer_request_of_another_form_is_refused(changes: dict[str, object]) -> None:
    read(AnswerRequested, body(ANSWER))
    with pytest.raises(InvalidRequest):
        read(AnswerRequested, body(ANSWER | changes))


def test_body_of_more_than_64_kib_is_refused_unread() -> None:
    whole = body(INDEX)
    assert read(IndexRequested, whole + b" " * (MAX_BODY_BYTES - len(whole))).request_id == "a1"
    with pytest.raises(InvalidRequest, match="64KiB"):
        read(IndexRequested, whole + b" " * (MAX_BODY_BYTES + 1 - len(whole)))


@given(st.one_of(st.binary(max_size=300), st.recursive(st.none() | st.text() | st.integers(), st.lists).map(body)))
def test_other_bodies_are_refused_in_korean_and_nothing_else_is_raised(other: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"[가-힣]"):
        read(IndexRequested, other)


@pytest.mark.parametrize(
    "other",
    [b"[" * 60_000, b'{"a":' * 10_000, b"\xff\xfe", b'"\\ud800"', b""],
    ids=["lists", "objects", "bytes", "surrogate", "nothing"],
)
def test_body_that_is_no_json_is_called_so(other: bytes) -> None:
    with pytest.raises(InvalidRequest, match="JSON"):
        read(IndexRequested, other)
