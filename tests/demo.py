"""Pictures and transcripts of the chat page, taken in a real browser from a real server: what `make demo` runs."""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import httpx
from browsing import DESKTOP, PHONE, ChatPage, launched
from conftest import ROOT
from playwright.async_api import Browser, expect
from served import PROGRAM, Served, serving
from sites import storyteller

OUTPUT = ROOT / "docs" / "demo"
MINOR = "미성년자도 판매 회원 등록이 가능한가요?"
JOINING = "스마트스토어 판매자로 가입하려면 어떻게 하나요?"
ISLAND = "제주도는 배송비를 더 받을 수 있나요?"
SETTLED = "정산은 언제 되나요?"
RESTAURANT = "오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?"
HOLDING = "미성년자도 판매 회원 등록이 가능한가요? 천천히 알려 주세요."  # the model takes a minute for this one
BITCOIN = "정산 대금을 비트코인으로 받을 수 있나요?"
USER, PASSWORD = "seller", "demo"
MODEL = "scripted-demo"
# What the scripted model says to whatever it is asked; it stands where a real one would.
SAID = (
    "네, **만 14세 이상 19세 미만**이라면 부모님 등 법정대리인의 동의를 받아 판매 회원으로 가입하실 수 있습니다 [1]. "
    "만 14세 미만은 판매 회원이 될 수 없습니다 [1].\n\n"
    "가입을 신청하실 때에는 동의서 같은 서류를 함께 내셔야 합니다 [2]. 자세한 내용은 아래 도움말을 확인해 주세요."
)
# What stands in an element, its lists with their marks.
AS_TEXT = """(element) => {
  const copy = document.body.appendChild(element.cloneNode(true));
  for (const item of copy.querySelectorAll("li"))
    item.prepend(item.parentNode.tagName === "OL" ? `${[...item.parentNode.children].indexOf(item) + 1}) ` : "· ");
  const text = copy.innerText;
  copy.remove();
  return text;
}"""
STEADY_MS = 600  # until what moves on the page has come to rest
PICTURES = {
    "01-welcome": "첫 화면: 답할 수 있는 것과 없는 것, 시작 질문",
    "02-stages": "답변을 준비하는 단계",
    "03-streaming": "한 글자씩 써 내려가는 답변",
    "04-source": "[1]을 눌러 펼친 출처",
    "05-follow-up": "추천 질문을 눌러 바로 받은 답변",
    "06-refused": "스마트스토어와 관계없는 질문",
    "07-not-found": "FAQ에 답이 없는 질문",
    "08-history": "지난 대화",
    "09-error": "오류와 다시 시도",
    "10-login": "로그인",
    "11-phone": "휴대전화의 첫 화면",
    "12-phone-answer": "휴대전화의 답변",
    "13-dark": "어두운 테마",
    "14-widget": "다른 사이트에 넣은 위젯",
}


@dataclass(frozen=True)
class Talk:
    """A transcript: what the seller types, None where the first follow-up is pressed."""

    name: str
    title: str
    turns: tuple[str | None, ...]


TALKS = (
    Talk("1-new-seller", "처음 가입하는 판매자", (JOINING, "사업자등록을 안 했는데 서류를 내야 하나요?", MINOR, None)),
    Talk(
        "2-shipping-and-settlement",
        "배송과 정산을 이어서 묻기",
        (ISLAND, None, SETTLED, "더 빨리 받을 수는 없나요?", None),
    ),
    Talk("3-unrelated", "스마트스토어와 관계없는 질문", (RESTAURANT, None)),
    Talk("4-not-in-the-faq", "FAQ에 답이 없는 질문", (BITCOIN, None)),
)


def main() -> None:
    """Take the pictures and write the transcripts."""
    parser = argparse.ArgumentParser(
        description="채팅 페이지의 주요 화면(PNG)과 대화 기록(TXT)을 실제 서버와 브라우저로 만듭니다.",
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help="이 도움말을 보여 줍니다.")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="폴더", help="쓸 폴더 (기본값: docs/demo)")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="smartstore-demo-") as folder, ExitStack() as stack:
        chatting, signed = servers(Path(folder), stack)
        asyncio.run(taken(output, chatting.start(), signed.start()))
    (output / "README.md").write_text(listed(), "utf-8")
    sys.stdout.write(f"{output}에 화면 {len(PICTURES)}장과 대화 {len(TALKS)}편을 썼습니다.\n")


def servers(folder: Path, stack: ExitStack) -> tuple[Served, Served]:
    """Return a server with a model and guests, and one where people sign in, both being started over the sample FAQ."""
    indexed = folder / "indexed"
    settings = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "SMARTSTORE_DATA_DIR": str(indexed)}
    subprocess.run([PROGRAM, "index"], env=settings, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    users = folder / "users.htpasswd"
    users.write_text(f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n", "utf-8")
    chatting = stack.enter_context(
        serving(
            folder / "chatting",
            indexed,
            OPENAI_API_KEY="sk-demo",
            OPENAI_BASE_URL=stack.enter_context(storyteller(MODEL, SAID, slow_for=HOLDING)),
            OPENAI__MODEL=MODEL,
            LIMITS__PER_MINUTE="0",
            LIMITS__MAX_RUNS="1",
            LIMITS__QUEUE="0",
            STREAM__GRACE_SECONDS="0.5",
        )
    )
    signed = stack.enter_context(serving(folder / "signed", indexed, "--only", "chat", CHAT__USERS=str(users)))
    for server in (chatting, signed):
        server.launch()
    return chatting, signed


async def taken(output: Path, chatting: Served, signed: Served) -> None:
    """Write all pictures and transcripts into a folder."""
    async with launched() as browser:
        camera = Camera(output, browser)
        await camera.conversation(chatting.url)
        await camera.outcomes(chatting.url)
        await camera.places(chatting.url, signed.url)
        for talk in TALKS:
            chat = await camera.visit(chatting.url)
            (output / f"{talk.name}.txt").write_text(await transcript(chat, talk), "utf-8")


class Camera:
    """Takes the pictures."""

    def __init__(self, output: Path, browser: Browser) -> None:
        """Write into a folder what a browser shows."""
        self._output = output
        self._browser = browser

    async def conversation(self, url: str) -> None:
        """Take one answer of the model from its question to a follow-up's answer."""
        chat = await self.visit(url)
        await expect(chat.page.locator("#starters button").first).to_be_visible()
        await self._take(chat, "01-welcome")
        await chat.ask(MINOR)
        await expect(chat.stages.first).to_contain_text("답변 작성")
        await self._take(chat, "02-stages")
        await expect(chat.answers.first).to_contain_text("가입하실 수 있습니다")
        await self._take(chat, "03-streaming", steady=False)
        answer = await chat.answer(0)
        await answer.get_by_role("link", name="[1]", exact=True).first.click()
        await self._take(chat, "04-source")

    async def outcomes(self, url: str) -> None:
        """Take the answers that the FAQ alone gives, those that it cannot give, the chats so far, and an error."""
        chat = await self.visit(url)
        await chat.choose("FAQ 그대로")
        answer = await chat.answered(ISLAND)
        await answer.locator(".follow-up").first.click()
        await chat.answer(1)
        await self._take(chat, "05-follow-up")
        for name, question in (("06-refused", RESTAURANT), ("07-not-found", BITCOIN)):
            await chat.page.locator("#new-chat-button").first.click()
            await expect(chat.questions).to_have_count(0)
            await chat.answered(question)
            await self._take(chat, name)
        await chat.threads.first.hover()
        await chat.threads.first.locator("#thread-options").click()
        await self._take(chat, "08-history")
        chat = await self.visit(url)
        taking = httpx.AsyncClient(base_url=url)
        async with taking, taking.stream("POST", "/api/chat", json={"question": HOLDING}) as the_only_place:
            parts = the_only_place.aiter_bytes()  # to let it go would be to hang up
            await anext(parts)
            await chat.answered(SETTLED)
            await self._take(chat, "09-error")

    async def places(self, url: str, signed_url: str) -> None:
        """Take the login, a phone, the dark theme and the widget."""
        chat = await self.visit(signed_url, opened=False)
        await chat.page.goto(signed_url)
        await expect(chat.page.locator("#email")).to_be_visible()
        await self._take(chat, "10-login")
        chat = await self.visit(url, phone=True)
        await expect(chat.page.locator("#starters button").first).to_be_visible()
        await self._take(chat, "11-phone")
        await chat.choose("FAQ 그대로")
        await chat.answered(MINOR)
        await self._take(chat, "12-phone-answer")
        chat = await self.visit(url, opened=False)
        await chat.open("/?theme=dark")
        await chat.choose("FAQ 그대로")
        answer = await chat.answered(SETTLED)
        await answer.locator(".source-title").first.click()
        await self._take(chat, "13-dark")
        chat = await self.visit(url, opened=False)
        await chat.page.goto(f"{url}/widget")
        await chat.page.locator("#chainlit-copilot-button").click()
        await chat.answered(MINOR)
        await self._take(chat, "14-widget")

    async def visit(self, url: str, *, phone: bool = False, opened: bool = True) -> ChatPage:
        """Open a browser of its own for a server, and there the page."""
        context = await self._browser.new_context(
            viewport=PHONE if phone else DESKTOP, locale="ko-KR", is_mobile=phone, has_touch=phone
        )
        chat = ChatPage(await context.new_page(), url)
        return await chat.open() if opened else chat

    async def _take(self, chat: ChatPage, name: str, *, steady: bool = True) -> None:
        if steady:
            await chat.page.wait_for_timeout(STEADY_MS)
        await chat.page.screenshot(path=self._output / f"{name}.png")


async def transcript(chat: ChatPage, talk: Talk) -> str:
    """Return a talk with the FAQ alone as text: who said what, the sources, the follow-ups."""
    await chat.choose("FAQ 그대로")
    lines = [talk.title, "=" * 2 * len(talk.title), ""]
    for number, typed in enumerate(talk.turns):
        pressed = ""
        if typed is None:
            button = chat.page.locator(".answer-footer").last.locator(".follow-up").first
            pressed = f" (추천 질문을 누름: “{await button.inner_text()}”)"
            await button.click()
        else:
            await chat.ask(typed)
        answer = await chat.answer(number)
        lines += [f"판매자{pressed}: {await chat.questions.nth(number).inner_text()}", ""]
        lines += [f"챗봇: {await answer.locator('.prose').first.evaluate(AS_TEXT)}", ""]
        for title in await answer.locator(".source-title").all():
            source, category, question = [
                await title.locator(f".source-{part}").inner_text() for part in ("number", "category", "question")
            ]
            lines.append(f"  출처 [{source}] {category} > {question}")
        lines += [f"  추천 질문: {offer}" for offer in await answer.locator(".follow-up").all_inner_texts()]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def listed() -> str:
    """Return the page that lists what was made."""
    lines = ["# 채팅 페이지의 화면과 대화", ""]
    lines += ["`make demo`가 예시 FAQ 위의 실제 서버를 Chromium으로 열어 만든 것입니다. 손으로 고치지 않습니다.", ""]
    lines += [
        f"대화 기록은 모델 없이 FAQ 그대로 답한 것이고, 화면의 `{MODEL}`은 정해진 글을 쓰는 시험용 모델입니다.",
        "",
    ]
    lines += ["## 대화", "", *(f"- [{talk.title}]({talk.name}.txt)" for talk in TALKS), "", "## 화면", ""]
    for name, shows in PICTURES.items():
        lines += [f"### {shows}", "", f"![{shows}]({name}.png)", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
