"""The events that every door hands out, one format for the library, the terminal, SSE, WebSocket and queues."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from smartstore_workflows.events import Kind, Source, StageName, Suggestion, Usage

EventName = Literal["started", "stage", "sources", "token", "restart", "answer", "suggestions", "error", "done"]


class Payload(BaseModel):
    """The data of one kind of event."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Started(Payload):
    """Always first: the run's id, its conversation's, and the name of the model that will answer."""

    run_id: str
    session_id: str
    model: str


class Stage(Payload):
    """A stage began."""

    stage: StageName


class Token(Payload):
    """The next piece of the answer's text."""

    text: str


class Restart(Payload):
    """The tokens so far are void."""

    reason: str


class Answer(Payload):
    """The whole answer; `citations` are FAQ ids, `degraded` tells that memory or the model was missing."""

    kind: Kind
    text: str
    citations: tuple[str, ...]
    cached: bool
    model: str
    degraded: bool


class Failure(Payload):
    """What went wrong, for a person, and whether asking again may help."""

    code: str
    message: str
    retryable: bool
    request_id: str


class Done(Payload):
    """Always last: milliseconds of wall time by stage, and the tokens that the model counted."""

    run_id: str
    timings_ms: dict[str, float]
    usage: Usage


Data = Started | Stage | tuple[Source, ...] | Token | Restart | Answer | tuple[Suggestion, ...] | Failure | Done


class StreamEvent(BaseModel):
    """One event of a run; ids count up from 1 within it."""

    model_config = ConfigDict(frozen=True)

    id: int
    event: EventName
    data: Data

    def to_json(self) -> str:
        """Return the event as one line of JSON: {"id", "event", "data"}."""
        return self.model_dump_json()


class Reply(BaseModel):
    """A whole answer, not streamed."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    session_id: str
    sources: tuple[Source, ...]
    answer: Answer
    suggestions: tuple[Suggestion, ...]
    usage: Usage
    timings_ms: dict[str, float]
