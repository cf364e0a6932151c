"""What a model writes runs nothing, and nobody gets at another's session. Where pages connect, `visit` watches."""

import json

import pytest
from browsing import CITING, Visit
from page_sockets import connected, cookies_of
from playwright.async_api import expect
from served import Served
from socketio.exceptions import ConnectionError as Refused
from talking import MINOR

HOSTILE = (
    "<script>hacked=1</script> <img src=x onerror=hacked=2> ![그림](http://other.example/a.png) "
    "[눌러](javascript:hacked=3) <a href='javascript:hacked=4'>여기</a> <iframe src='//other.example'></iframe> "
    "<style>body{display:none}</style> :주의[이것] ::지시 1~2일, 3~4일 **굵게**"
)


async def test_what_a_model_writes_is_text_and_runs_nothing(visit: Visit, chatting: Served) -> None:
    chat = await (await visit(chatting.url)).open()

    answer = await chat.answered(f"{MINOR} [[reply: {HOSTILE}]]")
    text = answer.locator(".prose").first
    for literal in (
        "<script>hacked=1</script>",
        "<img src=x onerror=hacked=2>",
        ":주의[이것]",
        "::지시",
        "1~2일, 3~4일",
    ):
        await expect(text).to_contain_text(literal)
        await expect(chat.questions.first).to_contain_text(literal)
    weight = await text.get_by_text("굵게", exact=True).evaluate("bold => getComputedStyle(bold).fontWeight")
    assert int(weight) >= 600
    await expect(chat.page.locator(".prose img, .prose script, .prose iframe, .prose style, .prose del")).to_have_count(
        0
    )
    for link in await text.locator("a").all():
        assert (await link.get_attribute("href") or "").startswith(("http://", "#")), "it is a script's"
    assert await chat.page.evaluate("typeof hacked") == "undefined"


async def test_anothers_session_and_chat_are_refused_at_the_socket(visit: Visit, chatting: Served) -> None:
    chat = await visit(chatting.url)
    sent: list[str] = []
    chat.page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(str(frame))))
    await chat.open()
    await chat.answered(CITING)
    thread_id = await chat.thread_id()
    session_id = json.loads(next(frame for frame in sent if frame.startswith("40")).removeprefix("40"))["sessionId"]

    others = cookies_of(chatting.url)
    with pytest.raises(Refused):
        async with connected(chatting.url, others, thread_id=thread_id):
            pass
    with pytest.raises(Refused):
        async with connected(chatting.url, others, session_id=session_id):
            pass
    with pytest.raises(Refused):
        async with connected(chatting.url, ""):
            pass
    await expect(await chat.answered(f"{CITING} 그리고요?")).to_contain_text("법정대리인")
