"""Whether the process lives, whether it can answer, and its metrics."""

import asyncio
from collections.abc import Awaitable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from smartstore_indexing.errors import FaqError
from smartstore_indexing.queues import ANSWERS, BATCH, INDEX
from smartstore_indexing.settings import QUEUE
from smartstore_ui.api import answers
from smartstore_ui.api.context import Api, api_of
from smartstore_ui.api.responses import json_response

CHECK_SECONDS = 3.0


async def healthz(request: Request) -> Response:
    """The process lives."""
    return json_response(answers.Health())


async def readyz(request: Request) -> Response:
    """Each dependency; 503 unless questions can be answered.

    Without Redis they can, without memory, but not where workers answer them.
    """
    api = api_of(request)
    services = api.bot.services
    checks: dict[str, Awaitable[object]] = {"milvus": services.retriever.searchable()}
    if services.stores.redis is not None:
        checks["redis"] = services.stores.redis.ping()
    if api.settings.rabbitmq.url.get_secret_value():
        checks["rabbitmq"] = api.queues.ping()
    found = await states(checks)
    if api.runs.closing:
        found["server"] = "closing"
    needed = ("milvus", "redis", "rabbitmq") if api.settings.answers == QUEUE else ("milvus",)
    ready = all(found[name] == "ok" for name in needed) and not api.runs.closing
    return json_response(answers.Readiness(ready=ready, dependencies=found), status=200 if ready else 503)


async def metrics(request: Request) -> Response:
    """The metrics, as Prometheus reads them."""
    api = api_of(request)
    await asyncio.gather(*(_look(api, queue) for queue in (ANSWERS, BATCH, INDEX)))
    text, media_type = api.metrics.exposition()
    return Response(text, headers={"Content-Type": media_type})


async def states(checks: Mapping[str, Awaitable[object]]) -> dict[str, str]:
    """Return of each dependency "ok", the code of what its check raised, or "timeout"."""
    return dict(zip(checks, await asyncio.gather(*map(_state, checks.values())), strict=True))


async def _look(api: Api, queue: str) -> None:
    """Note how many wait in a queue; nothing is shown of one that cannot be looked at."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            api.metrics.waiting.labels(queue).set(await api.queues.depth(queue))
    except (FaqError, TimeoutError):
        api.metrics.waiting.clear()


async def _state(check: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check
    except FaqError as error:
        return error.code
    except TimeoutError:
        return "timeout"
    return "ok"
