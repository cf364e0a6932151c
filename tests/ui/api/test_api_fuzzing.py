"""Random bodies and frames: never a 500, no word of what went wrong inside, and the server still answers after."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from served import Served
from talking import MINOR, Client, new_address
from websockets.sync.client import ClientConnection, connect

FEW, MANY = 250, 5_000  # of bodies, and of frames
LEAKS = re.compile(r"Traceback|Error\(|Exception|pydantic|starlette|smartstore_|site-packages|\.py\b|0x[0-9a-f]{6}")
END_MODEL = "the-end-of-this-frame"  # questions are answered in their order: its error comes last
END = json.dumps({"type": "ask", "question": "끝", "model": END_MODEL})
PATHS = ["/api/chat", "/api/chat?stream=false", "/api/feedback", "/api/index", "/v1/chat/completions"]
TEXT = st.text(max_size=40)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))
FIELDS = {
    "question": st.sampled_from(["정산", "반품 배송비는?", "맛집"]) | TEXT | JSON,
    "session_id": TEXT | JSON,
    "model": st.sampled_from(["extractive", "openai", "smartstore-faq"]) | JSON,
    "faq_id": st.sampled_from(["517a933a1cd23134", "0"]) | JSON,
    "run_id": TEXT | JSON,
    "score": st.sampled_from([1, -1, 0, 1.0, True]) | JSON,
    "comment": TEXT | JSON,
    "source": TEXT | JSON,
    "mode": st.sampled_from(["incremental", "full"]) | JSON,
    "messages": st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | TEXT},
            optional={"content": TEXT | JSON, "name": JSON},
        ),
        max_size=4,
    )
    | JSON,
    "stream": st.booleans() | JSON,
    "stream_options": st.fixed_dictionaries({"include_usage": JSON}) | JSON,
    "type": st.sampled_from(["ask", "cancel"]) | JSON,
}
NEAR = st.fixed_dictionaries({}, optional={name: FIELDS[name] for name in FIELDS})
FEW_FIELDS = st.lists(st.sampled_from(sorted(FIELDS)), max_size=3).flatmap(
    lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
)
BODIES = st.binary(max_size=300) | (JSON | NEAR | FEW_FIELDS).map(lambda value: json.dumps(value).encode())
checked = settings(
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def sane(text: str) -> bool:
    return not LEAKS.search(text)


def post(client: Client, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "X-Forwarded-For": new_address()}
    response = client.post(path, content=body, headers=headers)
    assert response.status_code in (200, 202, 204, 404, 422) or (path, response.status_code) == ("/api/index", 503)
    if response.is_error:
        error = response.json()["error"]
        assert error.keys() == {"code", "message", "request_id"}
        assert sane(error["message"])
    else:
        assert '"code":"internal"' not in response.text


class Frames:
    """A socket, and what comes of a frame."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def send(self, frame: str | bytes) -> None:
        """Send a frame, and read all that comes of it."""
        self._connection.send(frame)
        self._connection.send(END)
        events = [self._next()]
        while END_MODEL not in events[-1]["data"].get("message", ""):
            events.append(self._next())
        for event in events:
            assert event.keys() == {"id", "event", "data"}
            if event["event"] == "error":
                assert sane(event["data"]["message"])
                assert event["data"]["code"] != "internal"
        names = [event["event"] for event in events if event["event"] in ("started", "done", "error")]
        assert names in (["error"], ["error", "error"], ["started", "done", "error"])

    def _next(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self._connection.recv(timeout=30))
        return event if isinstance(event["data"], dict) else {**event, "data": {}}


@pytest.fixture
def frames(plain: Served) -> Iterator[Frames]:
    """Return a socket to the server without a model."""
    address = plain.url.replace("http://", "ws://") + "/api/chat/ws"
    headers = {"X-Forwarded-For": new_address()}
    # Its pings draw random numbers in a thread, which Hypothesis takes for a strategy's.
    with connect(address, additional_headers=headers, proxy=None, ping_interval=None) as connection:
        yield Frames(connection)


def still_answers(client: Client) -> bool:
    ready: httpx.Response = client.get("/readyz")
    return ready.is_success and client.reply(MINOR)["answer"]["kind"] == "answered"


def send_random_bodies(client: Client, count: int) -> None:
    @settings(checked, max_examples=count)
    @given(path=st.sampled_from(PATHS), body=BODIES)
    def send(path: str, body: bytes) -> None:
        post(client, path, body)

    send()
    assert still_answers(client)


def send_random_frames(frames: Frames, client: Client, count: int) -> None:
    @settings(checked, max_examples=count)
    @given(frame=st.text(max_size=300) | BODIES | BODIES.map(lambda body: body.decode("utf-8", "replace")))
    def send(frame: str | bytes) -> None:
        frames.send(frame)

    send()
    assert still_answers(client)


def test_random_bodies_get_no_500_and_no_leak(client: Client) -> None:
    send_random_bodies(client, FEW)


def test_random_frames_get_an_error_or_an_answer_and_no_leak(frames: Frames, client: Client) -> None:
    send_random_frames(frames, client, FEW)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_thousands_of_random_bodies_get_no_500_and_no_leak(client: Client) -> None:
    send_random_bodies(client, MANY)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_thousands_of_random_frames_get_an_error_or_an_answer_and_no_leak(frames: Frames, client: Client) -> None:
    send_random_frames(frames, client, MANY)
