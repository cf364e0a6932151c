"""What the queues' messages say: JSON of at most 64 KiB, closed and strict; a message of any other form is refused."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from smartstore_indexing.errors import InvalidRequest

MAX_BODY_BYTES = 64 * 1024
M = TypeVar("M", bound="Message")
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0)]
# What is said of a field; a name that the sender made up is never repeated.
REASONS = {
    "missing": "{field} 항목이 없습니다.",
    "extra_forbidden": "모르는 항목이 있습니다.",
    "json_invalid": "JSON이 아닙니다.",
    "model_type": "JSON 객체가 아닙니다.",
    "no_question": "question과 faq_id 가운데 하나는 있어야 합니다.",
}
WRONG = "{field} 항목의 값이 올바르지 않습니다."


class Message(BaseModel):
    """A message; a field that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class IndexRequested(Message):
    """Asks for an index of a source: a path, an https address, or null for the configured one."""

    request_id: Id
    source: Annotated[str, StringConstraints(min_length=1, max_length=4_096)] | None
    mode: Literal["incremental", "full"]
    requested_by: Name


class IndexProgress(Message):
    """Tells how far an index request is."""

    request_id: Id
    stage: Name
    done: Count
    total: Count


class IndexSummary(Message):
    """What an index request did, in FAQs; `duplicates` counts rows whose question stands again below."""

    added: Count
    changed: Count
    removed: Count
    unchanged: Count
    duplicates: Count
    embedded: Count
    faqs: Count
    version: Name
    switched: bool
    seconds: Annotated[float, Field(ge=0)]


class IndexSucceeded(Message):
    """Tells that an index request was met."""

    request_id: Id
    summary: IndexSummary


class IndexFailed(Message):
    """Tells that an index request was given up; the index before it stays in use."""

    request_id: Id
    code: Name
    message: Annotated[str, StringConstraints(min_length=1, max_length=1_000)]


class AnswerRequested(Message):
    """Asks for an answer; with `faq_id`, a clicked follow-up, `question` may be null. `deadline` is in Unix seconds."""

    run_id: Id
    session_id: Name
    question: Annotated[str, StringConstraints(min_length=1, max_length=2_000)] | None
    faq_id: Name | None
    model: Name | None
    deadline: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _asks_something(self) -> "AnswerRequested":
        if self.question is None and self.faq_id is None:
            raise PydanticCustomError("no_question", "neither a question nor an FAQ")
        return self


def read(kind: type[M], body: bytes) -> M:
    """Return a message's body as a message of that kind.

    Raises:
        InvalidRequest: it is none; the reason says what is wrong and repeats nothing of the body.
    """
    if len(body) > MAX_BODY_BYTES:
        raise InvalidRequest(f"메시지가 너무 큽니다 (최대 {MAX_BODY_BYTES // 1024}KiB).")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        reason = _reason(error.errors(include_url=False, include_context=False, include_input=False)[0])
    raise InvalidRequest(reason)  # outside the handler: pydantic's error holds the body


def written(message: Message) -> bytes:
    """Return a message as a body."""
    return message.model_dump_json().encode()


def _reason(error: ErrorDetails) -> str:
    field = ".".join(str(part) for part in error["loc"])
    return REASONS.get(error["type"], WRONG).format(field=field)
