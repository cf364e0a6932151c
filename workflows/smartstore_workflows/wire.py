"""The events that every door hands out, one format for the library, the terminal, SSE, WebSocket and queues."""

from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from smartstore_indexing.errors import TransientError
from smartstore_workflows.events import Kind, Source, StageName, Suggestion, Usage

# The codes and words of errors that no FaqError stands for.
CANCELLED, INTERNAL = "cancelled", "internal"
STOPPED = "답변을 멈췄습니다."
BROKEN = "답변하는 중에 오류가 났습니다. 잠시 후 다시 질문해 주세요."
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
    """The whole answer; `citations` are FAQ ids, `degraded` tells that memory or the model was missing.

    `unsupported` are the numbers, dates, amounts, periods and menu paths in it that stand in no FAQ that it cites.
    """

    kind: Kind
    text: str
    citations: tuple[str, ...]
    cached: bool
    model: str
    degraded: bool
    unsupported: tuple[str, ...] = ()


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

    def data_json(self) -> str:
        """Return the data alone as JSON, as SSE carries it."""
        return to_json(self.data).decode()


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


class Gathered:
    """Gathers a run's events into its whole reply."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.failure: Failure | None = None
        self._started: Started | None = None
        self._sources: tuple[Source, ...] = ()
        self._answer: Answer | None = None
        self._suggestions: tuple[Suggestion, ...] = ()
        self._done: Done | None = None

    def add(self, event: StreamEvent) -> None:
        """Take the next event."""
        match event.data:
            case Started():
                self._started = event.data
            case Answer():
                self._answer = event.data
            case Failure():
                self.failure = event.data
            case Done():
                self._done = event.data
            case tuple() if event.event == "sources":
                self._sources = tuple(item for item in event.data if isinstance(item, Source))
            case tuple():
                self._suggestions = tuple(item for item in event.data if isinstance(item, Suggestion))

    def reply(self) -> Reply:
        """Return the whole of a run that has ended; TransientError when it ended without an answer."""
        if self._started is None or self._answer is None or self._done is None:
            raise TransientError("답변이 끝나지 않았습니다. 다시 시도해 주세요.")
        return Reply(
            run_id=self._started.run_id,
            session_id=self._started.session_id,
            sources=self._sources,
            answer=self._answer,
            suggestions=self._suggestions,
            usage=self._done.usage,
            timings_ms=self._done.timings_ms,
        )
