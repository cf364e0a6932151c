"""Many browsers at once."""

import asyncio
from contextlib import AsyncExitStack

from browsing import MAX_RUNS
from page_sockets import connected, cookies_of
from served import Served
from talking import MINOR

PIECES = " 여러 조각으로 나뉘어 옵니다." * 20


async def test_twenty_browsers_at_once_each_stream_their_own_answer(chatting: Served) -> None:
    cookies = [await asyncio.to_thread(cookies_of, chatting.url) for _ in range(MAX_RUNS)]
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connected(chatting.url, of)) for of in cookies]
        await asyncio.gather(
            *(
                socket.ask(f"{MINOR} [[reply: {number}번 브라우저에게만 하는 답변입니다 [1].{PIECES}]]")
                for number, socket in enumerate(sockets)
            )
        )

    assert len(set(cookies)) == MAX_RUNS
    for number, socket in enumerate(sockets):
        (answer,) = socket.steps("assistant_message")
        assert answer["output"].startswith(f"{number}번 브라우저에게만 하는 답변입니다")
        assert answer["isError"] is False
        assert "stream_token" in dict(socket.received), "it came at once"
