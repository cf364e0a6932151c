"""What the page opens with: welcome, starters, themes and models, all of it in Korean."""

import re

from browsing import BOTH, CITING, ChatPage, Visit, counts
from conftest import ModelServer
from playwright.async_api import expect
from served import Served

LATIN = re.compile(r"[A-Za-z][A-Za-z.'-]*")
# Names, and what a person has typed.
NAMES = {"FAQ", "OpenAI", "URL", "KC", "SMS", "PC", "stub-to-be-named", "reply", "Generic"}
# All that a person reads, or has read to them.
WORDS = """() => [document.title, document.body.innerText,
  ...[...document.querySelectorAll('[aria-label],[title],[placeholder],[alt]')]
    .filter((element) => element.checkVisibility())
    .flatMap((element) => ['aria-label', 'title', 'placeholder', 'alt'].map((name) => element.getAttribute(name) ?? ''))
].join('\\n')"""


async def english(chat: ChatPage) -> set[str]:
    """Return the words of what the page says that are neither Korean nor names."""
    return set(LATIN.findall(await chat.page.evaluate(WORDS))) - NAMES


@BOTH
async def test_page_opens_with_its_name_a_welcome_and_starters(visit: Visit, chatting: Served, phone: bool) -> None:
    chat = await (await visit(chatting.url, phone=phone)).open()

    await expect(chat.page).to_have_title("스마트스토어 FAQ 도우미")
    welcome = chat.page.locator("#welcome-screen")
    await expect(welcome).to_contain_text("FAQ에 있는 내용")
    await expect(welcome).to_contain_text("스마트스토어와 관계없는 질문에는 답하지 않습니다")
    logo = welcome.locator("img").first
    await expect(logo).to_be_visible()
    assert await logo.evaluate("image => image.naturalWidth") > 0
    assert await chat.page.evaluate("document.fonts.check('16px Pretendard') && document.fonts.size > 0")
    starters = chat.page.locator("#starters button")
    assert await starters.count() >= 4
    for starter in await starters.all():
        await expect(starter).to_be_in_viewport()
    await expect(chat.input).to_be_in_viewport()
    assert await chat.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"


async def test_theme_is_the_devices_unless_the_address_or_the_person_names_one(visit: Visit, chatting: Served) -> None:
    at_night = await visit(chatting.url, dark=True)
    page = at_night.page.locator("html")
    await at_night.open()
    await expect(page).to_have_class(re.compile("dark"))
    await at_night.open("/?theme=light")
    await expect(page).to_have_class(re.compile("light"))
    await at_night.open()
    await expect(page).to_have_class(re.compile("light"))  # remembered

    by_day = await visit(chatting.url)
    page = by_day.page.locator("html")
    await by_day.open("/?theme=dark")
    await expect(page).to_have_class(re.compile("dark"))
    await by_day.page.locator("#theme-toggle").click()
    await by_day.page.get_by_role("menuitem", name="밝게").click()
    await expect(page).to_have_class(re.compile("light"))


async def test_starter_of_a_chat_with_the_faq_alone_is_answered_without_the_model(
    visit: Visit, chatting: Served, page_model: ModelServer
) -> None:
    chat = await (await visit(chatting.url)).open()
    await chat.page.locator("#chat-profiles").click()
    assert [name.strip() for name in await chat.page.get_by_role("option").all_inner_texts()] == [
        "OpenAI",
        "FAQ 그대로",
    ]
    await chat.page.get_by_role("option", name="FAQ 그대로").click()
    await expect(chat.page.locator("#welcome-screen")).to_contain_text("FAQ의 글을 그대로 옮겨 답합니다")
    before = counts(page_model)["chat"]

    await chat.page.locator("#starters button").first.click()
    answer = await chat.answer(0)
    await expect(answer.locator(".answer-notes")).to_have_text("FAQ 그대로")
    assert await chat.questions.first.inner_text() == "스마트스토어 판매자로 가입하려면 어떻게 하나요?"
    assert counts(page_model)["chat"] == before

    await chat.choose("OpenAI")
    answer = await chat.answered(CITING)
    await expect(answer.locator(".answer-notes")).to_have_text("stub-to-be-named 모델")
    assert counts(page_model)["chat"] > before


async def test_question_that_is_sent_the_moment_the_page_shows_is_not_lost(visit: Visit, chatting: Served) -> None:
    chat = await visit(chatting.url)
    await chat.page.goto(chatting.url, wait_until="commit")

    await chat.input.fill(CITING)
    await chat.input.press("Enter")

    await expect(await chat.answer(0)).to_contain_text("법정대리인의 동의")
    await expect(chat.questions).to_have_count(1)


@BOTH
async def test_no_english_is_said(visit: Visit, chatting: Served, phone: bool) -> None:
    chat = await (await visit(chatting.url, phone=phone)).open()
    page = chat.page
    said = {"welcome": await english(chat)}

    await page.locator("#readme-button").click()
    await expect(page.get_by_role("dialog")).to_contain_text("무엇에 답하나요?")
    said["guide"] = await english(chat)
    await page.keyboard.press("Escape")
    await page.locator("#theme-toggle").click()
    said["themes"] = await english(chat)
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("menu")).to_have_count(0)

    answer = await chat.answered(CITING)
    said["answer"] = await english(chat)
    await answer.locator(".negative-feedback-off").click()
    await expect(page.locator("#submit-feedback")).to_be_visible()
    said["feedback"] = await english(chat)
    await page.keyboard.press("Escape")
    await answer.locator(".negative-feedback-off").hover()
    await expect(page.get_by_role("tooltip")).to_have_text("도움이 되지 않았어요")

    assert {state: words for state, words in said.items() if words} == {}


async def test_no_english_is_said_to_who_signs_in(visit: Visit, signed: Served) -> None:
    chat = await visit(signed.url)
    await chat.page.goto(signed.url)
    await expect(chat.page.locator("#email")).to_be_visible()

    assert await english(chat) == set()
