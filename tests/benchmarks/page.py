"""Time the chat page in a real browser: from Enter to the first token on the page.

    python tests/benchmarks/page.py

starts the scripted model server at its default speed (first token after 200 ms), `smartstore serve` over the sample
FAQ in a temporary folder, and Chromium; each question is asked in a chat of its own, every one different.
"""

import asyncio
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))
from browsing import DESKTOP, ChatPage, launched  # noqa: E402  # they lie beside this folder
from served import PROGRAM, scripted_model, serving  # noqa: E402

QUESTIONS = (
    "미성년자도 판매 회원 등록이 가능한가요?",
    "정산은 언제 되나요?",
    "제주도는 배송비를 더 받을 수 있나요?",
    "전통주를 온라인으로 판매할 수 있나요?",
    "스토어 이름을 바꿀 수 있나요?",
)
TARGET_SECONDS = 1.0
# Notes in the page itself when Enter went down and when the answer's first words stood there.
CLOCK = """() => {
  const note = (event) => { if (event.key === "Enter") window.entered = performance.now(); };
  document.addEventListener("keydown", note, true);
  new MutationObserver(() => {
    const text = document.querySelector('[data-step-type="assistant_message"] .prose')?.innerText.trim();
    if (text && !window.answered) requestAnimationFrame(() => { window.answered ??= performance.now(); });
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


def main() -> None:
    """Start everything, measure and print."""
    with tempfile.TemporaryDirectory(prefix="smartstore-page-") as name, ExitStack() as stack:
        folder = Path(name)
        settings = {"PATH": "/usr/bin:/bin", "HOME": name, "SMARTSTORE_DATA_DIR": str(folder / "indexed")}
        subprocess.run([PROGRAM, "index"], env=settings, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        model = stack.enter_context(scripted_model())
        served = stack.enter_context(
            serving(
                folder / "served",
                folder / "indexed",
                OPENAI_API_KEY="sk-bench",
                OPENAI_BASE_URL=model.url,
                OPENAI__MODEL="stub",
                LIMITS__PER_MINUTE="0",
            )
        )
        seconds = asyncio.run(first_tokens(served.start().url))
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    print("Enter to first token on the page, s:", ", ".join(f"{second:.2f}" for second in seconds))
    print(f"median {median(seconds):.2f} s (target: {TARGET_SECONDS} s)")


async def first_tokens(url: str) -> list[float]:
    """Return the seconds to the first token of each question."""
    seconds = []
    async with launched() as browser:
        for question in QUESTIONS:
            context = await browser.new_context(viewport=DESKTOP, locale="ko-KR")
            chat = await ChatPage(await context.new_page(), url).open()
            await chat.page.evaluate(CLOCK)
            await chat.ask(question)
            await chat.page.wait_for_function("window.answered")
            seconds.append(await chat.page.evaluate("(answered - entered) / 1000"))
            await context.close()
    return seconds


if __name__ == "__main__":
    main()
