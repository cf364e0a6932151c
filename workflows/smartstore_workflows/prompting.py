"""What a model is asked. Pure: FAQs and a conversation in, chat messages out; the rules stand in prompts/.

A prompt's file begins with its version, `# version: 2`: it counts up with every change, and answers are kept under it.
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from smartstore_indexing.faq import FAQ
from smartstore_workflows.events import Turn
from smartstore_workflows.tokens import BYTES_A_TOKEN, estimated_tokens

CONTEXT_FAQS = 5
CONTEXT_TOKENS = 4_800  # as estimated, so about 3,700 real ones: any five FAQs of the help centre, in 98.7% of cases
HISTORY_TURNS = 3
VERSION = "# version: "
# Full-width forms as their narrow ones: ＜, ３ and ％. Lengths stay, so places in the text do.
NARROW = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}
# What shows as nothing or as a blank: Unicode's format characters, variation selectors, and the Hangul fillers.
HIDDEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
TAGS = re.compile("[\U000e0000-\U000e0fff]")  # nobody sees them, and a model may read them as letters
# A prompt's own tags, and the marks of chat templates such as <|im_start|>, which servers take for what they are.
FENCE = re.compile(r"<[\s/]*(?:faq|question|history)\b(?:[^<>]*>)?|<\|[^<>|]*\|>", re.IGNORECASE)
CITATION = re.compile(r"\[(\d{1,2})\]")
OPENED, CLOSED = re.compile(r"\[\d{0,2}$"), re.compile(r"\d{0,2}\]")


def prompts() -> list[str]:
    """Return the names of all prompts."""
    files = resources.files("smartstore_workflows").joinpath("prompts").iterdir()
    return sorted(file.name.removesuffix(".txt") for file in files)


def rules(prompt: str = "answer") -> str:
    """Return the system message of a prompt, which is named as its file in prompts/."""
    return _read(prompt)[1]


def prompt_version(prompt: str = "answer") -> str:
    """Return the version of a prompt."""
    return _read(prompt)[0]


@cache
def _read(prompt: str) -> tuple[str, str]:
    file = resources.files("smartstore_workflows").joinpath(f"prompts/{prompt}.txt")
    first, _, rest = file.read_text(encoding="utf-8").partition("\n")
    return first.removeprefix(VERSION), rest.strip()


def answer_messages(
    question: str, faqs: Sequence[FAQ], history: Sequence[Turn], *, budget_tokens: int = CONTEXT_TOKENS
) -> list[ChatMessage]:
    """Return the chat that asks for an answer from these FAQs, numbered from 1, best first.

    The FAQs take at most `budget_tokens`, as estimated_tokens counts; what looks like a fence in a text is removed.
    """
    messages = [ChatMessage(role=MessageRole.SYSTEM, content=rules())]
    for turn in history[-HISTORY_TURNS:]:
        messages.append(ChatMessage(role=MessageRole.USER, content=unfenced(turn.question)))
        messages.append(ChatMessage(role=MessageRole.ASSISTANT, content=unfenced(turn.answer)))
    content = f"{packed(faqs, budget_tokens)}<question>\n{unfenced(question)}\n</question>"
    return [*messages, ChatMessage(role=MessageRole.USER, content=content)]


def packed(faqs: Sequence[FAQ], budget_tokens: int) -> str:
    """Return the FAQs in fences, numbered from 1, as many as the budget holds.

    First come those that fit whole, the best before the others; then, cut, those that do not. In the text they stand
    in their own order, with their own numbers.
    """
    blocks: dict[int, str] = {}
    room = budget_tokens
    for number, faq in enumerate(faqs, start=1):
        block = _block(number, faq.title, faq.answer)
        if (cost := estimated_tokens(block)) <= room:
            blocks[number] = block
            room -= cost
    for number, faq in enumerate(faqs, start=1):
        if number not in blocks:
            answer = _beginning(faq.answer, room - estimated_tokens(_block(number, faq.title, "")))
            if answer:
                blocks[number] = _block(number, faq.title, answer)
                room -= estimated_tokens(blocks[number])
    return "".join(blocks[number] for number in sorted(blocks))


def _block(number: int, title: str, answer: str) -> str:
    return f'<faq number="{number}">\n질문: {unfenced(title)}\n답변: {unfenced(answer)}\n</faq>\n'


def _beginning(text: str, tokens: int) -> str:
    """Return the first whole words of a text and "…", within so many tokens; "" where not two words fit."""
    head = text.encode("utf-8", "replace")[: max(tokens - 1, 0) * BYTES_A_TOKEN].decode("utf-8", "ignore")
    words = head.rsplit(maxsplit=1)  # the last one may be half a number
    return f"{words[0]}…" if len(words) > 1 else ""


def cited_numbers(text: str, sources: int) -> list[int]:
    """Return the numbers that a text cites, in the order of their first mention, those from 1 to `sources` only."""
    numbers = (int(number) for number in CITATION.findall(text))
    return list(dict.fromkeys(number for number in numbers if 1 <= number <= sources))


def without_dangling(text: str, sources: int) -> str:
    """Return the text without citations that point to no source; what stood around one makes no new one."""
    kept, end = "", 0
    for mark in CITATION.finditer(text):
        if not 1 <= int(mark[1]) <= sources:
            kept, end = _joined(kept, text[end : mark.start()]), mark.end()
    return _joined(kept, text[end:])


def _joined(before: str, after: str) -> str:
    return f"{before} {after}" if OPENED.search(before) and CLOSED.match(after) else before + after


def unfenced(text: str) -> str:
    """Return the text without what looks like a fence of a prompt, and without Unicode's tag characters.

    Where a fence is found, hidden characters go too: they may have hidden it. Elsewhere they stay: emoji have them.
    """
    text = TAGS.sub("", text)
    bare = HIDDEN.sub("", text)
    if not FENCE.search(bare.translate(NARROW)):
        return text
    text = bare
    while fences := [hit.span() for hit in FENCE.finditer(text.translate(NARROW))]:
        for start, end in reversed(fences):
            text = text[:start] + text[end:]  # taking <faq> out of <fa<faq>q> leaves one
    return text
