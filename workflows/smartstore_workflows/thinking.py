"""A reasoning model's thinking, taken out of what it writes: nobody sees it, and nothing keeps it."""

import re
from collections.abc import AsyncGenerator, AsyncIterator

from smartstore_indexing.errors import ModelUnavailable
from smartstore_workflows.events import Usage

MIXED = "모델이 생각하는 글을 답에 섞어 보냈습니다. 모델 서버의 추론 파서 설정을 확인해 주세요."
OPENING, CLOSING = "<think>", "</think>"
THOUGHT = re.compile(rf"\A.*{CLOSING}|{OPENING}.*\Z", re.DOTALL)  # some servers leave out the opening tag


def without_thought(text: str) -> str:
    """Return a whole reply without its thinking."""
    return THOUGHT.sub("", text).strip()


async def without_thinking(pieces: AsyncIterator[str | Usage]) -> AsyncGenerator[str | Usage, None]:
    """Yield the pieces of a stream without what stands between <think> and </think>; a Usage goes through.

    Text that may be the beginning of a tag waits for what follows it.

    Raises:
        ModelUnavailable: a closing tag came without its opening one, so what was shown was thinking.
    """
    held, thinking, said = "", False, False
    async for piece in pieces:
        if not isinstance(piece, str):
            yield piece
            continue
        held += piece
        shown = ""
        while (tag := CLOSING if thinking else OPENING) in held:
            before, _, held = held.partition(tag)
            shown += "" if thinking else before
            thinking = not thinking
        if not thinking and CLOSING in shown + held:
            raise ModelUnavailable(MIXED)
        waits = _overlap(held, (CLOSING,) if thinking else (OPENING, CLOSING))
        if not thinking:
            shown += held[: len(held) - waits]
        held = held[len(held) - waits :]
        shown = shown if said else shown.lstrip()
        if shown:
            said = True
            yield shown
    if held and not thinking:
        yield held


def _overlap(text: str, tags: tuple[str, ...]) -> int:
    """Return how many characters at the end of a text may begin a tag."""
    return max(next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0) for tag in tags)
