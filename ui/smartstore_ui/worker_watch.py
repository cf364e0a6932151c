"""The port on which a worker tells how it is: /healthz, /readyz and /metrics, for whatever runs many of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smartstore_indexing.setting_groups import WorkerSettings
from smartstore_ui.api import answers
from smartstore_ui.api.health import healthz, states
from smartstore_ui.api.responses import json_response
from smartstore_ui.metrics import Metrics
from smartstore_ui.serving import bound

CLOSE_SECONDS = 1  # for requests that are being answered at the end
Checks = Mapping[str, Callable[[], Awaitable[object]]]  # of each dependency, by its name; a FaqError says it is away


class _Server(uvicorn.Server):
    """A server that leaves the signals to the worker."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def watchable(settings: WorkerSettings, metrics: Metrics, checks: Checks) -> AsyncIterator[None]:
    """Answer on the worker's port within the block; where none is set, do nothing.

    Raises:
        Misconfigured: the port is in use.
    """
    if not settings.port:
        yield
        return
    with bound(settings.host, settings.port) as (listener, _):
        server = _Server(
            uvicorn.Config(
                _application(metrics, checks),
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:  # not cancelled: uvicorn would leave its socket to the event loop, closed
            server.should_exit = True
            await serving


def _application(metrics: Metrics, checks: Checks) -> Starlette:
    async def readyz(request: Request) -> Response:
        found = await states({name: check() for name, check in checks.items()})
        ready = all(state == "ok" for state in found.values())
        return json_response(answers.Readiness(ready=ready, dependencies=found), status=200 if ready else 503)

    async def exposition(request: Request) -> Response:
        text, media_type = metrics.exposition()
        return Response(text, headers={"Content-Type": media_type})

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", exposition)])
