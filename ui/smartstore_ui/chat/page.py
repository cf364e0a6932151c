"""The chat page as a part of the server: Chainlit is set up, its handlers are ours, and its history is open."""

import logging
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import chainlit as cl
import structlog
from chainlit.server import sio
from chainlit.session import WebsocketSession
from chainlit.socket import connect, connection_successful, message
from chainlit.utils import utc_now
from socketio.exceptions import ConnectionRefusedError as Refused
from starlette.routing import BaseRoute

from smartstore_ui.api.context import Api
from smartstore_ui.chat.chainlit_home import home_of
from smartstore_ui.chat.conversation import Conversation
from smartstore_ui.chat.database import history_url
from smartstore_ui.chat.history import PageHistory
from smartstore_ui.chat.identity import Identity
from smartstore_ui.chat.profiles import Opening
from smartstore_ui.chat.routes import page_routes
from smartstore_workflows.understanding import MAX_SESSION_ID

log = structlog.get_logger(__name__)
NAMESPACE = "/"
UUID_VERSION = 4  # which Chainlit insists on
KEPT_EVENTS = {
    "connect",
    "connection_successful",
    "clear_session",
    "disconnect",
    "stop",
    "client_message",
    "fetch_favorites",
}


@asynccontextmanager
async def opened_page(api: Api) -> AsyncGenerator[list[BaseRoute], None]:
    """Yield the page's routes; `chainlit_home.prepare` was called before this module was imported.

    Raises:
        Misconfigured: the users' file or the history's address cannot be used.
        StoreUnavailable: the history's database does not answer.
    """
    settings = api.settings
    identity = Identity(settings)
    if settings.server.require_key and identity.guests:
        log.warning("chat page not opened", reason="a key is required of everybody, and the page has nobody sign in")
        yield []
        return
    history = await PageHistory.open(
        history_url(settings), ratings=api.bot, forget=api.bot.forget, days=settings.chat.history_days
    )
    try:
        await _register(api, identity, history)
        yield page_routes(api, identity, home_of(settings))
    finally:
        await history.close()


async def _register(api: Api, identity: Identity, history: PageHistory) -> None:
    conversation, opening = Conversation(api, history), Opening(api.bot)
    identity.register()
    cl.data_layer(lambda: history)
    cl.on_message(conversation.ask)
    cl.on_chat_resume(conversation.resume)
    cl.on_chat_end(conversation.leave)
    cl.action_callback("follow_up")(conversation.follow_up)
    cl.action_callback("retry")(conversation.retry)
    cl.set_chat_profiles(opening.profiles)
    cl.set_starters(opening.starters)
    _take_sockets(conversation)
    await opening.starters(None)  # now, not while the first visitor waits


def _take_sockets(conversation: Conversation) -> None:
    """Leave of Chainlit's socket events those that the page needs, with our own of some."""
    handlers = sio.handlers[NAMESPACE]
    for name in handlers.keys() - KEPT_EVENTS:
        del handlers[name]

    async def checked_connect(sid: str, environ: dict[str, object], auth: object) -> object:
        """Refuse what is no page of ours before Chainlit reads it."""
        if not isinstance(auth, dict) or not _is_id(auth.get("sessionId")) or not _is_id(auth.get("threadId") or "new"):
            raise Refused("bad session")
        return await connect(sid, environ, auth)

    async def checked_message(sid: str, payload: object) -> None:
        """Take of what a browser sends the question alone; what is no question is passed over."""
        said = payload.get("message") if isinstance(payload, dict) else None
        if WebsocketSession.get(sid) and isinstance(said, dict) and _is_uuid4(said.get("id")):
            kept = {"id": said["id"], "output": str(said.get("output", "")), "name": "User", "type": "user_message"}
            await message(sid, {"message": {**kept, "createdAt": utc_now()}, "fileReferences": None})

    async def connected(sid: str) -> None:
        """Greet a page, and show one that comes back what it may have missed: Chainlit shows it nothing."""
        await connection_successful(sid)
        session = WebsocketSession.get(sid)
        if session and session.restored:
            await conversation.reconnected(session)

    async def stop(sid: str) -> None:
        """Stop the answer; Chainlit's own says so in English."""
        if session := WebsocketSession.get(sid):
            await conversation.stop(session)

    sio.on("connect", handler=checked_connect)
    sio.on("connection_successful", handler=connected)
    sio.on("client_message", handler=checked_message)
    sio.on("stop", handler=stop)
    logging.getLogger("chainlit").addFilter(_as_warning)


def _as_warning(record: logging.LogRecord) -> bool:
    """Lower what Chainlit says at ERROR when strangers try what they may not; our own errors are told by us."""
    if record.levelno > logging.WARNING:
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def _is_uuid4(value: object) -> bool:
    try:
        return uuid.UUID(str(value)).version == UUID_VERSION
    except ValueError:
        return False


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_SESSION_ID and value.replace("-", "").isalnum()
