"""Conversations in the Redis that processes share, as LlamaIndex chat messages: a user's and an assistant's a turn."""

import secrets
from itertools import pairwise

import structlog
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from pydantic import ValidationError

from smartstore_workflows.events import Turn
from smartstore_workflows.memory import DAY_SECONDS, SessionSummary, trimmed
from smartstore_workflows.redis_chat_store import AtomicRedisChatStore
from smartstore_workflows.redis_server import RedisServer

log = structlog.get_logger(__name__)
PAIR = "pair"  # the name that a turn's two messages share
PAIR_BYTES = 8


class RedisConversations:
    """Conversations in Redis; what each method returns and raises is told by `memory.Conversations`."""

    def __init__(self, server: RedisServer, *, max_turns: int, max_tokens: int, days: float) -> None:
        """Use a server; whoever opened it closes it."""
        self._max_tokens = max_tokens
        self._chats = AtomicRedisChatStore(server, max_messages=2 * max_turns, life_seconds=days * DAY_SECONDS)

    async def begin(self, session_id: str) -> None:
        """Make the session known from now on, and renew its life."""
        await self._chats.atouch(session_id)

    async def known(self, session_id: str) -> bool:
        """Tell whether the session was begun or added to, and neither forgotten nor unused for its days."""
        return await self._chats.aexists(session_id)

    async def turns(self, session_id: str) -> list[Turn]:
        """Return the last turns of a session, oldest first; none for one that is unknown."""
        slots = await self._chats.aget_slots(session_id)
        stored = [_turn(user, assistant) for user, assistant in pairwise(slots) if user and assistant]
        return trimmed([turn for turn in stored if turn is not None], self._max_tokens)

    async def append(self, session_id: str, turn: Turn) -> None:
        """Add a turn, renew the session's life, and drop its oldest turns beyond the bound: all of it or nothing."""
        await self._chats.aappend(session_id, _messages(turn))

    async def forget(self, session_id: str) -> bool:
        """Delete a session; return whether there was one."""
        return await self._chats.aforget(session_id)

    async def sessions(self, *, limit: int, before: float | None = None) -> list[SessionSummary]:
        """Return at most `limit` sessions, the last used first; with `before`, those last used before that time."""
        chats = await self._chats.alist(limit=limit, before=before)
        return [SessionSummary(chat.key, chat.messages // 2, chat.used_at) for chat in chats]


def _messages(turn: Turn) -> list[ChatMessage]:
    pair = {PAIR: secrets.token_hex(PAIR_BYTES)}
    rest = turn.model_dump(mode="json", exclude={"question", "answer"})
    return [
        ChatMessage(role=MessageRole.USER, content=turn.question, additional_kwargs=pair),
        ChatMessage(role=MessageRole.ASSISTANT, content=turn.answer, additional_kwargs=pair | rest),
    ]


def _turn(user: ChatMessage, assistant: ChatMessage) -> Turn | None:
    """Return the turn that two neighbouring messages are, None where they are of two turns, or no turn."""
    rest = dict(assistant.additional_kwargs)
    if (user.role, assistant.role) != (MessageRole.USER, MessageRole.ASSISTANT):
        return None
    if rest.pop(PAIR, None) != user.additional_kwargs.get(PAIR):
        return None
    try:
        return Turn(question=user.content or "", answer=assistant.content or "", **rest)
    except ValidationError:
        log.warning("stored turn not readable")
        return None
