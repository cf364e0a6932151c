"""Where the page lives: beside the API or alone, and as a widget on other sites, those that are named."""

import httpx
import pytest
from browsing import CITING, Front, Visit
from page_sockets import connected, cookies_of
from playwright.async_api import expect
from served import Served
from socketio.exceptions import ConnectionError as Refused


@pytest.mark.parametrize("path", ["/api/nothing", "/nothing", "/v1/nothing", "/project/nothing", "/public/"])
def test_unknown_addresses_are_no_pages(chatting: Served, path: str) -> None:
    with chatting.client() as client:
        answer = client.get(path)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_page_and_api_are_one_server(chatting: Served) -> None:
    with chatting.client() as client:
        assert "<title>스마트스토어 FAQ 도우미</title>" in client.get("/").text
        assert client.get("/api/search", params={"q": "정산", "k": 1}).status_code == 200
        assert client.get("/healthz").status_code == 200


def test_page_alone_has_no_api(signed: Served) -> None:
    with signed.client() as client:
        asked = client.post("/api/chat", json={"question": "정산은 언제 되나요?"})
        assert asked.status_code == 404
        assert asked.json()["error"]["code"] == "not_found"
        assert client.get("/docs").status_code == 404
        assert client.get("/healthz").status_code == 200
        assert client.get("/").status_code == 200


@pytest.mark.parametrize(("elsewhere", "phone"), [(False, True), (True, False)], ids=["own-phone", "shop-computer"])
async def test_widget_answers_on_its_own_page_and_on_a_site_that_is_named(
    visit: Visit, front: Front, chatting: Served, elsewhere: bool, phone: bool
) -> None:
    chat = await visit(chatting.url, phone=phone)
    await chat.page.goto(front.shop if elsewhere else f"{chatting.url}/widget")
    await chat.page.locator("#chainlit-copilot-button").click()

    answer = await chat.answered(CITING)
    await expect(answer).to_contain_text("법정대리인의 동의가 있으면 됩니다")
    await answer.locator(".source-title").first.click()
    await expect(answer.locator(".source-text")).to_contain_text("법정대리인")
    await expect(answer.locator(".source-text")).to_be_in_viewport()


async def test_site_that_is_not_named_gets_nothing(visit: Visit, front: Front, chatting: Served) -> None:
    chat = await visit(chatting.url)
    said: list[str] = []
    chat.page.on("console", lambda message: said.append(message.text))
    async with chat.page.expect_console_message(lambda message: "연결하지 못했습니다" in message.text):
        await chat.page.goto(front.stranger)
    await expect(chat.page.locator("#chainlit-copilot-button")).to_have_count(0)

    async with httpx.AsyncClient(base_url=chatting.url, headers={"Origin": front.stranger}) as client:
        for path in ("/auth/header", "/project/threads", "/project/action", "/login"):
            assert (await client.post(path, json={})).status_code == 403
        assert "access-control-allow-origin" not in (await client.get("/user")).headers
    with pytest.raises(Refused):
        async with connected(chatting.url, cookies_of(chatting.url), origin=front.stranger):
            pass
