"""Every event of the answer workflow: what the steps hand to each other, and what the reader sees meanwhile.

Facts are routed to steps; progress events are only written to the stream. All of them refuse fields that they do not
declare: LlamaIndex's own events keep a misspelt field without a word.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict
from workflows.events import Event, StartEvent, StopEvent

StageName = Literal["understand", "filter", "retrieve", "synthesize", "suggest"]
STAGES: tuple[StageName, ...] = ("understand", "filter", "retrieve", "synthesize", "suggest")
Kind = Literal["answered", "refused", "not_found"]
ANSWERED: Literal["answered"] = "answered"
REFUSED: Literal["refused"] = "refused"


class Value(BaseModel):
    """A value inside events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __repr__(self) -> str:
        """Return the name of the class: LlamaIndex writes out every event at every step, and nobody reads it."""
        return f"{type(self).__name__}(…)"


class Closed:
    """Makes an event refuse fields it does not declare."""

    if TYPE_CHECKING:
        __getattr__: None  # type: ignore[misc]  # reading a misspelt field is then an error for mypy
    else:

        def __init__(self, **fields: Any) -> None:
            """Take the declared fields; TypeError for any other."""
            if unknown := fields.keys() - type(self).model_fields.keys():
                raise TypeError(f"{type(self).__name__} has no field {sorted(unknown)}")
            super().__init__(**fields)


class Start(Closed, StartEvent):  # type: ignore[misc]  # Event declares __getattr__ as a method
    """What starts a run."""


class Fact(Closed, Event):  # type: ignore[misc]  # as above
    """Something that happened."""

    __repr__ = Value.__repr__


class Stop(Closed, StopEvent):  # type: ignore[misc]  # as above
    """What ends a run; its str() is its repr(), where StopEvent's is "None"."""

    __str__ = StopEvent.__repr__


class Turn(Value):
    """One question of the conversation and its answer, personal data masked.

    `faq_ids` are the answer's citations, `offered` the FAQs of its follow-up offers.
    """

    question: str
    standalone: str
    answer: str
    kind: Kind
    faq_ids: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()


class Passage(Value):
    """One FAQ that was found; `score` is the probability, 0 to 1, that it answers the question."""

    faq_id: str
    score: float


class Evidence(Value):
    """How well the best FAQs fit a question, in figures that compare between questions; cosines are -1 to 1."""

    best_cosine: float  # over both parts of all FAQs
    lead: float  # how far the best FAQ's cosine is above the tenth's
    terms_found: float  # the first FAQ's share of the BM25 score that one equal to the question would have
    grams_found: float  # the same for character bigrams


class Source(Value):
    """One FAQ shown under the answer; `n` is its number in the text, from 1."""

    n: int
    id: str
    category: str
    question: str
    score: float
    snippet: str


class Suggestion(Value):
    """A follow-up offer and the FAQ that answers it."""

    text: str
    faq_id: str


class Usage(Value):
    """Tokens that the model counted; 0 where no model ran."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Return both together."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


class Asked(Value):
    """What is being answered, personal data masked: the question as asked, and as it stands without its conversation.

    `before` is the turn that the question is searched with, None when `standalone` is searched. `faq_id` is set when an
    offered follow-up was chosen; `history` is the conversation so far, oldest first; `usage` is what the model's steps
    before the answer took; `index_version` is the one that the answer may be cached for, "" when it may not.
    """

    question: str
    standalone: str
    before: Turn | None = None
    history: tuple[Turn, ...] = ()
    faq_id: str | None = None
    model: str
    usage: Usage = Usage()
    index_version: str = ""


class RememberedAnswer(Value):
    """An answer that may be given again: the question that it was written for, and what AnswerWritten tells of it."""

    question: str
    text: str
    citations: tuple[str, ...]
    unsupported: tuple[str, ...] = ()
    sources: tuple[Source, ...]
    passages: tuple[Passage, ...]


# Facts, in the order in which they happen.


class QuestionAsked(Start):
    """A question was asked, or with `faq_id` an offered follow-up chosen; `history` has the oldest turn first."""

    question: str
    history: tuple[Turn, ...] = ()
    faq_id: str | None = None
    model: str


class QuestionUnderstood(Fact):
    """The question was masked and, where it leaned on the conversation, made to stand alone."""

    asked: Asked


class FollowUpChosen(Fact):
    """An offered follow-up was chosen: its FAQ answers, without filter or search."""

    asked: Asked
    faq_id: str


class AnswerRecalled(Fact):
    """The same text was answered before: that answer is given again, without filter or search."""

    asked: Asked
    answer: RememberedAnswer


class ScopeJudged(Fact):
    """The question's text was judged: margins, above 0 for a seller's question, and for one that an FAQ may answer."""

    in_scope: float
    answerable: float


class PassagesRetrieved(Fact):
    """FAQs were searched; `passages` are the best first, at least ten where the index has them."""

    asked: Asked
    passages: tuple[Passage, ...]
    evidence: Evidence


class AnswerWritten(Fact):
    """The answer stands; `passages` is the ranked list that it was chosen from, `sources` what is shown under it.

    `unsupported` is what a model claims in it and no FAQ that it cites says (supporting.py).
    `in_scope` and `found` are the probabilities, 0 to 1, that the question is a seller's and that an FAQ answers it;
    `cached` tells that the answer was written for an earlier question; `writer` names who wrote it where that is
    another than the one that was to.
    """

    asked: Asked
    kind: Kind
    text: str
    citations: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    passages: tuple[Passage, ...]
    degraded: bool = False
    usage: Usage = Usage()
    in_scope: float = 1.0
    found: float = 1.0
    cached: bool = False
    writer: str = ""


class Outcome(Stop):
    """How the run ended: the answer with its follow-up offers. Only its subclasses are returned."""

    written: AnswerWritten
    suggestions: tuple[Suggestion, ...]


class Answered(Outcome):
    """The FAQ answers the question."""


class Refused(Outcome):
    """The question has nothing to do with selling on SmartStore; the suggestion leads back to something that does."""


class NotFound(Outcome):
    """The question is in scope, but no FAQ answers it; the suggestions are the nearest titles."""


# Progress, for the screen. AnswerWritten is written to the stream too.


class StageStarted(Fact):
    """A step began."""

    stage: StageName


class StageEnded(Fact):
    """A step ended after so many milliseconds of wall time."""

    stage: StageName
    milliseconds: float


class SourcesFound(Fact):
    """The FAQs that the answer will cite."""

    sources: tuple[Source, ...]


class TokenStreamed(Fact):
    """The next piece of the answer's text."""

    text: str


class Restarted(Fact):
    """The tokens so far are void; the answer begins again."""

    reason: str
