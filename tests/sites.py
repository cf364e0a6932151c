"""Small web sites on loopback: a shop's page that has the chat in it, a provider to sign in with, a model for show."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

HTML, JSON = "text/html; charset=utf-8", "application/json"
FIRST_TOKEN_SECONDS, TOKEN_SECONDS, SLOW_SECONDS, PIECE = 1.5, 0.05, 1.5, 3
Answer = tuple[int, dict[str, str], str]


@contextmanager
def site(answer: Callable[[str, dict[str, str]], Answer]) -> Iterator[str]:
    """Serve what `answer` returns for a path and its parameters or form, and yield the site's origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(urlsplit(self.path).query)

        def do_POST(self) -> None:
            self._reply(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Keep the tests' output readable."""

        def _reply(self, parameters: str) -> None:
            given = {name: values[0] for name, values in parse_qs(parameters).items()}
            status, headers, body = answer(urlsplit(self.path).path, given)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

    with _served(Handler) as origin:
        yield origin


@contextmanager
def shop(chat_url: Callable[[], str]) -> Iterator[str]:
    """Serve a page that has the widget of the chat in it."""

    def answer(path: str, _given: dict[str, str]) -> Answer:
        script = f'<script src="{chat_url()}/public/widget.js" defer></script>'
        head = '<!doctype html><html lang="ko"><head><link rel="icon" href="data:,"></head>'
        page = f"{head}<body>판매자센터{script}</body></html>"
        return (200, {"Content-Type": HTML}, page) if path == "/" else (404, {}, "")

    with site(answer) as origin:
        yield origin


@contextmanager
def oauth_provider(secret: str, name: str) -> Iterator[str]:
    """Serve an OAuth 2 provider where everybody who comes is `name`, and says so without being asked."""
    code, token = "code-of-the-tests", "token-of-the-tests"

    def answer(path: str, given: dict[str, str]) -> Answer:
        if path == "/authorize":
            back = urlencode({"code": code, "state": given["state"]})
            return 302, {"Location": f"{given['redirect_uri']}?{back}"}, ""
        if path == "/token" and (given["code"], given["client_secret"]) == (code, secret):
            return 200, {"Content-Type": JSON}, json.dumps({"access_token": token})
        if path == "/user":
            return 200, {"Content-Type": JSON}, json.dumps({"email": name})
        return 400, {}, ""

    with site(answer) as origin:
        yield origin


@contextmanager
def storyteller(model: str, text: str, *, slow_for: str) -> Iterator[str]:
    """Serve a model that streams one text at a reader's pace, and for a question with `slow_for` in it far slower."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            pause = SLOW_SECONDS if slow_for in str(asked["messages"]) else TOKEN_SECONDS
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            with suppress(ConnectionError):  # the bot hung up: its question was stopped
                time.sleep(FIRST_TOKEN_SECONDS)
                for start in range(0, len(text), PIECE):
                    self._say({"content": text[start : start + PIECE]})
                    time.sleep(pause)
                self._say({}, "stop")
                self.wfile.write(b"data: [DONE]\n\n")

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Keep the output readable."""

        def _say(self, delta: dict[str, str], finish: str | None = None) -> None:
            part = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": model}
            part |= {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
            self.wfile.write(f"data: {json.dumps(part)}\n\n".encode())

    with _served(Handler) as origin:
        yield f"{origin}/v1"


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.socket.close()  # server_close would wait for answers that are still being written
        thread.join()
