"""Thumbs with a comment, under typed answers and under those that a button started, joined with their runs."""

import json
import sqlite3
from typing import Any

from browsing import CITING, ChatPage, Visit
from playwright.async_api import Locator, expect
from served import Served


def ratings(served: Served) -> list[dict[str, Any]]:
    """Return the ratings of the runs, the last first."""
    with sqlite3.connect(served.folder / "data" / "conversations.sqlite3") as database:
        rows = database.execute("SELECT rating FROM runs WHERE rating IS NOT NULL ORDER BY rated_at DESC").fetchall()
    database.close()
    return [json.loads(rating) for (rating,) in rows]


async def rate(chat: ChatPage, answer: Locator, thumb: str, comment: str) -> None:
    """Press a thumb, write a comment and send both."""
    await answer.locator(f".{thumb}-feedback-off").click()
    await chat.page.get_by_role("dialog").locator("textarea").fill(comment)
    await chat.page.locator("#submit-feedback").click()
    await expect(answer.locator(f".{thumb}-feedback-on")).to_be_visible()


async def test_thumbs_reach_the_run_of_every_answer_are_shown_again_and_taken_back(
    visit: Visit, chatting: Served
) -> None:
    chat = await (await visit(chatting.url)).open()
    before = len(ratings(chatting))
    typed = await chat.answered(CITING)
    await rate(chat, typed, "positive", "도움이 됐어요. 010-1234-5678로 연락 주세요")
    await chat.choose("FAQ 그대로")
    typed = await chat.answered("정산은 언제 되나요?")
    await typed.locator(".follow-up").first.click()
    chosen = await chat.answer(1)
    await rate(chat, chosen, "negative", "다른 내용이에요")

    down, up = ratings(chatting)[: len(ratings(chatting)) - before]
    assert (up["score"], down["score"], down["comment"]) == (1, -1, "다른 내용이에요")
    assert up["comment"].startswith("도움이 됐어요.")
    assert "1234" not in up["comment"]

    await chat.page.reload()
    chosen = await chat.answer(1)
    await expect(chosen.locator(".negative-feedback-on")).to_be_visible()
    await expect(chat.page.locator(".positive-feedback-on")).to_have_count(0)
    await chosen.locator(".negative-feedback-on").click()
    await expect(chosen.locator(".negative-feedback-off")).to_be_visible()
    assert len(ratings(chatting)) == before + 1
