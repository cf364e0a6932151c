"""POST /api/index and what became of it; for the operator."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from smartstore_ui.api import answers
from smartstore_ui.api.context import Api, api_of
from smartstore_ui.api.index_jobs import IndexJob
from smartstore_ui.api.requests import IndexBody, body_bytes, parsed
from smartstore_ui.api.responses import json_response
from smartstore_ui.api.sse import HEARTBEAT, EventStream, event_bytes


async def index(request: Request) -> Response:
    """Queue a job, or roll back at once; an empty body means the configured FAQ file, incrementally."""
    api = api_of(request)
    api.access.owner_only(request)
    wanted = parsed(await body_bytes(request) or b"{}", IndexBody)
    if wanted.mode == "rollback":
        job = await api.jobs.add_done(await api.bot.services.builder.rollback())
    else:
        job = await api.jobs.add(wanted.source, mode=wanted.mode, requested_by="api")
    return json_response(answers.JobAccepted(job_id=job.job_id), status=202, location=f"/api/index/{job.job_id}")


async def job(request: Request) -> Response:
    """Return how far a job is, or how it ended."""
    api = api_of(request)
    api.access.owner_only(request)
    return json_response(api.jobs.get(request.path_params["job_id"]).told)


async def job_events(request: Request) -> Response:
    """Stream how a job goes on, as server-sent events, up to its end."""
    api = api_of(request)
    api.access.owner_only(request)
    found = api.jobs.get(request.path_params["job_id"])
    return EventStream(_events(api, found))


async def _events(api: Api, found: IndexJob) -> AsyncGenerator[bytes, None]:
    number = 0
    async with aclosing(api.jobs.follow(found, api.settings.stream.heartbeat_seconds)) as changes:
        async for told in changes:
            number += told is not None
            yield HEARTBEAT if told is None else event_bytes(number, told.state, told.model_dump_json())
