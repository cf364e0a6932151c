"""LlamaIndex's chat store, mended: what its own interface promises, in whole steps."""

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.storage.chat_store.base import BaseChatStore
from llama_index.storage.chat_store.redis import RedisChatStore
from stores import redis_server

from smartstore_indexing.setting_groups import RedisSettings
from smartstore_workflows.redis_chat_store import AtomicRedisChatStore

WORKING = {"aset_messages", "aget_messages", "async_add_message", "adelete_messages"}
OFFERED = {
    name
    for name, _ in inspect.getmembers(BaseChatStore, inspect.isfunction)
    if not name.startswith("_") and ("message" in name or "keys" in name)
}


def said(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text, additional_kwargs={"id": secrets.token_hex(8)})


@pytest.fixture
async def store(redis_settings: RedisSettings) -> AsyncIterator[AtomicRedisChatStore]:
    async with redis_server(redis_settings) as server:
        yield AtomicRedisChatStore(server, max_messages=10, life_seconds=60)


async def test_messages_come_back_through_llamaindexs_interface(store: BaseChatStore) -> None:
    messages = [said(str(number)) for number in range(3)]
    await store.aset_messages("여기", messages[:2])
    await store.async_add_message("여기", messages[2])
    assert await store.aget_messages("여기") == messages
    await store.adelete_messages("여기")
    assert await store.aget_messages("여기") == []


async def test_append_that_is_sent_twice_is_kept_once(store: AtomicRedisChatStore) -> None:
    pair = [said("질문"), said("답")]
    await store.aappend("여기", pair)
    await store.aappend("여기", pair)
    assert await store.aget_messages("여기") == pair


async def test_readers_see_the_old_messages_or_the_new_ones(store: AtomicRedisChatStore) -> None:
    chats = [[said(name * 10_000) for _ in range(10)] for name in "가나"]  # more than Redis reads at once

    async def replace() -> None:
        for number in range(30):
            await store.aset_messages("여기", chats[number % 2])

    await store.aset_messages("여기", chats[0])
    replacing = asyncio.gather(replace(), replace())
    while not replacing.done():
        assert await store.aget_messages("여기") in chats
    await replacing


@pytest.mark.parametrize("name", sorted(OFFERED - WORKING))
async def test_method_that_takes_several_steps_or_blocks_is_refused(store: AtomicRedisChatStore, name: str) -> None:
    with pytest.raises(NotImplementedError, match="async methods"):
        getattr(store, name)("여기", 0)


async def test_adding_in_the_middle_is_refused(store: AtomicRedisChatStore) -> None:
    with pytest.raises(NotImplementedError):
        await store.async_add_message("여기", said("질문"), 0)


def test_no_method_of_the_vendors_is_left_as_it_was() -> None:
    theirs = {name for name in vars(RedisChatStore) if name in OFFERED}
    assert theirs >= {"set_messages", "aset_messages", "adelete_message", "get_keys"}
    assert OFFERED - vars(AtomicRedisChatStore).keys() == set()
