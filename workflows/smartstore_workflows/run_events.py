"""One run as its reader sees it: the workflow's events become the wire's, numbered, and its record is kept."""

import secrets
import time

from smartstore_indexing.errors import FaqError, TransientError
from smartstore_workflows import wire
from smartstore_workflows.events import (
    AnswerWritten,
    Fact,
    Outcome,
    Restarted,
    SourcesFound,
    StageEnded,
    StageStarted,
    TokenStreamed,
    Usage,
)
from smartstore_workflows.records import RunRecord

ID_BYTES = 16  # 128 random bits: nobody guesses another's conversation


def new_id() -> str:
    """Return an id that nobody can guess: 32 hexadecimal digits."""
    return secrets.token_hex(ID_BYTES)


class RunEvents:
    """Numbers a run's events and turns the workflow's into the wire's; `outcome` is how it ended."""

    def __init__(
        self, session_id: str | None, model: str, request_id: str | None = None, run_id: str | None = None
    ) -> None:
        """Begin a run of a session, by default of a new one; `request_id` is by default the run's id."""
        self.run_id = run_id or new_id()
        self.new_session = not session_id
        self._request_id = request_id or self.run_id
        self.session_id = session_id or new_id()
        self.degraded = False
        self.outcome: Outcome | None = None
        self._model = model
        self._answer: wire.Answer | None = None
        self._last_id = 0
        self._timings: dict[str, float] = {}

    def started(self) -> wire.StreamEvent:
        """Return the first event."""
        return self._event("started", wire.Started(run_id=self.run_id, session_id=self.session_id, model=self._model))

    def shown(self, event: Fact | Outcome) -> list[wire.StreamEvent]:
        """Return what the reader sees of an event of the workflow."""
        match event:
            case StageStarted():
                return [self._event("stage", wire.Stage(stage=event.stage))]
            case StageEnded():
                self._timings[event.stage] = round(event.milliseconds, 2)
            case SourcesFound():
                return [self._event("sources", event.sources)]
            case TokenStreamed():
                return [self._event("token", wire.Token(text=event.text))]
            case Restarted():
                return [self._event("restart", wire.Restart(reason=event.reason))]
            case AnswerWritten():
                self._answer = self._answered(event)
                return [self._event("answer", self._answer)]
            case Outcome():
                self.outcome = event
                return [self._event("suggestions", event.suggestions)]
        return []

    def failed(self, error: FaqError) -> wire.StreamEvent:
        """Return the event of an error."""
        failure = wire.Failure(
            code=error.code,
            message=error.message,
            retryable=isinstance(error, TransientError),
            request_id=self._request_id,
        )
        return self._event("error", failure)

    def done(self) -> wire.StreamEvent:
        """Return the last event."""
        return self._event("done", wire.Done(run_id=self.run_id, timings_ms=self._timings, usage=self._usage()))

    def record(self, written: AnswerWritten) -> RunRecord:
        """Return what is kept of a run whose answer stands."""
        answer = self._answered(written)
        return RunRecord(
            run_id=self.run_id,
            session_id=self.session_id,
            question=written.asked.question,
            standalone=written.asked.standalone,
            kind=answer.kind,
            text=answer.text,
            citations=answer.citations,
            model=answer.model,
            cached=answer.cached,
            degraded=answer.degraded,
            unsupported=answer.unsupported,
            created_at=time.time(),
        )

    def _answered(self, written: AnswerWritten) -> wire.Answer:
        return wire.Answer(
            kind=written.kind,
            text=written.text,
            citations=written.citations,
            cached=written.cached,
            model=written.writer or self._model,
            degraded=written.degraded or self.degraded,
            unsupported=written.unsupported,
        )

    def _usage(self) -> Usage:
        return self.outcome.written.usage if self.outcome is not None else Usage()

    def _event(self, name: wire.EventName, data: wire.Data) -> wire.StreamEvent:
        self._last_id += 1
        return wire.StreamEvent(id=self._last_id, event=name, data=data)
