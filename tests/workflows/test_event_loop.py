"""Nothing that answers a question blocks the event loop."""

import time

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from smartstore_workflows import Chatbot


async def test_answering_never_blocks_the_event_loop(bot: Chatbot) -> None:
    with blockbuster_ctx():
        first = await bot.ask("반품 배송비는 누가 부담하나요?", session_id="loop")
        second = await bot.ask("그럼 교환은요?", session_id="loop")
    assert first.answer.kind == second.answer.kind == "answered"


async def test_a_blocking_call_would_be_noticed() -> None:
    with blockbuster_ctx(), pytest.raises(BlockingError):
        time.sleep(0.001)  # noqa: ASYNC251  the call that has to be caught
