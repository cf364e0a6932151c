"""Which follow-ups to offer, as the model sees it, out of those that suggesting.py found; prompts/suggest.txt rules."""

from collections.abc import Sequence

import structlog
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from pydantic import BaseModel, ValidationError

from smartstore_indexing.errors import ModelUnavailable
from smartstore_indexing.faq import FAQ
from smartstore_workflows.model_calls import Completes
from smartstore_workflows.prompting import rules, unfenced

log = structlog.get_logger(__name__)
MAX_TOKENS = 100  # a list of three numbers takes about 15


class Chosen(BaseModel, extra="forbid"):
    """What the model replies: the numbers of FAQs, the best first."""

    faqs: list[int]


async def choose(
    model: Completes, question: str, candidates: Sequence[FAQ], timeout_seconds: float
) -> list[FAQ] | None:
    """Return the candidates with those that the model chose first, the others in their old order; each stands once.

    None when the model fails, takes longer than its timeout, or replies in another form.
    """
    try:
        reply, _ = await model.complete(
            choice_messages(question, candidates), max_tokens=MAX_TOKENS, timeout_seconds=timeout_seconds, form=Chosen
        )
        chosen = Chosen.model_validate_json(reply)
    except ModelUnavailable as error:
        log.warning("follow-ups not chosen by the model", model=model.name, code=error.code, reason=error.message)
        return None
    except ValidationError:
        log.info("follow-ups not chosen by the model", model=model.name, reason="the reply has another form")
        return None
    first = [candidates[number - 1] for number in chosen.faqs if 1 <= number <= len(candidates)]
    return list({faq.id: faq for faq in [*first, *candidates]}.values())


def choice_messages(question: str, candidates: Sequence[FAQ]) -> list[ChatMessage]:
    """Return the chat that asks which FAQs to offer after a question, with their titles, numbered from 1."""
    titles = [f'<faq number="{number}">{unfenced(faq.title)}</faq>' for number, faq in enumerate(candidates, start=1)]
    content = "\n".join([*titles, f"<question>\n{unfenced(question)}\n</question>"])
    return [
        ChatMessage(role=MessageRole.SYSTEM, content=rules("suggest")),
        ChatMessage(role=MessageRole.USER, content=content),
    ]
