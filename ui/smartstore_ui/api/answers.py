"""What the routes give, as models: the OpenAPI document is made of them, and the routes build them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from smartstore_workflows.events import Kind, Source

State = Literal["queued", "running", "succeeded", "failed"]


class Given(BaseModel):
    """A response, or a part of one."""

    model_config = ConfigDict(frozen=True)


class ErrorDetail(Given):
    """What went wrong: a stable code, a sentence for a person, and the request's id."""

    code: str
    message: str
    request_id: str


class Error(Given):
    """The one shape of an error."""

    error: ErrorDetail


class Found(Given):
    """The FAQs that fit, best first."""

    results: tuple[Source, ...]


class ReadTurn(Given):
    """One question and its answer; `faq_ids` are its citations."""

    question: str
    answer: str
    kind: Kind
    faq_ids: tuple[str, ...]


class Session(Given):
    """A conversation, oldest turn first."""

    session_id: str
    turns: tuple[ReadTurn, ...]


class ListedSession(Given):
    """A conversation in the list: the number of its turns, and when it was last used, in Unix seconds."""

    session_id: str
    turns: int
    used_at: float


class Sessions(Given):
    """The conversations, the last used first."""

    sessions: tuple[ListedSession, ...]


class JobAccepted(Given):
    """The job that was queued."""

    job_id: str


class Progress(Given):
    """How far a job is in its stage."""

    stage: str
    done: int
    total: int


class Summary(Given):
    """What an index job did, in FAQs; `duplicates` counts rows whose question stands again below."""

    added: int
    changed: int
    removed: int
    unchanged: int
    duplicates: int
    embedded: int
    faqs: int
    version: str
    switched: bool
    seconds: float


class JobError(Given):
    """Why a job failed."""

    code: str
    message: str


class Job(Given):
    """An index job: its state, its progress, and at its end what it did or why it failed."""

    job_id: str
    state: State
    progress: Progress
    summary: Summary | None = None
    error: JobError | None = None


class CompletionMessage(Given):
    """The answer as a message."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(Given):
    """The one answer of a completion."""

    index: Literal[0] = 0
    message: CompletionMessage
    finish_reason: Literal["stop"] = "stop"


class CompletionUsage(Given):
    """Tokens as the model counted them, 0 without one."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Given):
    """A chat completion, as OpenAI's."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: CompletionUsage


class Model(Given):
    """One model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "smartstore-chatbot"


class Models(Given):
    """The models, the server's default first."""

    object: Literal["list"] = "list"
    data: tuple[Model, ...]


class Health(Given):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Readiness(Given):
    """Whether questions can be answered, and what each dependency says: "ok" or an error's code."""

    ready: bool
    dependencies: dict[str, str]
