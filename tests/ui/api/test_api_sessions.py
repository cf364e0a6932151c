"""Conversations over the API: whose they are, what is remembered, in a local file and in Redis."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from served import Served
from talking import MINOR, Client, only, said, scripted

SETTLEMENT = "정산은 언제 되나요?"
FOLLOW_UP = "그럼 서류는요?"


@pytest.fixture(params=["sqlite", "redis"])
def asker(request: pytest.FixtureRequest) -> Client:
    """Return a client of a server that keeps conversations in a local file, and of one that keeps them in Redis."""
    opened: Client = request.getfixturevalue({"sqlite": "client", "redis": "owner"}[request.param])
    return opened


def error(response: object) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]  # type: ignore[attr-defined]


def test_session_ids_are_unguessable_and_new_for_each_conversation(client: Client) -> None:
    ids = [client.reply(MINOR)["session_id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(len(bytes.fromhex(session_id)) * 8 >= 128 for session_id in ids)


@pytest.mark.parametrize("session_id", ["0" * 32, "내 대화", "../../etc/passwd", "*", "a:b", "x" * 200])
def test_session_that_the_server_did_not_issue_is_not_found(asker: Client, session_id: str) -> None:
    asked = asker.post("/api/chat", json={"question": MINOR, "session_id": session_id})
    whole = asker.post("/api/chat?stream=false", json={"question": MINOR, "session_id": session_id})
    assert error(asked) == error(whole) == (404, "not_found")
    if "/" not in session_id:
        assert error(asker.get(f"/api/sessions/{session_id}")) == (404, "not_found")
        assert error(asker.delete(f"/api/sessions/{session_id}")) == (404, "not_found")


def test_follow_up_is_understood_from_its_conversation(asker: Client) -> None:
    first = asker.reply(MINOR, model="extractive")
    alone = asker.reply(FOLLOW_UP, model="extractive")
    within = asker.reply(FOLLOW_UP, model="extractive", session_id=first["session_id"])
    assert within["session_id"] == first["session_id"]
    assert within["answer"]["kind"] == "answered"
    assert "동의" in within["answer"]["text"]
    assert within["answer"] != alone["answer"]
    turns = asker.turns(first["session_id"])
    assert [turn["question"] for turn in turns] == [MINOR, FOLLOW_UP]
    assert [turn["answer"] for turn in turns] == [first["answer"]["text"], within["answer"]["text"]]
    assert [turn["faq_ids"] for turn in turns] == [first["answer"]["citations"], within["answer"]["citations"]]
    assert {turn["kind"] for turn in turns} == {"answered"}


def test_another_conversation_is_never_seen(asker: Client) -> None:
    one, other = asker.reply(SETTLEMENT, model="extractive"), asker.reply(MINOR, model="extractive")
    assert [turn["question"] for turn in asker.turns(one["session_id"])] == [SETTLEMENT]
    assert [turn["question"] for turn in asker.turns(other["session_id"])] == [MINOR]


def test_deleted_conversation_is_gone(asker: Client) -> None:
    session_id = asker.reply(MINOR, model="extractive")["session_id"]
    deleted = asker.delete(f"/api/sessions/{session_id}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert error(asker.get(f"/api/sessions/{session_id}")) == (404, "not_found")
    assert error(asker.delete(f"/api/sessions/{session_id}")) == (404, "not_found")
    assert error(asker.post("/api/chat", json={"question": MINOR, "session_id": session_id})) == (404, "not_found")


def test_conversations_are_listed_the_last_used_first(asker: Client) -> None:
    ids = [asker.reply(MINOR, model="extractive")["session_id"] for _ in range(3)]
    asker.reply(MINOR, model="extractive", session_id=ids[0])
    listed = asker.get("/api/sessions", params={"limit": 3}).json()["sessions"]
    assert [one["session_id"] for one in listed] == [ids[0], ids[2], ids[1]]
    assert [one["turns"] for one in listed] == [2, 1, 1]
    assert listed[0]["used_at"] > listed[1]["used_at"] > listed[2]["used_at"]
    after = asker.get("/api/sessions", params={"limit": 1, "before": listed[0]["used_at"]}).json()["sessions"]
    assert after == [listed[1]]


def test_personal_data_is_not_kept(asker: Client) -> None:
    session_id = asker.reply(f"제 번호는 010-1234-5678 입니다. {MINOR}", model="extractive")["session_id"]
    (turn,) = asker.turns(session_id)
    assert "1234" not in turn["question"]


def test_listing_is_for_this_machine_where_no_key_is_configured(plain: Served) -> None:
    with plain.client() as here, plain.client(X_Forwarded_For="203.0.113.7") as elsewhere:
        assert here.get("/api/sessions").status_code == 200
        assert error(elsewhere.get("/api/sessions")) == (403, "forbidden")
        assert error(here.get("/api/sessions", headers={"Host": "evil.example"})) == (403, "forbidden")
        assert error(here.get("/api/sessions", headers={"Origin": "https://evil.example"})) == (403, "forbidden")
        assert elsewhere.reply(MINOR)["answer"]["kind"] == "answered"


def test_two_questions_at_once_on_one_session_keep_both_turns_in_order(talkative: Served) -> None:
    with talkative.client() as one, talkative.client() as other:
        session_id = one.reply(MINOR)["session_id"]
        asked = scripted(one, "하나 " * 100)
        with one.chat(**asked, session_id=session_id) as events, ThreadPoolExecutor(1) as thread:
            first = [next(events)]
            second = thread.submit(other.ask, SETTLEMENT, model="extractive", session_id=session_id)
            first += events
            answers = [said(first), said(second.result(30))]
        turns = one.turns(session_id)
    assert answers[0] == ("하나 " * 100).rstrip()
    assert [turn["answer"] for turn in turns[1:]] == answers
    assert [turn["question"] for turn in turns] == [MINOR, asked["question"], SETTLEMENT]


def test_ten_questions_at_once_on_one_session_lose_no_turn(plain: Served) -> None:
    questions = [f"{MINOR} {number}" for number in range(10)]
    with plain.client() as client:
        session_id = client.reply(MINOR)["session_id"]
        with ThreadPoolExecutor(10) as threads:
            found = list(threads.map(lambda question: client.ask(question, session_id=session_id), questions))
        turns = client.turns(session_id)
    assert {only(events, "started")["session_id"] for events in found} == {session_id}
    assert sorted(turn["question"] for turn in turns[1:]) == questions
    answers = {question: only(events, "answer")["text"] for question, events in zip(questions, found, strict=True)}
    assert all(turn["answer"] == answers[turn["question"]] for turn in turns[1:])
