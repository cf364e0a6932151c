"""What the workflow asks of a model; the clients themselves are imported when a model is configured."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from llama_index.core.base.llms.types import ChatMessage
from pydantic import BaseModel

from smartstore_workflows.events import Usage


class Completes(Protocol):
    """What gives short completions: a model, or a Meter before one."""

    name: str

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int,
        timeout_seconds: float,
        form: type[BaseModel] | None = None,
    ) -> tuple[str, Usage]:
        """Return a short reply at temperature 0, without the model's reasoning, and what it took; never tries again.

        With a `form` the server is asked for JSON of that form, which it may not heed.

        Raises:
            ModelUnavailable: the model refused, failed, was cut off by `max_tokens`, or took longer than its timeout.
        """
        ...


class Writes(Completes, Protocol):
    """What writes answers; `name` is the model's own, as its server knows it.

    `faq_tokens` are those, as tokens.py estimates them, that the FAQs of a prompt may take.
    """

    faq_tokens: int

    def stream(self, messages: Sequence[ChatMessage], *, thinking: bool = False) -> AsyncGenerator[str | Usage, None]:
        """Yield the answer's pieces, then its Usage where the server counts it; closing the iterator stops the model.

        What it thinks between <think> and </think> is left out, unless `thinking` asks for it.

        Raises:
            ModelUnavailable: the model refused, failed, broke off or was silent for longer than its timeout.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Meter:
    """A model's short completions in one run, counted: `usage` is what they took together."""

    def __init__(self, model: Completes) -> None:
        """Count from zero."""
        self.name = model.name
        self.usage = Usage()
        self._model = model

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int,
        timeout_seconds: float,
        form: type[BaseModel] | None = None,
    ) -> tuple[str, Usage]:
        """Return the model's reply; raises what that raises."""
        text, usage = await self._model.complete(
            messages, max_tokens=max_tokens, timeout_seconds=timeout_seconds, form=form
        )
        self.usage += usage
        return text, usage
