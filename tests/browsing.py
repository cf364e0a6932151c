"""The chat page in a real browser: the servers it is tried on, a page object, and a watch over where it connects."""

import json
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import bcrypt
import pytest
from conftest import ModelServer
from databases import PostgresProcess
from playwright.async_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Request,
    ViewportSize,
    WebSocket,
    async_playwright,
    expect,
)
from served import ModelSwitch, Served, model_settings, scripted_model, serving
from sites import oauth_provider, shop
from talking import MINOR

QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DESKTOP = ViewportSize(width=1280, height=850)
PHONE = ViewportSize(width=390, height=844)
WAIT_MS = 15_000
PASSWORDS = {"seller": "correct horse", "rival": "battery staple"}
ELSEWHERE, CLIENT_SECRET = "seller@example.com", "client-secret-of-the-tests"
MAX_RUNS = 20
# An answer of the scripted model takes three seconds, unless the question scripts a short one.
MODEL_SPEED = ("--ttft-ms", "50", "--token-ms", "30", "--tokens", "100")
THREAD = re.compile(r"/thread/([0-9a-f-]{36})")
BOTH = pytest.mark.parametrize("phone", [False, True], ids=["computer", "phone"])
CITING = f"{MINOR} [[reply: 법정대리인의 동의가 있으면 됩니다 [1]. 서류는 따로 봅니다 [2].]]"
expect.set_options(timeout=WAIT_MS)


class ChatPage:
    """What a person sees and does on the page."""

    def __init__(self, page: Page, url: str) -> None:
        """Use an open tab for the server at `url`."""
        self.page = page
        self.url = url
        self.input = page.locator("#chat-input")
        self.questions = page.locator('[data-step-type="user_message"]')
        self.answers = page.locator('[data-step-type="assistant_message"]')
        self.stages = page.locator('[data-step-type="tool"]')
        self.footers = page.locator(".answer-footer")
        self.threads = page.locator("#thread-history li")

    async def open(self, path: str = "/") -> "ChatPage":
        """Go to an address of the page, and return when there is an input."""
        await self.page.goto(self.url + path)
        await expect(self.input).to_be_visible()
        return self

    async def ask(self, question: str) -> None:
        """Type a question and press Enter, once the page is connected."""
        await self.input.fill(question)
        await expect(self.page.locator("#chat-submit")).to_be_enabled()
        await self.input.press("Enter")
        await expect(self.input).to_have_value("")

    async def answered(self, question: str) -> Locator:
        """Ask, and return the answer when it is whole."""
        before = await self.footers.count()
        await self.ask(question)
        return await self.answer(before)

    async def answer(self, number: int) -> Locator:
        """Return the answer of that number, from 0, when it is whole."""
        await expect(self.footers).to_have_count(number + 1)
        await expect(self.page.locator("#chat-submit")).to_be_visible()
        return self.answers.filter(has=self.page.locator(".answer-footer")).nth(number)

    async def choose(self, profile: str) -> None:
        """Choose who answers, in a new chat."""
        await self.page.locator("#chat-profiles").click()
        await self.page.get_by_role("option", name=profile).click()
        if await self.questions.count():
            await self.page.locator("#confirm").click()
            await expect(self.questions).to_have_count(0)

    async def thread_id(self) -> str:
        """Return the id of the chat, which is in the address once it has begun."""
        await self.page.wait_for_url(THREAD)
        found = THREAD.search(self.page.url)
        assert found is not None
        return found[1]

    async def sign_in(self, name: str, password: str) -> None:
        """Fill the login form and send it."""
        await self.page.locator("#email").fill(name)
        await self.page.locator("#password").fill(password)
        await self.page.locator("button[type=submit]").click()


def counts(model: ModelServer) -> Counter[str]:
    """Return what the scripted model counted."""
    return Counter(json.loads(model.get("/stub/stats")))


@dataclass
class Visits:
    """The browsers that a test opened, each with cookies of its own, and where they connected."""

    chromium: Browser
    contexts: list[BrowserContext] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    async def __call__(self, url: str, *, phone: bool = False, dark: bool = False) -> ChatPage:
        """Open a browser of its own for the server at `url`, on a computer or a phone; nothing is loaded yet."""
        context = await self.chromium.new_context(
            viewport=PHONE if phone else DESKTOP,
            locale="ko-KR",
            is_mobile=phone,
            has_touch=phone,
            color_scheme="dark" if dark else "light",
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        context.on("request", self._requested)
        context.on("weberror", lambda error: self.broken.append(str(error.error)))
        page = await context.new_page()
        page.on("websocket", self._opened)
        page.on("dialog", lambda dialog: self.broken.append(f"dialog: {dialog.message}"))
        return ChatPage(page, url)

    async def end(self) -> None:
        """Close the browsers; nothing may have left this machine, and no program of the page may have failed."""
        for context in self.contexts:
            await context.close()
        hosts = {urlsplit(address).hostname for address in self.connected} - {None}
        assert hosts <= {"127.0.0.1"}, f"the page connected to {hosts}"
        assert self.broken == []

    def _requested(self, request: Request) -> None:
        self.connected.append(request.url)

    def _opened(self, socket: WebSocket) -> None:
        self.connected.append(socket.url)


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """Start Debian's Chromium with a fresh profile, and close it."""
    program = shutil.which("chromium")
    assert program, "Chromium is missing: `make setup-dev` installs it"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=QUIET)
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Start the browser, one for all tests."""
    async with launched() as browser:
        yield browser


Visit = Callable[..., Awaitable[ChatPage]]


@pytest.fixture
async def visit(chromium: Browser) -> AsyncIterator[Visit]:
    """Yield what opens a browser with cookies of its own for a server; at the end all that they did is judged."""
    visits = Visits(chromium)
    yield visits
    await visits.end()


@pytest.fixture(scope="session")
def page_model() -> Iterator[ModelServer]:
    """Start a scripted model that writes at a reader's pace."""
    with scripted_model(*MODEL_SPEED) as model:
        yield model


@pytest.fixture(scope="session")
def page_switch(page_model: ModelServer) -> Iterator[ModelSwitch]:
    """Stand before that model."""
    switch = ModelSwitch(int(urlsplit(page_model.url).port or 0))
    yield switch
    switch.close()


@dataclass(frozen=True)
class Front:
    """The servers of the page, and two sites that have its widget, the first of which may."""

    chatting: Served
    signed: Served
    shop: str
    stranger: str


@pytest.fixture(scope="session")
def front(page_switch: ModelSwitch, indexed_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Launch both servers at once: each start keeps a core busy for seconds."""
    folder = tmp_path_factory.mktemp("front")
    users = folder / "users.htpasswd"
    hashes = {name: bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)) for name, password in PASSWORDS.items()}
    users.write_text("".join(f"{name}:{hashed.decode()}\n" for name, hashed in hashes.items()), "utf-8")
    with ExitStack() as stack:
        postgres = PostgresProcess()  # of its own: other tests empty theirs
        stack.callback(postgres.remove)
        postgres.start()
        provider = stack.enter_context(oauth_provider(CLIENT_SECRET, ELSEWHERE))
        allowed, stranger = (stack.enter_context(shop(lambda: guests.url)) for _ in range(2))
        guests = stack.enter_context(
            serving(
                folder / "chatting",
                indexed_dir,
                **model_settings(page_switch) | {"OPENAI__TIMEOUT_SECONDS": "20"},
                SERVER__CORS_ORIGINS=allowed,
                CACHE__ENABLED="false",
                STREAM__GRACE_SECONDS="2.5",
                LIMITS__PER_MINUTE="0",
                LIMITS__MAX_RUNS=str(MAX_RUNS),
                LIMITS__QUEUE="0",
            )
        )
        people = stack.enter_context(
            serving(
                folder / "signed",
                indexed_dir,
                "--only",
                "chat",
                CHAT__USERS=str(users),
                CHAT__HISTORY_URL=f"postgresql://test@127.0.0.1:{postgres.port}/postgres",
                LIMITS__PER_MINUTE="0",
            )
        )
        people.settings.update(
            OAUTH_GENERIC_CLIENT_ID="smartstore",
            OAUTH_GENERIC_CLIENT_SECRET=CLIENT_SECRET,
            OAUTH_GENERIC_AUTH_URL=f"{provider}/authorize",
            OAUTH_GENERIC_TOKEN_URL=f"{provider}/token",
            OAUTH_GENERIC_USER_INFO_URL=f"{provider}/user",
            OAUTH_GENERIC_SCOPES="email",
        )
        guests.launch()
        people.launch()
        yield Front(guests, people, allowed, stranger)


@pytest.fixture
def chatting(front: Front) -> Served:
    """Return the server of the page and the API with a model and guests; history in SQLite."""
    return front.chatting.start()


@pytest.fixture
def signed(front: Front) -> Served:
    """Return the server of the page alone, without a model, where people sign in; history in PostgreSQL."""
    return front.signed.start()
