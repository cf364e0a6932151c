"""People who sign in, by a password or elsewhere, and find their chats again; both databases over a restart."""

import re
import signal

import pytest
from browsing import ELSEWHERE, PASSWORDS, ChatPage, Front, Visit
from playwright.async_api import expect
from served import Served

QUESTION, OTHERS = "정산은 언제 되나요?", "전통주를 온라인으로 판매할 수 있나요?"


async def test_who_signs_in_finds_their_chats_in_any_browser_and_nobody_elses(visit: Visit, signed: Served) -> None:
    chat = await visit(signed.url)
    await chat.page.goto(signed.url)
    await chat.sign_in("seller", "wrong")
    await expect(chat.page.get_by_text("아이디나 비밀번호가 맞지 않습니다.")).to_be_visible()
    await chat.sign_in("seller", PASSWORDS["seller"])
    await chat.answered(QUESTION)
    thread_id = await chat.thread_id()

    elsewhere = await visit(signed.url)
    await elsewhere.page.goto(signed.url)
    await elsewhere.sign_in("seller", PASSWORDS["seller"])
    await elsewhere.page.locator(f"#thread-{thread_id}").click()
    await expect(await elsewhere.answer(0)).to_contain_text("구매확정")

    rival = await visit(signed.url)
    await rival.page.goto(signed.url)
    await rival.sign_in("rival", PASSWORDS["rival"])
    await rival.answered(OTHERS)
    await rival.thread_id()
    await expect(rival.threads).to_have_count(1)
    await rival.open(f"/thread/{thread_id}")
    await expect(rival.page.get_by_text(QUESTION)).to_have_count(0)
    assert (await rival.page.request.get(f"{signed.url}/project/thread/{thread_id}")).status in (401, 403, 404)

    await chat.page.locator("#user-nav-button").click()
    await chat.page.get_by_role("menuitem", name="로그아웃").click()
    await expect(chat.page.locator("#email")).to_be_visible()
    assert (await chat.page.request.get(f"{signed.url}/project/thread/{thread_id}")).status == 401


async def test_who_signs_in_at_a_provider_is_somebody_else_than_a_name_of_the_file(
    visit: Visit, signed: Served
) -> None:
    chat = await visit(signed.url)
    await chat.page.goto(signed.url)
    await chat.page.get_by_role("button", name=re.compile("generic로 로그인", re.IGNORECASE)).click()
    await expect(chat.input).to_be_visible()
    await chat.answered(OTHERS)
    await chat.thread_id()

    await expect(chat.threads).to_have_count(1)
    await chat.page.locator("#user-nav-button").click()
    await expect(chat.page.get_by_role("menu")).to_contain_text(ELSEWHERE)
    user = await (await chat.page.request.get(f"{signed.url}/user")).json()
    assert user["identifier"] == f"generic:{ELSEWHERE}"


@pytest.mark.long  # it starts two servers again: a minute
@pytest.mark.timeout(300)
async def test_chats_and_who_is_signed_in_outlive_a_restart(visit: Visit, front: Front) -> None:
    servers = [front.chatting.start(), front.signed.start()]
    guest, person = [await visit(server.url) for server in servers]
    await guest.open()
    await guest.choose("FAQ 그대로")
    await person.page.goto(person.url)
    await person.sign_in("seller", PASSWORDS["seller"])
    kept: list[tuple[ChatPage, str, str]] = []
    for chat in (guest, person):
        answer = await chat.answered(QUESTION)
        kept.append((chat, await chat.thread_id(), await answer.inner_text()))
        await chat.page.goto("about:blank")

    for server in servers:
        server.signal(signal.SIGTERM)
    for server in servers:
        assert server.wait() == 0
        server.launch()
    for server, (chat, thread_id, text) in zip(servers, kept, strict=True):
        chat.url = server.start().url
        await chat.open(f"/thread/{thread_id}")
        assert await (await chat.answer(0)).inner_text() == text
        await expect(chat.page.locator(f"#thread-{thread_id}")).to_be_visible()
