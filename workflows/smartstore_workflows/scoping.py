"""Whether a seller asks, as the model sees it, for questions that scope.py is not sure of; prompts/scope.txt rules."""

from collections.abc import Sequence

import structlog
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from smartstore_indexing.errors import ModelUnavailable
from smartstore_indexing.faq import FAQ
from smartstore_workflows.model_calls import Completes
from smartstore_workflows.prompting import rules, unfenced

log = structlog.get_logger(__name__)
MAX_TOKENS = 20
SHOWN = 5  # titles of what was found
REPLIES = {"예": True, "네": True, "아니요": False, "아니오": False}


async def in_scope(model: Completes, question: str, found: Sequence[FAQ], timeout_seconds: float) -> bool | None:
    """Return whether a question is a SmartStore seller's; `found` are the FAQs that fit it best.

    None when the model fails, takes longer than its timeout, or says neither yes nor no.
    """
    try:
        reply, _ = await model.complete(
            scope_messages(question, found), max_tokens=MAX_TOKENS, timeout_seconds=timeout_seconds
        )
    except ModelUnavailable as error:
        log.warning("scope not judged by the model", model=model.name, code=error.code, reason=error.message)
        return None
    said = REPLIES.get(reply.strip(" \n\"'.!").removesuffix("입니다"))
    if said is None:
        log.info("scope not judged by the model", model=model.name, reason="the reply is neither yes nor no")
    return said


def scope_messages(question: str, found: Sequence[FAQ]) -> list[ChatMessage]:
    """Return the chat that asks whether a question is in scope, with the titles of the first five FAQs."""
    titles = [f'<faq number="{number}">{unfenced(faq.title)}</faq>' for number, faq in enumerate(found[:SHOWN], 1)]
    content = "\n".join([*titles, f"<question>\n{unfenced(question)}\n</question>"])
    return [
        ChatMessage(role=MessageRole.SYSTEM, content=rules("scope")),
        ChatMessage(role=MessageRole.USER, content=content),
    ]
