"""WS /api/chat/ws: many turns on one socket, cancelling, what cannot be read, queueing, origins."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import wait_until
from served import KEYS, ORIGIN, PER_MINUTE, Served
from talking import MINOR, RESTAURANT, Client, new_address, only, scripted
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

LONG = "가나다 " * 450
SECONDS = 30.0


class Socket:
    """A socket to the chat, read as events."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, frame: str | bytes) -> None:
        self.connection.send(frame)

    def ask(self, question: str | None = None, **body: Any) -> None:
        self.send(json.dumps({"type": "ask", **({"question": question} if question else {}), **body}))

    def next(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.connection.recv(timeout=SECONDS))
        assert found.keys() == {"id", "event", "data"}
        return found

    def until(self, event: str) -> list[dict[str, Any]]:
        found = [self.next()]
        while found[-1]["event"] != event:
            found.append(self.next())
        return found


@contextmanager
def opened(served: Served, **headers: str) -> Iterator[Socket]:
    sent = {"X-Forwarded-For": new_address(), **headers}
    address = served.url.replace("http://", "ws://") + "/api/chat/ws"
    with connect(address, additional_headers=sent, proxy=None, max_size=None) as connection:
        yield Socket(connection)


@pytest.fixture
def socket(plain: Served) -> Iterator[Socket]:
    """Return a socket to the server without a model."""
    with opened(plain) as found:
        yield found


@pytest.fixture
def talking(talkative: Served) -> Iterator[Socket]:
    """Return a socket to the server with a model."""
    with opened(talkative) as found:
        yield found


def data_of(events: list[dict[str, Any]], name: str) -> Any:
    (found,) = [event["data"] for event in events if event["event"] == name]
    return found


def test_socket_carries_many_turns_with_the_streams_events(socket: Socket, client: Client) -> None:
    session_id = None
    for question, kind in ((MINOR, "answered"), ("그럼 서류는요?", "answered"), (RESTAURANT, "refused")):
        socket.ask(question, session_id=session_id)
        events = socket.until("done")
        assert [event["id"] for event in events] == list(range(1, len(events) + 1))
        assert events[0]["event"] == "started"
        assert data_of(events, "answer")["kind"] == kind
        assert session_id in (None, data_of(events, "started")["session_id"])
        session_id = data_of(events, "started")["session_id"]
    resumed = client.resume(data_of(events, "started")["run_id"])
    assert [(event.id, event.name, event.data) for event in resumed] == [tuple(event.values()) for event in events]
    assert [turn["question"] for turn in client.turns(str(session_id))] == [MINOR, "그럼 서류는요?", RESTAURANT]


def test_questions_wait_for_the_ones_before_them(socket: Socket) -> None:
    for number in range(4):
        socket.ask(f"{MINOR} {number}")
    runs = [socket.until("done") for _ in range(4)]
    assert len({data_of(events, "started")["run_id"] for events in runs}) == 4
    assert all([event["event"] for event in events].count("started") == 1 for events in runs)


def test_too_many_waiting_questions_are_refused_and_the_others_answered(talking: Socket, listener: Client) -> None:
    talking.ask(**scripted(listener, LONG))
    started = talking.until("token")
    for _ in range(10):
        talking.ask(MINOR, model="extractive")
    refused = list(itertools.islice((event for event in iter(talking.next, None) if event["event"] == "error"), 2))
    assert [event["data"]["code"] for event in refused] == ["overloaded", "overloaded"]
    assert all(event["data"]["retryable"] for event in refused)
    talking.send(json.dumps({"type": "cancel", "run_id": data_of(started, "started")["run_id"]}))
    talking.until("done")
    assert [data_of(talking.until("done"), "answer")["kind"] for _ in range(8)] == ["answered"] * 8


def test_cancel_stops_the_run_and_the_socket_goes_on(talking: Socket, listener: Client) -> None:
    talking.ask(**scripted(listener, LONG))
    run_id = data_of(talking.until("token"), "started")["run_id"]
    talking.send(json.dumps({"type": "cancel", "run_id": run_id}))
    events = talking.until("done")
    assert data_of(events, "error")["code"] == "cancelled"
    assert not [event for event in events if event["event"] == "answer"]
    talking.ask(MINOR, model="extractive")
    assert data_of(talking.until("done"), "answer")["kind"] == "answered"


def test_cancel_of_another_sockets_run_changes_nothing(talkative: Served, talking: Socket, listener: Client) -> None:
    talking.ask(**scripted(listener, "하나 " * 100))
    run_id = data_of(talking.until("token"), "started")["run_id"]
    with opened(talkative) as other:
        other.send(json.dumps({"type": "cancel", "run_id": run_id}))
        other.ask(MINOR, model="extractive")
        other.until("done")
    assert data_of(talking.until("done"), "answer")["text"] == ("하나 " * 100).rstrip()


def test_client_that_closes_the_socket_stops_its_run(talkative: Served, listener: Client) -> None:
    with opened(talkative) as leaving:
        leaving.ask(**scripted(listener, LONG))
        run_id = data_of(leaving.until("token"), "started")["run_id"]
    wait_until(lambda: listener.metric("smartstore_live_runs") == 0, 5.0)
    assert only(listener.resume(run_id), "error")["code"] == "cancelled"


BAD: dict[str, str | bytes] = {
    "no JSON": "정산은 언제 되나요?",
    "empty": "",
    "an array": "[]",
    "a string": '"ask"',
    "null": "null",
    "binary": b"\x00\xff",
    "binary JSON": json.dumps({"type": "ask", "question": MINOR}).encode(),
    "no type": "{}",
    "an unknown type": '{"type": "answer"}',
    "a type that is no string": '{"type": ["ask"]}',
    "a question without text": '{"type": "ask", "question": " !? "}',
    "a question that is no string": '{"type": "ask", "question": 1}',
    "a question too long": json.dumps({"type": "ask", "question": "가" * 2_001}),
    "a field too many": '{"type": "ask", "question": "정산", "stream": true}',
    "half a surrogate": '{"type": "ask", "question": "\\ud800"}',
    "an unknown session": '{"type": "ask", "question": "정산", "session_id": "x"}',
    "an unknown model": '{"type": "ask", "question": "정산", "model": "x"}',
    "cancel of nothing": '{"type": "cancel"}',
    "deep": "[" * 30_000,
}


@pytest.mark.parametrize("frame", BAD.values(), ids=BAD)
def test_frame_that_cannot_be_used_is_answered_with_an_error(socket: Socket, frame: str | bytes) -> None:
    socket.send(frame)
    event = socket.next()
    assert event["event"] == "error"
    assert event["data"].keys() == {"code", "message", "retryable", "request_id"}
    assert event["data"]["code"] in ("invalid_request", "not_found", "model_not_found")
    assert event["data"]["retryable"] is False
    socket.ask(MINOR)
    assert data_of(socket.until("done"), "answer")["kind"] == "answered"


def test_frame_that_is_too_large_closes_its_socket_alone(plain: Served, socket: Socket) -> None:
    with opened(plain) as other:
        other.ask("가" * 40_000)
        with pytest.raises(ConnectionClosed, match="1009"):
            other.next()
    socket.ask(MINOR)
    assert data_of(socket.until("done"), "answer")["kind"] == "answered"


def test_page_of_another_origin_is_turned_away(plain: Served) -> None:
    with pytest.raises(InvalidStatus) as refused, opened(plain, Origin="https://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    with opened(plain, Origin=plain.url) as own:
        own.ask(MINOR)
        own.until("done")


def test_socket_needs_the_key_where_one_is_required(guarded: Served) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        with pytest.raises(InvalidStatus) as refused, opened(guarded, **headers):
            pass
        assert refused.value.response.status_code == 403
    with opened(guarded, Authorization=f"Bearer {KEYS[0]}", Origin=ORIGIN) as found:
        found.ask(MINOR, model="extractive")
        assert data_of(found.until("done"), "answer")["kind"] == "answered"


def test_questions_on_a_socket_count_as_requests(talkative: Served) -> None:
    with opened(talkative) as found:
        answers = []
        for _ in range(PER_MINUTE + 1):
            found.ask(MINOR, model="extractive")
            event = found.next()
            answers.append(event["data"].get("code", event["event"]))
            if event["event"] == "started":
                found.until("done")
    assert answers == ["started"] * PER_MINUTE + ["too_many_requests"]
