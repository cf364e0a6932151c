"""What the page does when a seller asks, chooses a follow-up, stops, leaves, or comes back to an earlier chat."""

import asyncio
import json
from contextlib import aclosing
from typing import Any
from weakref import WeakKeyDictionary

import chainlit as cl
import structlog
from chainlit.chat_context import chat_contexts
from chainlit.session import WebsocketSession
from chainlit.types import ThreadDict
from pydantic import ValidationError

from smartstore_indexing.errors import FaqError, StoreUnavailable, TransientError
from smartstore_ui.api.context import Api
from smartstore_ui.api.runs import LiveRun
from smartstore_ui.chat.history import PageHistory
from smartstore_ui.chat.view import AnswerView, Asked
from smartstore_workflows.events import Turn
from smartstore_workflows.masking import mask
from smartstore_workflows.run_events import new_id
from smartstore_workflows.wire import BROKEN

log = structlog.get_logger(__name__)
# Chainlit's page offers thumbs under what stands in a run of the first name: a button's answers bear it too. In one of
# the second name it offers none: there is no answer to rate where it was stopped or failed.
RATED, UNRATED = "on_message", "on_chat_start"


class Conversation:
    """The page's handlers; one object serves all sessions."""

    def __init__(self, api: Api, history: PageHistory) -> None:
        """Answer with the open bot, in the runs that the API's clients share, for the pages of a history."""
        self._api = api
        self._history = history
        self._live: dict[str, LiveRun] = {}  # by Chainlit's session
        self._views: WeakKeyDictionary[object, AnswerView] = WeakKeyDictionary()  # the last of each session

    async def ask(self, message: cl.Message) -> None:
        """Answer a message; Chainlit has put a run step around it."""
        run_step = cl.context.current_run
        assert run_step is not None
        await self._answer(Asked(message.content), run_step)

    async def follow_up(self, action: cl.Action) -> None:
        """Answer a chosen follow-up with its FAQ, as if its question had been typed."""
        faq_id = action.payload.get("faq_id")
        if not isinstance(faq_id, str):
            return
        try:
            question = (await self._api.bot.faq(faq_id)).question
        except FaqError:
            question = ""  # it has left the index; what the answer says of that is shown
        said = await cl.Message(question or str(action.payload.get("text", "")), type="user_message").send()
        await self._act(Asked(question, faq_id), said)

    async def retry(self, action: cl.Action) -> None:
        """Ask again what could not be answered."""
        question, faq_id = action.payload.get("question"), action.payload.get("faq_id")
        if isinstance(question, str) and isinstance(faq_id, str | None):
            await self._act(Asked(question, faq_id), None)

    async def resume(self, thread: ThreadDict) -> None:
        """Give the bot an earlier chat again where it has forgotten it: pages are kept longer than conversations."""
        conversations = self._api.bot.services.stores.conversations
        try:
            if await conversations.known(thread["id"]):
                return
            for step in thread["steps"]:
                if turn := _turn_in(step.get("metadata")):
                    await conversations.append(thread["id"], turn)
            if not await self._history.get_thread_author(thread["id"]):  # it was deleted meanwhile
                await conversations.forget(thread["id"])
        except StoreUnavailable as error:
            log.warning("conversation not restored", code=error.code)

    async def reconnected(self, session: WebsocketSession) -> None:
        """Show the last answer again to a page that comes back, and go on with it."""
        if view := self._views.get(session):
            if session.id in self._live:
                await cl.context.emitter.task_start()
            await view.show_again()

    async def stop(self, session: WebsocketSession) -> None:
        """Stop the session's answer; what there is of it stays on the page."""
        if run := self._live.get(session.id):
            run.stop()
        elif session.current_task is not None:
            session.current_task.cancel()  # it waits for its turn

    def leave(self) -> None:
        """Stop the session's answer in a while, unless its page comes back by then."""
        session = cl.context.session
        assert isinstance(session, WebsocketSession)
        chat_contexts.pop(session.id, None)  # Chainlit never does
        left = session.socket_id

        def end() -> None:
            if session.socket_id == left and (run := self._live.get(session.id)):
                run.stop()

        asyncio.get_running_loop().call_later(self._api.settings.stream.grace_seconds, end)

    async def _act(self, asked: Asked, said: cl.Message | None) -> None:
        session = cl.context.session
        session.current_task = asyncio.current_task()
        await cl.context.emitter.task_start()
        try:
            async with cl.Step(name=RATED, type="run", parent_id=said.id if said else None) as run_step:
                await self._answer(asked, run_step, said)
        finally:
            await cl.context.emitter.task_end()

    async def _answer(self, asked: Asked, run_step: cl.Step, said: cl.Message | None = None) -> None:
        view = AnswerView(bot=self._api.bot, asked=asked, run_step=run_step, said=said)
        self._views[cl.context.session] = view
        request_id = new_id()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            run = await self._started(asked, request_id)
            await self._shown(run, view)
        except FaqError as error:
            await view.fail(error.message, retryable=isinstance(error, TransientError))
        except Exception:  # the edge of the page: whatever it is, the seller is told and the page stays
            log.exception("page run failed")
            await view.fail(BROKEN, retryable=True)
        if view.answer:
            run_step.metadata["turn"] = _turn_of(asked, view).model_dump(mode="json")
        else:
            run_step.name = UNRATED

    async def _started(self, asked: Asked, request_id: str) -> LiveRun:
        session = cl.context.session
        thread_id = session.thread_id
        await self._api.limiter.count(f"address:{_address(session)}", f"session:{thread_id}")
        events = self._api.answers.stream(
            asked.question, session_id=thread_id, faq_id=asked.faq_id, model=session.chat_profile, request_id=request_id
        )
        return await self._api.runs.start(events, request_id)

    async def _shown(self, run: LiveRun, view: AnswerView) -> None:
        session_id = cl.context.session.id
        self._live[session_id] = run
        try:
            async with aclosing(self._api.runs.follow(run)) as frames:
                async for some in frames:
                    for frame in some:
                        await view.show(frame.event, json.loads(frame.data))
        finally:
            self._live.pop(session_id, None)


def _address(session: Any) -> str:
    """Return the client's address, behind a trusted proxy that which the proxy names."""
    client = session.environ.get("asgi.scope", {}).get("client")
    return client[0] if client else ""


def _turn_of(asked: Asked, view: AnswerView) -> Turn:
    question = mask(asked.question)
    return Turn(
        question=question,
        standalone=question,
        answer=view.answer["text"],
        kind=view.answer["kind"],
        faq_ids=tuple(view.answer["citations"]),
        offered=tuple(offer["faq_id"] for offer in view.suggestions),
    )


def _turn_in(metadata: object) -> Turn | None:
    """Return the turn that a run step keeps, None for other steps and what cannot be read."""
    if not isinstance(metadata, dict) or "turn" not in metadata:
        return None
    try:
        return Turn.model_validate(metadata["turn"])
    except ValidationError:
        log.warning("stored turn not readable")
        return None
