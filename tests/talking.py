"""What talks to a served bot: a client with an address of its own, and the events that it reads."""

import codecs
import itertools
import json
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

LINE_END = re.compile("\r\n|\n|\r")
MINOR = "미성년자도 판매 회원 등록이 가능한가요?"
RESTAURANT = "오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?"
UNANSWERED = "정산 대금을 비트코인으로 받을 수 있나요?"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # else every client reads the machine's certificates: 50 ms
_addresses = itertools.count(1)


@dataclass(frozen=True)
class Event:
    """One server-sent event; a comment is named "comment" and has no id."""

    id: int
    name: str
    data: Any


def read_events(parts: Iterator[bytes]) -> Iterator[Event]:
    """Yield the events of a body, read as the HTML standard says: lines end in LF, CR or both, an empty one sends."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    rest, fields = "", dict[str, list[str]]()
    for part in parts:
        *lines, rest = LINE_END.split(rest + decode(part))
        for line in lines:
            name, _, value = line.partition(":")
            if line.startswith(":"):
                yield Event(0, "comment", value)
            elif line:
                fields.setdefault(name, []).append(value.removeprefix(" "))
            elif "data" in fields:
                yield Event(int(fields["id"][-1]), fields["event"][-1], json.loads("\n".join(fields["data"])))
                fields = {}
            else:
                fields = {}
    assert (rest, fields) == ("", {}), "the stream ends in the middle of an event"


def events_of(response: httpx.Response) -> Iterator[Event]:
    """Yield the events of a streamed response, heartbeats left out."""
    assert response.status_code == 200, response.read().decode()
    assert response.headers["content-type"].startswith("text/event-stream")
    return (event for event in read_events(response.iter_bytes()) if event.name != "comment")


def only(events: list[Event], name: str) -> Any:
    """Return the data of the one event of that name."""
    (found,) = [event.data for event in events if event.name == name]
    return found


def said(events: list[Event]) -> str:
    """Return the text of the tokens since the last restart."""
    restarts = [place for place, event in enumerate(events) if event.name == "restart"]
    return "".join(event.data["text"] for event in events[restarts[-1] if restarts else 0 :] if event.name == "token")


class Client(httpx.Client):
    """A client with a loopback address of its own, which a trusted proxy, the test, names."""

    def __init__(self, url: str, **headers: str) -> None:
        """Talk to the server at `url`, with these headers in every request."""
        super().__init__(
            base_url=url,
            headers={"X-Forwarded-For": new_address(), **{name.replace("_", "-"): of for name, of in headers.items()}},
            timeout=60.0,
            trust_env=False,
            verify=NO_TLS,
        )

    @contextmanager
    def chat(self, **body: Any) -> Iterator[Iterator[Event]]:
        """Ask, and yield the events as they come; leaving the block hangs up."""
        with self.stream("POST", "/api/chat", json=body) as response:
            yield events_of(response)

    def ask(self, question: str, **body: Any) -> list[Event]:
        """Ask, and return all events of the answer."""
        with self.chat(question=question, **body) as events:
            return list(events)

    def reply(self, question: str, **body: Any) -> dict[str, Any]:
        """Ask with ?stream=false, and return the document."""
        response = self.post("/api/chat?stream=false", json={"question": question, **body})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def resume(self, run_id: str, after: int | None = None) -> list[Event]:
        """Return what a run said after an event, to its end."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self.stream("GET", f"/api/runs/{run_id}/events", headers=headers) as response:
            return list(events_of(response))

    def turns(self, session_id: str) -> list[dict[str, Any]]:
        """Return the turns of a conversation."""
        response = self.get(f"/api/sessions/{session_id}")
        assert response.status_code == 200, response.text
        found: list[dict[str, Any]] = response.json()["turns"]
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Return a figure of /metrics, 0 where it is not shown yet."""
        shown = "".join(sorted(f'{label}="{of}"' for label, of in labels.items()))
        for line in self.get("/metrics").text.splitlines():
            found = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name and "".join(sorted(re.findall(r'\w+="[^"]*"', found[2] or ""))) == shown:
                return float(found[3])
        return 0.0


def new_address() -> str:
    """Return a loopback address that no client had before."""
    number = next(_addresses)
    return f"127.{1 + number // 65_536}.{number // 256 % 256}.{number % 256}"


def scripted(client: Client, text: str) -> dict[str, Any]:
    """Return the body of a question that the scripted model answers with this text, whatever it says."""
    found = client.get("/api/search", params={"q": MINOR, "k": 1})
    return {"question": f"알려 주세요 [[reply: {text}]]", "faq_id": found.json()["results"][0]["id"]}
