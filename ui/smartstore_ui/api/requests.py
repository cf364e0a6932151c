"""What clients may send, and how it is read: bodies of at most 64 KiB, validated whole, refused in Korean."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints, ValidationError
from pydantic_core import ErrorDetails
from starlette.datastructures import QueryParams
from starlette.requests import Request

from smartstore_indexing.errors import InvalidRequest, TooLarge
from smartstore_workflows.understanding import LETTER, MAX_CHARACTERS, MAX_SESSION_ID

MAX_BODY_BYTES = 64 * 1024
M = TypeVar("M", bound="Body")
Q = TypeVar("Q", bound="Query")
Text = Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_SESSION_ID)]
# One of the two must be there; JSON Schema has no other way to say so.
ASKS: dict[str, JsonValue] = {
    "anyOf": [
        {"required": ["question"], "properties": {"question": {"type": "string", "pattern": LETTER}}},
        {"required": ["faq_id"], "properties": {"faq_id": {"type": "string"}}},
    ]
}
KOREAN: dict[str, str] = {
    "missing": "{where}이(가) 필요합니다.",
    "extra_forbidden": "{where}은(는) 모르는 항목입니다.",
    "string_type": "{where}은(는) 글자여야 합니다.",
    "string_too_short": "{where}이(가) 비어 있습니다.",
    "string_too_long": "{where}은(는) {max_length}자까지 쓸 수 있습니다.",
    "literal_error": "{where}에 쓸 수 있는 값: {expected}",
    "json_invalid": "JSON으로 읽을 수 없습니다.",
    "model_type": "JSON 객체가 필요합니다.",
}


def no_boolean(value: object) -> object:
    """Return the value; ValueError when it is a boolean, which pydantic takes for 0 or 1 in a Literal."""
    if isinstance(value, bool):
        raise ValueError  # noqa: TRY004  pydantic maps no other
    return value


class Body(BaseModel):
    """A request's body; a misspelt field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Query(BaseModel):
    """A request's query string; what is unknown is ignored, as links carry parameters of all kinds."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ChatBody(Body):
    """A question; with `faq_id`, a clicked follow-up, `question` may be left out."""

    model_config = ConfigDict(json_schema_extra=ASKS)

    question: Text | None = Field(None, description="질문, 1~2,000자. faq_id가 있으면 없어도 됩니다.")
    session_id: Id | None = Field(None, description="이어 갈 대화. 없으면 새 대화를 시작합니다.")
    model: Id | None = Field(None, description="답할 모델. 없으면 서버의 기본 모델입니다.")
    faq_id: Id | None = Field(None, description="누른 추천 질문의 FAQ.")


class ChatQuery(Query):
    """How the answer comes."""

    stream: Literal["true", "false"] = Field("true", description="false이면 JSON 문서 하나로 답합니다.")


class AskMessage(ChatBody):
    """A question on a WebSocket."""

    type: Literal["ask"]


class CancelMessage(Body):
    """Stop a run of this socket."""

    type: Literal["cancel"]
    run_id: Id


class FeedbackBody(Body):
    """A thumb on an answer."""

    run_id: Id
    score: Annotated[Literal[1, -1], BeforeValidator(no_boolean)] = Field(
        description="1은 도움이 됨, -1은 도움이 되지 않음."
    )
    comment: Text | None = Field(None, description="까닭, 2,000자까지.")


class IndexBody(Body):
    """A request to index; without `source` the configured FAQ file is indexed."""

    source: Annotated[str, StringConstraints(min_length=1, max_length=4_096)] | None = Field(
        None, description="색인하는 쪽의 허용된 폴더에 있는 FAQ 파일의 경로, 또는 https 주소."
    )
    mode: Literal["incremental", "full", "rollback"] = Field(
        "incremental",
        description="full이면 모두 다시 임베딩합니다. rollback이면 색인하지 않고 이전 색인으로 되돌립니다.",
    )


class SearchQuery(Query):
    """A search of the FAQs."""

    q: Annotated[str, StringConstraints(min_length=1, max_length=MAX_CHARACTERS)] = Field(description="검색어.")
    k: int = Field(10, ge=1, le=30, description="결과의 수.")
    category: Id | None = Field(None, description="이 분류의 FAQ만 찾습니다.")


class ListQuery(Query):
    """A page of the conversations, the last used first."""

    limit: int = Field(50, ge=1, le=500, description="한 쪽의 대화 수.")
    before: float | None = Field(None, description="이 시각(유닉스 초) 전에 쓴 대화부터.", allow_inf_nan=False)


async def read_body(request: Request, kind: type[M]) -> M:
    """Return the request's JSON body.

    Raises:
        TooLarge: it has more than 64 KiB.
        InvalidRequest: it is no JSON of that form.
    """
    return parsed(await body_bytes(request), kind)


async def body_bytes(request: Request) -> bytes:
    """Return the request's body; TooLarge when it has more than 64 KiB, however long it says it is."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge(f"요청 본문은 {MAX_BODY_BYTES // 1024}KiB까지 보낼 수 있습니다.")
    return bytes(body)


def parsed(text: str | bytes, kind: type[M]) -> M:
    """Return JSON text as a body of that kind; InvalidRequest when it is none."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise InvalidRequest(_told(error.errors(include_url=False, include_input=False)[0])) from error


def read_query(parameters: QueryParams, kind: type[Q]) -> Q:
    """Return the query string's parameters; InvalidRequest when one is out of its bounds."""
    try:
        return kind.model_validate(dict(parameters))
    except ValidationError as error:
        raise InvalidRequest(_told(error.errors(include_url=False, include_input=False)[0])) from error


def _told(error: ErrorDetails) -> str:
    where = ".".join(map(str, error["loc"])) or "본문"
    template = KOREAN.get(error["type"], "{where}의 값을 읽을 수 없습니다.")
    return template.format(where=where, **error.get("ctx", {})).replace("' or '", "' 또는 '")
