"""The FAQs and the conversations: search, read, list and delete."""

from starlette.requests import Request
from starlette.responses import Response

from smartstore_indexing.errors import UnknownResource
from smartstore_ui.api import answers
from smartstore_ui.api.context import api_of
from smartstore_ui.api.requests import ListQuery, SearchQuery, read_query
from smartstore_ui.api.responses import json_response

UNKNOWN = "그런 대화가 없습니다."


async def search(request: Request) -> Response:
    """GET /api/search: the FAQs that fit, best first."""
    api = api_of(request)
    await api.admit(request)
    wanted = read_query(request.query_params, SearchQuery)
    found = await api.bot.search(wanted.q, limit=wanted.k, category=wanted.category)
    return json_response(answers.Found(results=found))


async def session(request: Request) -> Response:
    """GET /api/sessions/{id}: the conversation, oldest turn first."""
    api = api_of(request)
    await api.admit(request)
    session_id = request.path_params["session_id"]
    conversations = api.bot.services.stores.conversations
    turns = await conversations.turns(session_id)
    if not turns and not await conversations.known(session_id):
        raise UnknownResource(UNKNOWN)
    shown = tuple(
        answers.ReadTurn(question=turn.question, answer=turn.answer, kind=turn.kind, faq_ids=turn.faq_ids)
        for turn in turns
    )
    return json_response(answers.Session(session_id=session_id, turns=shown))


async def forget(request: Request) -> Response:
    """DELETE /api/sessions/{id}: the conversation is gone."""
    api = api_of(request)
    await api.admit(request)
    if not await api.bot.forget(request.path_params["session_id"]):
        raise UnknownResource(UNKNOWN)
    return Response(status_code=204)


async def sessions(request: Request) -> Response:
    """GET /api/sessions: the conversations, the last used first; for the operator."""
    api = api_of(request)
    api.access.owner_only(request)
    page = read_query(request.query_params, ListQuery)
    found = await api.bot.services.stores.conversations.sessions(limit=page.limit, before=page.before)
    shown = (answers.ListedSession(session_id=one.session_id, turns=one.turns, used_at=one.used_at) for one in found)
    return json_response(answers.Sessions(sessions=tuple(shown)))
