"""Asking: a question's run is started, followed, resumed and stopped."""

from contextlib import aclosing

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from smartstore_indexing.errors import StoreUnavailable, UnknownResource
from smartstore_ui.api.context import Api, api_of
from smartstore_ui.api.errors import error_body, status_of
from smartstore_ui.api.requests import ChatBody, ChatQuery, FeedbackBody, read_body, read_query
from smartstore_ui.api.responses import json_response
from smartstore_ui.api.runs import LiveRun
from smartstore_ui.api.sse import EventStream, events_of, last_event_id
from smartstore_workflows import wire

LOOK_SECONDS = 1.0  # how often it is seen whether a client that waits for the whole answer is still there
NEW = "그런 대화가 없습니다. session_id 없이 질문하면 새 대화를 시작합니다."


async def chat(request: Request) -> Response:
    """POST /api/chat: the answer as server-sent events, or with ?stream=false as one document."""
    api = api_of(request)
    api.access.open_to(request)  # before anything is said about what it sent
    streams = read_query(request.query_params, ChatQuery).stream == "true"
    run = await start(api, request, await read_body(request, ChatBody))
    return EventStream(events_of(api.runs.follow(run))) if streams else await whole(request, run)


async def start(api: Api, connection: HTTPConnection, asked: ChatBody) -> LiveRun:
    """Start the run of a question.

    Raises:
        FaqError: the client may not ask, its conversation is unknown, there is no room, or the question is no question.
    """
    await api.admit(connection, asked.session_id)
    if asked.session_id is not None:
        await require_session(api, asked.session_id)
    request_id = connection.state.request_id
    events = api.answers.stream(
        asked.question or "",
        session_id=asked.session_id,
        faq_id=asked.faq_id,
        model=asked.model,
        request_id=request_id,
    )
    return await api.runs.start(events, request_id)


async def require_session(api: Api, session_id: str) -> None:
    """Raise UnknownResource unless the conversation is known; while its store is away every one passes."""
    try:
        known = await api.bot.services.stores.conversations.known(session_id)
    except StoreUnavailable:
        return  # the answer comes without memory, flagged degraded
    if not known:
        raise UnknownResource(NEW)


async def whole(request: Request, run: LiveRun) -> Response:
    """Return the whole answer as one document."""
    reply = await gathered(request, run)
    return json_response(reply) if isinstance(reply, wire.Reply) else failed(reply)


async def gathered(request: Request, run: LiveRun) -> wire.Reply | wire.Failure:
    """Follow a run to its end and return its reply, or what went wrong; a client that hangs up stops following."""
    async with aclosing(api_of(request).runs.follow(run, heartbeat_seconds=LOOK_SECONDS)) as frames:
        async for _ in frames:
            if await request.is_disconnected():
                break
    return run.gathered.failure or run.gathered.reply()


def failed(failure: wire.Failure) -> Response:
    """Return the response of a run that ended in an error."""
    return JSONResponse(
        error_body(failure.code, failure.message, failure.request_id),
        status_of(failure.code),
    )


async def resume(request: Request) -> Response:
    """GET /api/runs/{run_id}/events: what follows Last-Event-ID."""
    api = api_of(request)
    await api.admit(request)
    after = last_event_id(request.headers.get("last-event-id"))
    run = await api.runs.find(request.path_params["run_id"], request.state.request_id)
    return EventStream(events_of(api.runs.follow(run, after)))


async def stop(request: Request) -> Response:
    """DELETE /api/runs/{run_id}: the run ends, and the model's request with it."""
    api = api_of(request)
    await api.admit(request)
    await api.runs.stop(request.path_params["run_id"], request.state.request_id)
    return Response(status_code=204)


async def feedback(request: Request) -> Response:
    """POST /api/feedback: a thumb is kept with its run."""
    api = api_of(request)
    await api.admit(request)
    given = await read_body(request, FeedbackBody)
    await api.bot.rate(given.run_id, given.score, given.comment)
    return Response(status_code=204)
