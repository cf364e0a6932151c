"""The page's addresses: its HTML, its files, and of Chainlit's own routes those that it needs; nothing else is open."""

import re
import secrets
from pathlib import Path

import chainlit.server
from chainlit.server import app as chainlit_app
from chainlit.server import asgi_app as chainlit_sockets
from chainlit.server import get_html_template
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smartstore_indexing.errors import FaqError, Forbidden, TooLarge
from smartstore_ui.api.access import address
from smartstore_ui.api.context import Api
from smartstore_ui.api.requests import MAX_BODY_BYTES
from smartstore_ui.chat.assets import FOR_AN_HOUR, FOR_EVER, Folder
from smartstore_ui.chat.identity import Identity

OUTSIDE_LINK = re.compile(r'<link[^>]+href="https?://[^>]*>\s*')
POLICY_VIOLATION = 1008
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
PAGES = ("/", "/login", "/login/callback", "/thread/{id}", "/element/{id}")
# Of Chainlit's routes those for uploads, MCP, sharing and its copy of the page are left out.
CHAINLIT_ROUTES = {
    "/auth/config": ["GET"],
    "/auth/header": ["POST"],
    "/auth/jwt": ["POST"],
    "/auth/oauth/{provider}": ["GET"],
    "/auth/oauth/{provider}/callback": ["GET", "POST"],
    "/login": ["POST"],
    "/logout": ["POST"],
    "/user": ["GET"],
    "/set-session-cookie": ["POST"],
    "/project/translations": ["GET"],
    "/project/settings": ["GET"],
    "/project/threads": ["POST"],
    "/project/thread": ["PUT", "DELETE"],
    "/project/thread/{id}": ["GET"],
    "/project/action": ["POST"],
    "/feedback": ["PUT", "DELETE"],
}


def page_routes(api: Api, identity: Identity, home: Path) -> list[BaseRoute]:
    """Return the routes of the page whose folder is `home`."""
    chainlit_app.add_exception_handler(FaqError, _told)
    logo = home / "public" / "logo.svg"

    async def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        html = get_html_template("").replace('<html lang="en">', '<html lang="ko">')
        response = HTMLResponse(
            headers={"Content-Security-Policy": _content_policy(nonce), "Cache-Control": "no-store"}
        )
        if identity.welcome(request, response):
            html = html.replace("<html ", "<html data-guest ", 1)
        html = OUTSIDE_LINK.sub("", html).replace("<script>", f'<script nonce="{nonce}">')
        response.body = response.render(html)
        response.headers["Content-Length"] = str(len(response.body))
        return response

    async def picture(request: Request) -> Response:
        return FileResponse(logo, media_type="image/svg+xml", headers={"Cache-Control": FOR_AN_HOUR})

    async def widget(request: Request) -> Response:
        return FileResponse(
            home / "public" / "widget.html",
            headers={"Content-Security-Policy": _content_policy(), "Cache-Control": "no-store"},
        )

    built = Path(chainlit.server.build_dir)
    guarded = Guarded(chainlit_app, api)
    return [
        *(Route(path, page, methods=["GET"]) for path in PAGES),
        Route("/widget", widget, methods=["GET"]),
        *(Route(path, picture, methods=["GET"]) for path in ("/favicon", "/logo", "/avatars/{name}")),
        Route("/assets/{path:path}", Folder(built / "assets", lives=FOR_EVER).serve, methods=["GET"]),
        Route("/public/{path:path}", Folder(home / "public", lives=FOR_AN_HOUR).serve, methods=["GET"]),
        Route(
            "/copilot/{path:path}",
            Folder(Path(chainlit.server.copilot_build_dir), lives=FOR_AN_HOUR).serve,
            methods=["GET"],
        ),
        *(Route(path, guarded, methods=methods) for path, methods in CHAINLIT_ROUTES.items()),
        Mount("/ws/socket.io", Guarded(chainlit_sockets, api)),
    ]


class Guarded:
    """ASGI middleware before Chainlit: other sites' pages, large bodies and password guessing end here."""

    def __init__(self, app: ASGIApp, api: Api) -> None:
        """Stand before an application."""
        self._app = app
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket."""
        connection = HTTPConnection(scope)
        if scope["type"] == "websocket":
            try:
                self._api.access.same_origin(connection)
            except Forbidden:
                await send({"type": "websocket.close", "code": POLICY_VIOLATION})
                return
        elif scope["method"] not in SAFE_METHODS:
            self._api.access.same_origin(connection)
            if scope["path"] == "/login":
                await self._api.limiter.count(f"login:{address(connection)}")
        await self._app(scope, _bounded(receive), send)


def _bounded(receive: Receive) -> Receive:
    """Return a `receive` that raises TooLarge once a request's body is larger than any that the page sends."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                raise TooLarge(f"요청 본문은 {MAX_BODY_BYTES // 1024}KiB까지 보낼 수 있습니다.")
        return message

    return bounded


def _content_policy(nonce: str | None = None) -> str:
    """Return what the page may load: its own server's files alone.

    Chainlit runs an answer's footer through an interpreter of its own ('unsafe-eval'), and its parts write styles.
    """
    scripts = f"'nonce-{nonce}'" if nonce else ""
    return (
        f"default-src 'self'; script-src 'self' 'unsafe-eval' {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'self'; object-src 'none'"
    )


async def _told(_request: Request, error: Exception) -> Response:
    """Return an error of ours in the shape that Chainlit's page reads."""
    assert isinstance(error, FaqError)
    return JSONResponse({"detail": error.message}, error.status)
