"""What surrounds every request: its id in each log line, its metrics, and the headers that browsers heed."""

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smartstore_ui.metrics import Metrics
from smartstore_workflows.masking import mask
from smartstore_workflows.run_events import new_id

log = structlog.get_logger(__name__)
REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
PROBES = {"/healthz", "/readyz", "/metrics"}  # asked for every few seconds
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Watching:
    """ASGI middleware that names, counts and logs requests."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, routes: list[BaseRoute]) -> None:
        """Wrap an application; `routes` give the names under which requests are counted."""
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) and mask(given) == given else new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        await self._http(scope, receive, send, request_id)

    async def _http(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        status, started = 500, time.perf_counter()
        route = self._route(scope)  # now: a mounted application changes the scope's path

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.request(method=scope["method"], route=route, status=status, seconds=seconds)
            tell = log.debug if route in PROBES else log.info
            tell(
                "request served", method=scope["method"], route=route, status=status, milliseconds=round(seconds * 1e3)
            )

    def _route(self, scope: Scope) -> str | None:
        """Return the template of the route that a request fits, never its raw path; None where there is none."""
        for route in self._routes:
            if route.matches(scope)[0] is not Match.NONE:
                return str(getattr(route, "path", None))
        return None
