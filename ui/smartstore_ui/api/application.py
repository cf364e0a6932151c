"""The Starlette application: its routes, and what surrounds every request."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp

from smartstore_ui.api import chat, documents, health, indexing, knowledge, openai_api, sockets
from smartstore_ui.api.context import Api
from smartstore_ui.api.errors import HANDLERS
from smartstore_ui.api.watching import Watching

API: list[BaseRoute] = [
    Route("/api/chat", chat.chat, methods=["POST"]),
    WebSocketRoute("/api/chat/ws", sockets.chat_socket),
    Route("/api/runs/{run_id}/events", chat.resume, methods=["GET"]),
    Route("/api/runs/{run_id}", chat.stop, methods=["DELETE"]),
    Route("/api/search", knowledge.search, methods=["GET"]),
    Route("/api/sessions", knowledge.sessions, methods=["GET"]),
    Route("/api/sessions/{session_id}", knowledge.session, methods=["GET"]),
    Route("/api/sessions/{session_id}", knowledge.forget, methods=["DELETE"]),
    Route("/api/feedback", chat.feedback, methods=["POST"]),
    Route("/api/index", indexing.index, methods=["POST"]),
    Route("/api/index/{job_id}", indexing.job, methods=["GET"]),
    Route("/api/index/{job_id}/events", indexing.job_events, methods=["GET"]),
    Route("/v1/chat/completions", openai_api.completions, methods=["POST"]),
    Route("/v1/models", openai_api.models, methods=["GET"]),
    *documents.ROUTES,
]
WATCHED: list[BaseRoute] = [
    Route("/healthz", health.healthz, methods=["GET"]),
    Route("/readyz", health.readyz, methods=["GET"]),
    Route("/metrics", health.metrics, methods=["GET"]),
]


def application(api: Api, routes: Sequence[BaseRoute] = API) -> ASGIApp:
    """Return the application over what is open; what watches stands outside, so that it sees every response.

    `routes` are the API's, the chat page's or both; those that watch the process are always there.
    """
    routes = [*WATCHED, *routes]
    middleware = []
    if origins := api.settings.server.origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=sorted(origins),
                allow_methods=["GET", "POST", "PUT", "DELETE"],
                allow_credentials="*" not in origins,  # the page's cookie, for a widget on a site that is named
                allow_headers=["Authorization", "Content-Type", "Last-Event-ID", "X-Request-ID"],
                expose_headers=["X-Request-ID", "Retry-After"],
            )
        )
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=HANDLERS)
    app.router.redirect_slashes = False  # an address with a slash too many is a JSON 404 as any other
    app.state.api = api
    return Watching(app, metrics=api.metrics, routes=routes)
