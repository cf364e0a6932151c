"""The order of the best FAQs, as the model sees it; the rules stand in prompts/rerank.txt.

LlamaIndex's LLMRerank is not used because it keeps only the text of a reply, so that its tokens could not be counted,
drops the FAQs that the reply does not name, repeats those that it names twice, and takes number 0 for the last.
"""

import re
from collections.abc import Sequence

import structlog
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from smartstore_indexing.errors import ModelUnavailable
from smartstore_indexing.faq import FAQ
from smartstore_workflows.extracting import plain
from smartstore_workflows.model_calls import Completes
from smartstore_workflows.prompting import rules, unfenced

log = structlog.get_logger(__name__)
RERANKED = 10
ANSWER_CHARACTERS = 300  # of each answer, its beginning
MAX_TOKENS = 100  # ten numbers and their commas take about 40
# Numbers with nothing but separators between them; words may stand before the first and after the last.
ORDER = re.compile(r"[^0-9]*([0-9]{1,3}(?:[\s,>()\[\]번]+[0-9]{1,3})*)[^0-9]*")


async def rerank(model: Completes, question: str, faqs: Sequence[FAQ], timeout_seconds: float) -> list[int] | None:
    """Return the FAQs' numbers, from 1, in the order in which they answer the question; each number stands once.

    The model sees the first ten; those that it does not name follow in their old order, and so do the others. None when
    the model fails, takes longer than its timeout, or names none. Fewer than two FAQs are not asked about.
    """
    if len(faqs) < 2:
        return list(range(1, len(faqs) + 1))
    try:
        reply, _ = await model.complete(
            rerank_messages(question, faqs), max_tokens=MAX_TOKENS, timeout_seconds=timeout_seconds
        )
    except ModelUnavailable as error:
        log.warning("passages not reranked", model=model.name, code=error.code, reason=error.message)
        return None
    named = named_numbers(reply, min(len(faqs), RERANKED))
    if not named:
        log.info("passages not reranked", model=model.name, reason="the reply names none of them")
        return None
    return list(dict.fromkeys([*named, *range(1, len(faqs) + 1)]))


def rerank_messages(question: str, faqs: Sequence[FAQ]) -> list[ChatMessage]:
    """Return the chat that asks for the order of the first ten FAQs, numbered from 1."""
    blocks = [
        f'<faq number="{number}">\n질문: {unfenced(faq.title)}\n'
        f"답변: {unfenced(plain(faq.answer, ANSWER_CHARACTERS))}\n</faq>"
        for number, faq in enumerate(faqs[:RERANKED], start=1)
    ]
    content = "\n".join([*blocks, f"<question>\n{unfenced(question)}\n</question>"])
    return [
        ChatMessage(role=MessageRole.SYSTEM, content=rules("rerank")),
        ChatMessage(role=MessageRole.USER, content=content),
    ]


def named_numbers(reply: str, count: int) -> list[int]:
    """Return the numbers from 1 to `count` that a reply lists, each once; none when it is no list of numbers."""
    order = ORDER.fullmatch(reply)
    numbers = map(int, re.findall("[0-9]+", order[1])) if order else ()
    return list(dict.fromkeys(number for number in numbers if 1 <= number <= count))
