"""A conversation on the page, as a seller has it on a computer and on a phone."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise

import httpx
import pytest
from browsing import BOTH, CITING, MAX_RUNS, Visit, counts
from conftest import ModelServer, wait_until
from playwright.async_api import WebSocketRoute, expect
from served import ModelSwitch, Served
from talking import MINOR

STAGES = ["질문 이해", "범위 확인", "FAQ 검색", "답변 작성", "추천 질문"]
HALF = "무지개 구름 바다 노을 파도 모래 바람 안개"
LONG = f"{MINOR} [[reply: {'네 ' * 900}]]"  # 27 s

# Notes which stages stood there unfolded, and how the answer grew, at every change of the page.
RECORD = """() => {
  window.unfolded = []; window.said = [];
  new MutationObserver(() => {
    const whole = document.querySelector('[data-step-type="tool"]');
    if (whole?.querySelector('button[aria-expanded="true"]')) {
      const names = [...whole.querySelectorAll('[data-step-type="tool"]')].map((stage) => stage.innerText.trim());
      if (unfolded.at(-1)?.length !== names.length) unfolded.push(names);
    }
    const text = document.querySelector('[data-step-type="assistant_message"] .prose')?.innerText.trimEnd();
    if (text && said.at(-1) !== text) said.push(text);
  }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
}"""


@BOTH
async def test_answer_streams_while_its_stages_run_and_stands_on_sources_that_open(
    visit: Visit, chatting: Served, phone: bool
) -> None:
    chat = await (await visit(chatting.url, phone=phone)).open()

    await chat.page.evaluate(RECORD)
    answer = await chat.answered(MINOR)

    unfolded, said = await chat.page.evaluate("[unfolded, said]")
    assert STAGES[:3] in unfolded or STAGES[:4] in unfolded
    assert len(said) > 5, "the text came at once"
    assert all(later.startswith(earlier) for earlier, later in pairwise(said))
    whole = chat.stages.first.locator("button").first
    assert await whole.get_attribute("aria-expanded") == "false"
    await whole.click()
    stages = await chat.stages.first.locator("[data-step-type]").all_inner_texts()
    assert [stage.split(" (")[0].strip() for stage in stages] == STAGES
    assert all(stage.endswith("초)") for stage in stages)

    card = answer.locator(".source-card").first
    await card.locator("button").click()
    await expect(card).to_contain_text("가입")
    await expect(card).to_contain_text("만 19세 미만 미성년자도 판매 회원으로 가입할 수 있나요?")
    await expect(card.locator(".source-text")).to_contain_text("법정대리인")
    await card.locator("button").click()
    await expect(card.locator(".source-text")).to_have_count(0)
    assert await chat.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    await expect(chat.input).to_be_in_viewport()


@BOTH
async def test_citation_opens_its_card_and_follow_up_is_answered_from_its_faq(
    visit: Visit, chatting: Served, phone: bool
) -> None:
    chat = await (await visit(chatting.url, phone=phone)).open()
    answer = await chat.answered(CITING)

    for number in ("2", "1"):
        await answer.get_by_role("link", name=f"[{number}]", exact=True).click()
        opened = answer.locator('.source-title[aria-expanded="true"]')
        await expect(opened).to_have_count(1)
        await expect(opened).to_have_attribute("data-source", number)
        await expect(opened).to_be_in_viewport()
    assert await chat.thread_id() in chat.page.url

    await answer.locator(".follow-up").first.click()
    following = await chat.answer(1)
    asked = await chat.questions.nth(1).inner_text()
    assert asked.endswith(("?", "요.", "."))
    await expect(following.locator(".source-question").first).to_have_text(asked)


async def test_stop_button_ends_the_models_call_and_keeps_the_half_answer(
    visit: Visit, chatting: Served, page_model: ModelServer
) -> None:
    chat = await (await visit(chatting.url)).open()
    before = counts(page_model)

    await chat.ask(LONG)
    await expect(chat.answers.first).to_contain_text("네 네 네")
    await chat.page.locator("#stop-button").click()
    answer = await chat.answer(0)

    await expect(answer.locator(".answer-notes")).to_have_text("답변을 멈췄습니다.")
    kept = await answer.locator(".prose").first.inner_text()
    assert 5 < len(kept) < 1_700, "it is nothing, or the whole answer"
    wait_until(lambda: counts(page_model)["disconnected"] > before["disconnected"])

    await answer.get_by_role("button", name="다시 시도").click()
    await expect(chat.answers.nth(1)).to_contain_text("네 네 네")
    await chat.page.locator("#stop-button").click()
    await chat.answer(1)
    assert await chat.questions.count() == 1
    assert await answer.locator(".prose").first.inner_text() == kept


async def test_error_says_what_happened_and_trying_again_answers(visit: Visit, chatting: Served) -> None:
    chat = await (await visit(chatting.url)).open()

    async with httpx.AsyncClient(base_url=chatting.url, timeout=60.0) as others:
        found = (await others.get("/api/search", params={"q": MINOR, "k": 1})).json()["results"][0]["id"]

        async def place_taken(stack: AsyncExitStack) -> AsyncIterator[bytes]:
            stream = others.stream("POST", "/api/chat", json={"question": LONG, "faq_id": found})
            parts = (await stack.enter_async_context(stream)).aiter_bytes()
            await anext(parts)
            return parts

        async with AsyncExitStack() as stack:
            held = await asyncio.gather(*(place_taken(stack) for _ in range(MAX_RUNS)))
            await chat.ask(CITING)
            answer = await chat.answer(0)
            assert len(held) == MAX_RUNS  # dropping them would hang up
    with chatting.client() as client:
        free = {"faq_id": found, "model": "extractive"}
        wait_until(lambda: client.post("/api/chat?stream=false", json=free).is_success)
    await expect(answer).to_contain_text("지금 질문이 많습니다. 잠시 후 다시 질문해 주세요.")
    await expect(answer.locator(".positive-feedback-off")).to_have_count(0)

    await answer.get_by_role("button", name="다시 시도").click()
    again = await chat.answer(1)
    await expect(again).to_contain_text("법정대리인의 동의가 있으면 됩니다")


async def test_half_answer_of_a_model_that_breaks_off_is_cleared(
    visit: Visit, chatting: Served, page_switch: ModelSwitch
) -> None:
    chat = await (await visit(chatting.url)).open()

    with page_switch.model("stub-cut"):
        answer = await chat.answered(f"{MINOR} [[reply: {HALF}]]")

    assert "무지개" not in await answer.inner_text()
    await expect(answer.locator(".prose").first).to_contain_text("법정대리인")
    await expect(answer.locator(".answer-notes")).to_contain_text("지금 모델을 쓸 수 없어 FAQ에서 그대로 답했습니다")


async def test_claim_that_no_faq_supports_is_pointed_out_under_the_answer(visit: Visit, chatting: Served) -> None:
    chat = await (await visit(chatting.url)).open()

    answer = await chat.answered(f"{MINOR} [[reply: 서류는 77일 안에 내시면 됩니다. [1]]]")

    await expect(answer.locator(".answer-notes")).to_contain_text("원문을 확인해 주세요: ‘77일’")


@pytest.mark.parametrize("until", ["a token", "the end"])
async def test_answer_is_whole_after_the_connection_was_lost(visit: Visit, chatting: Served, until: str) -> None:
    chat = await visit(chatting.url)
    lost, sockets = asyncio.Event(), []

    async def through(socket: WebSocketRoute) -> None:
        """Let a socket through; of the first one nothing is heard once it is lost, and then it closes."""
        server = socket.connect_to_server()
        first = not sockets
        sockets.append(socket)

        def heard(said: str | bytes) -> None:
            if not (first and lost.is_set()):
                socket.send(said)

        server.on_message(heard)

    await chat.page.route_web_socket(re.compile("socket.io"), through)
    await chat.open()
    await chat.ask(MINOR)
    await expect(chat.answers.first).to_contain_text("스마트")
    lost.set()
    if until == "the end":
        await asyncio.sleep(4.0)  # the answer takes three
    await sockets[0].close()
    answer = await chat.answer(0)

    assert len(sockets) > 1
    await expect(answer.locator(".source-card").first).to_be_visible()
    await expect(chat.answers).to_have_count(1)
    await expect(chat.questions).to_have_count(1)
    text = await answer.locator(".prose").first.inner_text()
    assert len(text) > 300, "a part of it is missing"
    await chat.page.reload()
    await expect(chat.answers.first.locator(".prose").first).to_have_text(text)
