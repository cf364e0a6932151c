"""What a worker is asked through the queue, and what everything that answers looks like to the doors."""

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from smartstore_indexing.messages import MAX_BODY_BYTES, AnswerRequested, Name, written
from smartstore_workflows import wire
from smartstore_workflows.events import Turn
from smartstore_workflows.masking import mask
from smartstore_workflows.run_events import new_id
from smartstore_workflows.understanding import checked_session_id


class AnswerAsked(AnswerRequested):
    """An answer.requested of our own doors.

    `history` is the conversation of a caller that keeps it; `request_id` is what `error` events name.
    """

    history: tuple[Turn, ...] | None = None
    request_id: Name | None = None


class Answers(Protocol):
    """Whatever answers: the bot of this process, or workers behind a queue."""

    def stream(
        self,
        question: str,
        *,
        session_id: str | None = None,
        faq_id: str | None = None,
        model: str | None = None,
        history: Sequence[Turn] | None = None,
        request_id: str | None = None,
        run_id: str | None = None,
    ) -> AsyncGenerator[wire.StreamEvent, None]:
        """Yield the events of one answer; takes and raises what `Chatbot.stream` does."""


def asked(
    question: str,
    *,
    wait_seconds: float,
    session_id: str | None = None,
    faq_id: str | None = None,
    model: str | None = None,
    history: Sequence[Turn] | None = None,
    request_id: str | None = None,
    run_id: str | None = None,
) -> AnswerAsked:
    """Return the request for an answer that must begin within so many seconds, personal data masked.

    Raises:
        InvalidRequest: the conversation's id cannot be used.
    """
    request = AnswerAsked(
        run_id=run_id or new_id(),
        session_id=checked_session_id(session_id) or new_id(),
        question=mask(question),
        faq_id=faq_id,
        model=model,
        deadline=time.time() + wait_seconds,
        request_id=request_id,
        history=None if history is None else tuple(history),
    )
    while request.history and len(written(request)) > MAX_BODY_BYTES:
        request = request.model_copy(update={"history": request.history[1:]})  # the oldest turn matters least
    return request
