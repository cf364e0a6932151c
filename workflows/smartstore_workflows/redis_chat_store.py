"""LlamaIndex's RedisChatStore, mended: chats are written whole, found without KEYS, bounded, and end together.

A chat's messages are a list; a sorted set tells when each chat was last used, and so which there are. RedisChatStore
0.8 itself writes message by message, expires in a second step, and lists every key of the database.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NoReturn, cast

import redis.asyncio
import structlog
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.storage.chat_store.redis import RedisChatStore
from pydantic import ValidationError
from redis.asyncio.client import Pipeline

from smartstore_workflows.redis_server import RedisServer

log = structlog.get_logger(__name__)
Refused = Callable[..., NoReturn]
CHAT, CHATS = "chat", "chats"


@dataclass(frozen=True, slots=True)
class ChatUse:
    """A chat, how many messages of it are kept, and when it was last used, in unix seconds."""

    key: str
    messages: int
    used_at: float


class AtomicRedisChatStore(RedisChatStore):
    """Chats of at most `max_messages` that end `life_seconds` after their last use; every write is one MULTI.

    The async methods raise StoreUnavailable when Redis does not answer. The sync ones, and those that change a chat in
    its middle, are refused: RedisChatStore does them in several steps.
    """

    _server: RedisServer = PrivateAttr()
    _max_messages: int = PrivateAttr()
    _life: float = PrivateAttr()

    def __init__(self, server: RedisServer, *, max_messages: int, life_seconds: float) -> None:
        """Use a server; whoever opened it closes it."""
        # Given no clients RedisChatStore connects here and now; these two never do.
        super().__init__(redis_client=redis.Redis(), aredis_client=redis.asyncio.Redis())
        self._server = server
        self._max_messages = max_messages
        self._life = life_seconds

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex stores the class under."""
        return "AtomicRedisChatStore"

    async def atouch(self, key: str) -> None:
        """Make the chat exist from now on, and renew its life."""
        async with self._server.use() as client, client.pipeline(transaction=True) as pipe:
            self._renew(pipe, key)
            await pipe.execute()

    async def aexists(self, key: str) -> bool:
        """Tell whether there is such a chat; it may be empty."""
        async with self._server.use() as client:
            used_at = await client.zscore(self._server.key(CHATS), key)
        return used_at is not None and used_at >= self._oldest()

    async def aget_messages(self, key: str) -> list[ChatMessage]:
        """Return the messages of a chat, oldest first; one that is broken is left out."""
        return [message for message in await self.aget_slots(key) if message is not None]

    async def aget_slots(self, key: str) -> list[ChatMessage | None]:
        """Return the messages of a chat, oldest first, None in the place of one that is broken."""
        async with self._server.use() as client, client.pipeline(transaction=True) as pipe:
            pipe.zscore(self._server.key(CHATS), key)
            pipe.lrange(self._server.key(CHAT, key), -self._max_messages, -1)
            used_at, items = await pipe.execute()
        return [_message(item) for item in items] if used_at is not None and used_at >= self._oldest() else []

    async def aappend(self, key: str, messages: Sequence[ChatMessage]) -> None:
        """Add messages at the end, renew the chat's life, and drop its oldest messages: all of it or nothing.

        Each message's text must be its own in the chat: Redis may be told twice, when a connection broke before it
        could answer, and adds it once.
        """
        items, chat = [message.model_dump_json() for message in messages], self._server.key(CHAT, key)
        async with self._server.use() as client, client.pipeline(transaction=True) as pipe:
            for item in items:
                pipe.lrem(chat, -1, item)
            self._add(pipe, key, items)
            await pipe.execute()

    async def aset_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Replace a chat's messages: readers see the old ones or the new ones."""
        async with self._server.use() as client, client.pipeline(transaction=True) as pipe:
            pipe.delete(self._server.key(CHAT, key))
            self._add(pipe, key, [message.model_dump_json() for message in messages])
            await pipe.execute()

    async def async_add_message(self, key: str, message: ChatMessage, idx: int | None = None) -> None:
        """Add a message at the end; NotImplementedError for any other place."""
        if idx is not None:
            self._refuse()
        await self.aappend(key, [message])

    async def adelete_messages(self, key: str) -> list[ChatMessage] | None:
        """Delete a chat; return None, or without a chat an empty list."""
        return None if await self.aforget(key) else []

    async def aforget(self, key: str) -> bool:
        """Delete a chat; return whether there was one."""
        async with self._server.use() as client, client.pipeline(transaction=True) as pipe:
            self._drop_old(pipe)
            pipe.zrem(self._server.key(CHATS), key)
            pipe.delete(self._server.key(CHAT, key))
            _, removed, _ = await pipe.execute()
        return bool(removed)

    async def alist(self, *, limit: int, before: float | None = None) -> list[ChatUse]:
        """Return at most `limit` chats, the last used first; with `before`, those last used before that time."""
        if limit < 1:
            return []
        newest = "+inf" if before is None else f"({before!r}"
        async with self._server.use() as client:
            found = await client.zrevrangebyscore(
                self._server.key(CHATS), newest, self._oldest(), start=0, num=limit, withscores=True
            )
            used = [(key.decode(), at) for key, at in cast("list[tuple[bytes, float]]", found)]
            async with client.pipeline(transaction=False) as pipe:
                for key, _ in used:
                    pipe.llen(self._server.key(CHAT, key))
                lengths: list[int] = await pipe.execute()
        return [ChatUse(key, length, at) for (key, at), length in zip(used, lengths, strict=True)]

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError("this chat store is used through its async methods, and appends only")

    set_messages: ClassVar[Refused] = _refuse
    get_messages: ClassVar[Refused] = _refuse
    add_message: ClassVar[Refused] = _refuse
    delete_messages: ClassVar[Refused] = _refuse
    delete_message: ClassVar[Refused] = _refuse
    delete_last_message: ClassVar[Refused] = _refuse
    get_keys: ClassVar[Refused] = _refuse
    aget_keys: ClassVar[Refused] = _refuse
    adelete_message: ClassVar[Refused] = _refuse
    adelete_last_message: ClassVar[Refused] = _refuse

    def _add(self, pipe: Pipeline, key: str, items: Sequence[str]) -> None:
        chat = self._server.key(CHAT, key)
        if items:
            pipe.rpush(chat, *items)
        pipe.ltrim(chat, -self._max_messages, -1)
        self._renew(pipe, key)

    def _renew(self, pipe: Pipeline, key: str) -> None:
        self._drop_old(pipe)
        pipe.zadd(self._server.key(CHATS), {key: time.time()})
        pipe.pexpire(self._server.key(CHAT, key), max(1, round(self._life * 1_000)))

    def _drop_old(self, pipe: Pipeline) -> None:
        """Take the chats out of the sorted set whose lists have expired."""
        pipe.zremrangebyscore(self._server.key(CHATS), "-inf", f"({self._oldest()!r}")

    def _oldest(self) -> float:
        return time.time() - self._life


def _message(item: bytes) -> ChatMessage | None:
    try:
        return ChatMessage.model_validate_json(item)
    except ValidationError:  # one bad item must not end a conversation
        log.warning("stored message not readable")
        return None
