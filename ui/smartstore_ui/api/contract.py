"""The OpenAPI document: every route with what it takes and gives; the models are those that the routes use."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from smartstore_indexing.setting_groups import ServerSettings
from smartstore_ui.api import answers
from smartstore_ui.api.openai_api import CompletionBody
from smartstore_ui.api.requests import (
    AskMessage,
    CancelMessage,
    ChatBody,
    ChatQuery,
    FeedbackBody,
    IndexBody,
    ListQuery,
    SearchQuery,
)
from smartstore_workflows import wire
from smartstore_workflows.events import Source, Suggestion

Json = dict[str, Any]  # a JSON document's values are of any kind
REF = "#/components/schemas/{model}"
SSE, JSON, TEXT = "text/event-stream", "application/json", "text/plain"
EVENTS: dict[wire.EventName, Any] = {
    "started": wire.Started,
    "stage": wire.Stage,
    "sources": list[Source],
    "token": wire.Token,
    "restart": wire.Restart,
    "answer": wire.Answer,
    "suggestions": list[Suggestion],
    "error": wire.Failure,
    "done": wire.Done,
}
STREAM = """답변의 이벤트. 각 이벤트에는 커지는 `id`가 있고, `event`는 그 이름, `data`는 스키마 Event의 JSON입니다.
`started`로 시작해 `done`으로 끝나며, `restart`가 오면 그때까지의 `token`을 버립니다.
조용한 동안에는 주석(`:`)을 보냅니다."""
NEEDS_KEY = " API 키가 필요합니다(키가 설정되지 않은 서버에서는 그 컴퓨터에서만 쓸 수 있습니다)."


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    tag: str
    summary: str
    gives: dict[int, tuple[str, type[BaseModel] | None]]  # status: media type, and its model where it is JSON
    description: str = ""
    takes: type[BaseModel] | None = None
    takes_optional: bool = False
    query: type[BaseModel] | None = None
    headers: dict[str, Json] = field(default_factory=dict)
    events: str = ""  # the schema of each event, where it gives a stream of them
    key: bool = False


EVENT_STREAM: tuple[str, None] = (SSE, None)
NOTHING: tuple[str, None] = ("", None)
GUARDED = ("/api/", "/v1/")
RESUME = {"Last-Event-ID": {"type": "string", "pattern": "^[0-9]{0,18}$"}}
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("post", "/api/chat"): Operation(
        "질문",
        "질문하고 답을 받습니다",
        {200: EVENT_STREAM},
        f"{STREAM}\n\n`?stream=false`이면 JSON 문서 하나(Reply)로 답합니다.",
        takes=ChatBody,
        events="Event",
        query=ChatQuery,
    ),
    ("get", "/api/runs/{run_id}/events"): Operation(
        "질문", "끊긴 스트림을 이어 받습니다", {200: EVENT_STREAM}, STREAM, headers=RESUME, events="Event"
    ),
    ("delete", "/api/runs/{run_id}"): Operation("질문", "답변을 멈춥니다", {204: NOTHING}),
    ("post", "/api/feedback"): Operation("질문", "답변을 평가합니다", {204: NOTHING}, takes=FeedbackBody),
    ("get", "/api/search"): Operation("FAQ", "FAQ를 검색합니다", {200: (JSON, answers.Found)}, query=SearchQuery),
    ("get", "/api/sessions"): Operation(
        "대화", "대화의 목록", {200: (JSON, answers.Sessions)}, NEEDS_KEY.strip(), query=ListQuery, key=True
    ),
    ("get", "/api/sessions/{session_id}"): Operation("대화", "대화를 읽습니다", {200: (JSON, answers.Session)}),
    ("delete", "/api/sessions/{session_id}"): Operation("대화", "대화를 지웁니다", {204: NOTHING}),
    ("post", "/api/index"): Operation(
        "색인",
        "FAQ를 다시 색인합니다",
        {202: (JSON, answers.JobAccepted)},
        "본문이 없으면 설정된 FAQ 파일에서 바뀐 것만 색인합니다. RabbitMQ가 설정되어 있으면 색인 워커가 맡습니다."
        + NEEDS_KEY,
        takes=IndexBody,
        takes_optional=True,
        key=True,
    ),
    ("get", "/api/index/{job_id}"): Operation(
        "색인", "색인 작업의 상태", {200: (JSON, answers.Job)}, NEEDS_KEY.strip(), key=True
    ),
    ("get", "/api/index/{job_id}/events"): Operation(
        "색인", "색인 작업의 진행", {200: EVENT_STREAM}, "`data`는 Job입니다." + NEEDS_KEY, events="JobEvent", key=True
    ),
    ("post", "/v1/chat/completions"): Operation(
        "OpenAI 호환",
        "대화를 받아 답합니다",
        {200: (JSON, answers.Completion)},
        "`stream`이 true이면 OpenAI의 chat.completion.chunk를 보냅니다.",
        takes=CompletionBody,
    ),
    ("get", "/v1/models"): Operation("OpenAI 호환", "모델의 목록", {200: (JSON, answers.Models)}),
    ("get", "/healthz"): Operation("운영", "프로세스가 살아 있는지", {200: (JSON, answers.Health)}),
    ("get", "/readyz"): Operation(
        "운영", "답할 수 있는지", {200: (JSON, answers.Readiness), 503: (JSON, answers.Readiness)}
    ),
    ("get", "/metrics"): Operation("운영", "Prometheus 지표", {200: (TEXT, None)}),
}


def openapi(models: Sequence[str], server: ServerSettings) -> Json:
    """Return the OpenAPI 3.1 document of a server with these models and settings."""
    paths: dict[str, Json] = {}
    for (method, path), operation in OPERATIONS.items():
        described = _operation(method, path, operation)
        if (operation.key and server.keys) or (server.require_key and path.startswith(GUARDED)):
            described["security"] = [{"key": []}]
        paths.setdefault(path, {})[method] = described
    schemas = _schemas()
    schemas["ChatBody"]["properties"]["model"] = {"anyOf": [{"enum": list(models)}, {"type": "null"}]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "스마트스토어 FAQ 챗봇",
            "version": version("smartstore-chatbot"),
            "description": "네이버 스마트스토어 판매자의 질문에 FAQ에서 찾아 답합니다.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "x-websockets": {
            "/api/chat/ws": {
                "summary": "소켓 하나로 여러 번 묻습니다. 이벤트는 POST /api/chat과 같고, {id, event, data}로 옵니다.",
                "receives": [_ref(kind.__name__) for kind in (AskMessage, CancelMessage)],
                "sends": _ref("StreamEvent"),
            }
        },
    }


def _operation(method: str, path: str, operation: Operation) -> Json:
    name = "_".join([method, *(part.strip("{}") for part in path.split("/") if part)])
    described: Json = {
        "operationId": name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": _parameters(path, operation),
        "responses": _responses(operation),
    }
    if operation.takes is not None:
        schema = _ref(operation.takes.__name__)
        described["requestBody"] = {
            "required": not operation.takes_optional,
            "content": {JSON: {"schema": schema}},
        }
    return described


def _parameters(path: str, operation: Operation) -> list[Json]:
    found: list[Json] = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for part in path.split("/")
        if part.startswith("{")
    ]
    if operation.query is not None:
        schema = operation.query.model_json_schema()
        for name, described in schema["properties"].items():
            shown = {key: value for key, value in described.items() if key not in ("title", "description")}
            found.append(
                {
                    "name": name,
                    "in": "query",
                    "required": name in schema.get("required", ()),
                    "description": described.get("description", ""),
                    "schema": shown,
                }
            )
    found += [{"name": name, "in": "header", "schema": schema} for name, schema in operation.headers.items()]
    return found


def _responses(operation: Operation) -> Json:
    error = {"description": "오류", "content": {JSON: {"schema": _ref("Error")}}}
    responses: Json = {"default": error}
    for status, (media_type, model) in operation.gives.items():
        content = {}
        if model is not None:
            content[media_type] = {"schema": _ref(model.__name__)}
        elif media_type:
            content[media_type] = {"schema": _ref(operation.events) if operation.events else {"type": "string"}}
        if operation.takes is ChatBody:
            content[JSON] = {"schema": _ref("Reply")}
        if operation.takes is CompletionBody:
            content[SSE] = {"schema": _ref("CompletionEvent")}
        responses[str(status)] = {"description": "성공", **({"content": content} if content else {})}
    return responses


def _schemas() -> dict[str, Json]:
    """Return the schemas of every model that the document names."""
    taken = [operation.takes for operation in OPERATIONS.values() if operation.takes is not None]
    given = [model for one in OPERATIONS.values() for _, model in one.gives.values() if model is not None]
    named: list[type[BaseModel]] = [
        *taken,
        *given,
        wire.StreamEvent,
        wire.Reply,
        answers.Error,
        AskMessage,
        CancelMessage,
    ]
    _, definitions = models_json_schema([(model, "validation") for model in dict.fromkeys(named)], ref_template=REF)
    schemas: dict[str, Json] = definitions["$defs"]
    shown = {name: TypeAdapter(data).json_schema(ref_template=REF) for name, data in EVENTS.items()}
    schemas["Event"] = {"oneOf": [_event([name], data) for name, data in shown.items()]}
    schemas["JobEvent"] = _event(get_args(answers.State), _ref("Job"))
    schemas["CompletionEvent"] = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
    return schemas


def _event(names: Sequence[str], data: Json) -> Json:
    """Return the schema of a server-sent event of one of these names; its data is JSON."""
    carried = {"type": "string", "contentMediaType": JSON, "contentSchema": _bare(data)}
    return {
        "type": "object",
        "required": ["id", "event", "data"],
        "properties": {"id": {"type": "string"}, "event": {"enum": list(names)}, "data": carried},
    }


def _ref(model: str) -> Json:
    return {"$ref": REF.format(model=model)}


def _bare(schema: Json) -> Json:
    """Return a schema without the definitions that stand among the document's components."""
    return {name: value for name, value in schema.items() if name != "$defs"}
