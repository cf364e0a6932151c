"""A browser's socket without the browser: the page's protocol, spoken by a client that takes little of its work."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import socketio

PATH = "ws/socket.io"
CONNECT_SECONDS, ANSWER_SECONDS = 10, 60.0


@dataclass
class PageSocket:
    """One open chat: what it was sent, by name."""

    session_id: str
    received: list[tuple[str, Any]] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    client: socketio.AsyncClient = field(default_factory=lambda: socketio.AsyncClient(reconnection=False))

    async def ask(self, question: str) -> None:
        """Send a question and wait for the end of its answer."""
        message = {"id": str(uuid.uuid4()), "threadId": "", "name": "User", "type": "user_message", "output": question}
        message["createdAt"] = datetime.now(UTC).isoformat()
        self.done.clear()
        await self.client.emit("client_message", {"message": message, "fileReferences": []})
        await asyncio.wait_for(self.done.wait(), ANSWER_SECONDS)

    def steps(self, kind: str) -> list[dict[str, Any]]:
        """Return the steps of a type that were sent, as they were last."""
        found = {
            data["id"]: data
            for name, data in self.received
            if name in ("new_message", "update_message") and data["type"] == kind
        }
        return list(found.values())

    def _note(self, name: str, data: Any) -> None:
        self.received.append((name, data))
        if name == "element":  # what stands under an answer comes last
            self.done.set()


def cookies_of(url: str) -> str:
    """Return the cookies that a browser gets which opens the page for the first time."""
    answer = httpx.get(url, timeout=ANSWER_SECONDS)
    return "; ".join(f"{name}={value}" for name, value in answer.cookies.items())


@asynccontextmanager
async def connected(
    url: str,
    cookies: str,
    *,
    session_id: str | None = None,
    thread_id: str = "",
    profile: str = "openai",
    origin: str | None = None,
) -> AsyncIterator[PageSocket]:
    """Connect as the page does; socketio.exceptions.ConnectionError where that is refused."""
    socket = PageSocket(session_id or str(uuid.uuid4()))
    socket.client.on("*", socket._note)
    auth = {
        "clientType": "webapp",
        "sessionId": socket.session_id,
        "threadId": thread_id,
        "userEnv": "{}",
        "chatProfile": profile,
    }
    headers = {"Cookie": cookies, "Origin": origin or url}
    try:
        await socket.client.connect(url, headers, auth, ["websocket"], socketio_path=PATH, wait_timeout=CONNECT_SECONDS)
        await socket.client.emit("connection_successful")
        yield socket
    finally:
        await socket.client.disconnect()
        if (http := socket.client.eio.http) is not None:
            await http.close()
