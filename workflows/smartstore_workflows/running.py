"""One run of the answer workflow, as a stream of its events; whoever leaves the stream ends the run."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import anyio
from workflows import Workflow
from workflows.errors import WorkflowTimeoutError

from smartstore_indexing.errors import TransientError
from smartstore_workflows.events import Fact, Outcome, QuestionAsked, Restarted, TokenStreamed

CANCEL_GRACE_SECONDS = 5.0


async def events_of(workflow: Workflow, asked: QuestionAsked) -> AsyncGenerator[Fact | Outcome, None]:
    """Yield what a run writes to its stream, its Outcome last; close the iterator to stop the run.

    Raises:
        TransientError: the run took longer than the workflow's timeout.
        FaqError: a step raised it.
    """
    handler = workflow.run(start_event=asked)
    try:
        async for event in handler.stream_events():
            if isinstance(event, Fact | Outcome):
                yield event
        await handler
    except WorkflowTimeoutError as error:
        raise TransientError("답변이 제한 시간 안에 끝나지 않았습니다. 잠시 후 다시 질문해 주세요.") from error
    finally:
        # Cancelling the reader does not stop a run, and under Starlette the cancellation reaches this await too.
        with anyio.move_on_after(CANCEL_GRACE_SECONDS, shield=True):
            await handler.cancel_run()


@dataclass(frozen=True, slots=True)
class TimedOutcome:
    """How a run ended, and after how many seconds the first token of its answer, and all of it, was there."""

    outcome: Outcome
    first_token: float
    whole: float


async def outcome_of(workflow: Workflow, asked: QuestionAsked) -> Outcome:
    """Return how a run ends; raises what `events_of` raises."""
    return (await timed_outcome_of(workflow, asked)).outcome


async def timed_outcome_of(workflow: Workflow, asked: QuestionAsked) -> TimedOutcome:
    """Return how a run ends, timed; raises what `events_of` raises."""
    began, first_token = time.perf_counter(), None
    async with aclosing(events_of(workflow, asked)) as events:
        async for event in events:
            passed = time.perf_counter() - began
            if isinstance(event, Outcome):
                return TimedOutcome(event, passed if first_token is None else first_token, passed)
            if isinstance(event, Restarted):
                first_token = None
            elif isinstance(event, TokenStreamed) and first_token is None:
                first_token = passed
    raise TransientError("답변이 끝나지 않았습니다. 다시 시도해 주세요.")
