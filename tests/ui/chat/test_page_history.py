"""Past chats of a browser's guest: opened again, renamed, deleted with the bot's conversation."""

from browsing import CITING, ChatPage, Visit
from playwright.async_api import Locator, expect
from served import Served
from talking import MINOR

YOUNG = "만 17세인데 판매 회원이 될 수 있나요?"


async def shown(chat: ChatPage) -> list[str]:
    """Return all that stands in the chat but its stages, which are not kept."""
    return [
        *await chat.questions.all_inner_texts(),
        *await chat.answers.locator(".prose").all_inner_texts(),
        *await chat.page.locator(".source-title").all_inner_texts(),
        *await chat.page.locator(".follow-up").all_inner_texts(),
        *await chat.page.locator(".answer-notes").all_inner_texts(),
    ]


async def menu_of(thread: Locator, entry: str) -> None:
    """Open the menu of a chat in the sidebar and choose an entry."""
    await thread.hover()
    await thread.locator("#thread-options").click()
    await thread.page.locator(entry).click()


async def test_chat_is_opened_again_renamed_and_deleted_with_its_conversation(visit: Visit, chatting: Served) -> None:
    chat = await (await visit(chatting.url)).open()
    await chat.choose("FAQ 그대로")
    await chat.answered(YOUNG)
    thread_id = await chat.thread_id()
    before = await shown(chat)
    assert len(before) > 5

    await chat.page.reload()
    await chat.answer(0)
    assert await shown(chat) == before

    await chat.page.locator("#new-chat-button").first.click()
    await expect(chat.questions).to_have_count(0)
    thread = chat.threads.filter(has_text=YOUNG)
    await thread.click()
    await chat.answer(0)
    assert await shown(chat) == before
    following = await chat.answered("그럼 서류는요?")
    await expect(following.locator(".source-cards")).to_contain_text("미성년자")
    await chat.answers.first.locator(".follow-up").first.click()
    await chat.answer(2)

    await menu_of(thread, "#rename-thread")
    await chat.page.locator("#name").fill("미성년자 가입")
    await chat.page.get_by_role("dialog").get_by_role("button", name="확인").click()
    thread = chat.threads.filter(has_text="미성년자 가입")
    await expect(thread).to_have_count(1)
    await chat.open(f"/thread/{thread_id}")
    await expect(thread).to_have_count(1)

    with chatting.client() as client:
        assert len(client.turns(thread_id)) == 3
        await menu_of(thread, "#delete-thread")
        await chat.page.get_by_role("alertdialog").get_by_role("button", name="확인").click()
        await expect(chat.threads.filter(has_text="미성년자")).to_have_count(0)
        await expect(chat.page.get_by_text("대화를 지웠습니다")).to_be_visible()
        assert client.get(f"/api/sessions/{thread_id}").status_code == 404
    answer = await chat.page.request.get(f"{chatting.url}/project/thread/{thread_id}")
    assert answer.status == 404


async def test_phone_shows_the_chat_again_after_a_reload_and_from_its_list(visit: Visit, chatting: Served) -> None:
    chat = await (await visit(chatting.url, phone=True)).open()
    await chat.answered(CITING)
    before = await shown(chat)

    await chat.page.reload()
    await chat.answer(0)
    assert await shown(chat) == before

    await chat.open()
    await expect(chat.questions).to_have_count(0)
    await chat.page.locator("#sidebar-trigger-button").click()
    await chat.threads.filter(has_text=MINOR).click()
    await chat.answer(0)
    assert await shown(chat) == before


async def test_two_browsers_see_nothing_of_each_other(visit: Visit, chatting: Served) -> None:
    one, other = await visit(chatting.url), await visit(chatting.url)
    for chat in (one, other):
        await (await chat.open()).choose("FAQ 그대로")
    await one.answered(YOUNG)
    await other.answered("정산은 언제 되나요?")
    thread_id = await one.thread_id()
    await other.thread_id()

    assert "17세" not in await other.page.inner_text("body")
    assert "정산은 언제" not in await one.page.inner_text("body")
    await other.open(f"/thread/{thread_id}")
    await expect(other.threads).to_have_count(1)
    assert "17세" not in await other.page.inner_text("body")
    for path in (f"/project/thread/{thread_id}", f"/project/thread/{thread_id}/element/x"):
        assert (await other.page.request.get(chatting.url + path)).status in (401, 403, 404)
    deleted = await other.page.request.delete(f"{chatting.url}/project/thread", data={"threadId": thread_id})
    assert deleted.status in (401, 403, 404)
    assert (await one.page.request.get(f"{chatting.url}/project/thread/{thread_id}")).status == 200
