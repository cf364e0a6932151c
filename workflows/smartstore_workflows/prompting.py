"""What a model is asked. Pure: FAQs and a conversation in, chat messages out; the rules stand in prompts/."""

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from smartstore_indexing.faq import FAQ
from smartstore_workflows.events import Turn

CONTEXT_FAQS = 5
CONTEXT_CHARACTERS = 6_000  # about 4,000 tokens of Korean: mostly five whole FAQs
HISTORY_TURNS = 3
FENCE = re.compile(r"<\s*/?\s*(?:faq|question|history)\b(?:[^<>]*>)?", re.IGNORECASE)
CITATION = re.compile(r"\[(\d{1,2})\]")


@cache
def rules(prompt: str = "answer") -> str:
    """Return the system message of a prompt, which is named as its file in prompts/."""
    file = resources.files("smartstore_workflows").joinpath(f"prompts/{prompt}.txt")
    return file.read_text(encoding="utf-8").strip()


def answer_messages(question: str, faqs: Sequence[FAQ], history: Sequence[Turn]) -> list[ChatMessage]:
    """Return the chat that asks for an answer from these FAQs, numbered from 1, best first.

    FAQs are cut where their answers together exceed CONTEXT_CHARACTERS; what looks like a fence in a text is removed.
    """
    messages = [ChatMessage(role=MessageRole.SYSTEM, content=rules())]
    for turn in history[-HISTORY_TURNS:]:
        messages.append(ChatMessage(role=MessageRole.USER, content=unfenced(turn.question)))
        messages.append(ChatMessage(role=MessageRole.ASSISTANT, content=unfenced(turn.answer)))
    blocks, room = [], CONTEXT_CHARACTERS
    for number, faq in enumerate(faqs, start=1):
        answer = faq.answer[:room]
        room -= len(answer)
        blocks.append(f'<faq number="{number}">\n질문: {unfenced(faq.title)}\n답변: {unfenced(answer)}\n</faq>')
    content = "\n".join([*blocks, f"<question>\n{unfenced(question)}\n</question>"])
    return [*messages, ChatMessage(role=MessageRole.USER, content=content)]


def cited_numbers(text: str, sources: int) -> list[int]:
    """Return the numbers that a text cites, in the order of their first mention, those from 1 to `sources` only."""
    numbers = (int(number) for number in CITATION.findall(text))
    return list(dict.fromkeys(number for number in numbers if 1 <= number <= sources))


def without_dangling(text: str, sources: int) -> str:
    """Return the text without citations that point to no source."""
    return CITATION.sub(lambda mark: mark[0] if 1 <= int(mark[1]) <= sources else "", text)


def unfenced(text: str) -> str:
    """Return the text without what looks like a fence of a prompt."""
    while (without := FENCE.sub("", text)) != text:  # taking <faq> out of <fa<faq>q> leaves one
        text = without
    return text
