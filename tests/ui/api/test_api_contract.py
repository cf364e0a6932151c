"""The OpenAPI document and what shows it, the program against the document, and addresses that are none."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
import schemathesis
from served import Served
from starlette.routing import Route, WebSocketRoute
from talking import MINOR, RESTAURANT, Client

from smartstore_indexing.setting_groups import ServerSettings
from smartstore_ui.api import documents
from smartstore_ui.api.application import API, WATCHED
from smartstore_ui.api.contract import EVENTS, OPERATIONS, openapi
from smartstore_workflows import wire

WRONG_METHODS = {("GET", "/api/runs/x"), ("POST", "/api/runs/x")} | {
    ("POST", path) for path in ("/docs/files/nothing.js", "/docs/files/..%2f..%2f__init__.py")
}
SCHEMATHESIS = str(Path(sys.executable).parent / "schemathesis")
DOCUMENT = openapi(["extractive"], ServerSettings())
KEYED = openapi(["extractive"], ServerSettings.model_validate({"api_keys": "key"}))
LOCKED = openapi(["extractive"], ServerSettings.model_validate({"api_keys": "key", "require_key": True}))
NOWHERE = [
    "/api",
    "/api/",
    "/api/nothing",
    "/api/chat/",
    "/api/sessions/",
    "/api/runs/x",
    "/api/runs/a/b/events",
    "/v1",
    "/v1/nothing",
    "/v1/models/",
    "/docs/nothing",
    "/docs/files",
    "/docs/files/nothing.js",
    "/docs/files/..%2f..%2f__init__.py",
    "/nothing",
]


def test_document_describes_every_route_and_no_other() -> None:
    undescribed = {route.path for route in documents.ROUTES if isinstance(route, Route)}
    served = {
        (method.lower(), route.path)
        for route in [*API, *WATCHED]
        if isinstance(route, Route) and route.path not in undescribed
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert OPERATIONS.keys() == served
    described = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == served
    assert DOCUMENT["x-websockets"].keys() == {
        route.path for route in [*API, *WATCHED] if isinstance(route, WebSocketRoute)
    }


@pytest.mark.parametrize("document", [DOCUMENT, KEYED, LOCKED], ids=["open", "keyed", "locked"])
def test_document_is_valid_openapi(document: dict[str, Any]) -> None:
    schemathesis.openapi.from_dict(document).validate()
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        assert jsonschema_rs.meta.is_valid({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named <= document["components"]["schemas"].keys()


def test_document_names_its_texts_in_korean() -> None:
    for operation in (operation for methods in DOCUMENT["paths"].values() for operation in methods.values()):
        assert re.search("[가-힣]", operation["summary"])
        assert operation["responses"].keys() > {"default"}


def test_document_asks_for_a_key_where_the_server_does() -> None:
    def secured(document: dict[str, Any]) -> set[tuple[str, str]]:
        return {
            (method, path)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if operation.get("security") == [{"key": []}]
        }

    assert secured(DOCUMENT) == set()
    assert secured(KEYED) == {
        ("get", "/api/sessions"),
        ("post", "/api/index"),
        ("get", "/api/index/{job_id}"),
        ("get", "/api/index/{job_id}/events"),
    }
    assert secured(LOCKED) == {key for key in OPERATIONS if key[1].startswith(("/api/", "/v1/"))}


def test_document_describes_every_event() -> None:
    assert EVENTS.keys() == set(get_args(wire.EventName))
    events = DOCUMENT["components"]["schemas"]["Event"]["oneOf"]
    assert [event["properties"]["event"]["enum"][0] for event in events] == list(EVENTS)
    for path in ("/api/chat", "/api/runs/{run_id}/events"):
        (operation,) = DOCUMENT["paths"][path].values()
        schema = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Event"}


@pytest.mark.parametrize("question", [MINOR, RESTAURANT])
def test_events_are_as_described(client: Client, question: str) -> None:
    document = client.get("/openapi.json").json()
    schemas = {
        event["properties"]["event"]["enum"][0]: event["properties"]["data"]["contentSchema"]
        for event in document["components"]["schemas"]["Event"]["oneOf"]
    }
    for event in client.ask(question):
        jsonschema_rs.validate({**schemas[event.name], "components": document["components"]}, event.data)


def test_served_document_names_the_models_of_the_server(client: Client, listener: Client) -> None:
    assert client.get("/openapi.json").json() == DOCUMENT
    model = listener.get("/openapi.json").json()["components"]["schemas"]["ChatBody"]["properties"]["model"]
    assert model["anyOf"][0]["enum"] == ["openai", "extractive"]


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_docs_show_the_document_with_files_of_the_program_alone(client: Client, path: str) -> None:
    page = client.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    linked = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(linked) == 4
    assert "://" not in page.text
    for address in linked:
        assert address.startswith("/docs/")
        assert client.get(address).status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    script = client.get("/docs/page.js").text
    assert "SwaggerUIBundle" in script
    assert '"/openapi.json"' in script
    assert "swagger" in client.get("/docs/files/swagger-ui-bundle.js").text[:5_000].lower()


@pytest.mark.parametrize("path", NOWHERE)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_address_is_a_json_404(client: Client, method: str, path: str) -> None:
    response = client.request(method, path)
    expected = (405, "method_not_allowed") if (method, path) in WRONG_METHODS else (404, "not_found")
    assert (response.status_code, response.json()["error"]["code"]) == expected
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error"].keys() == {"code", "message", "request_id"}


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_wrong_method_is_a_json_405_that_names_the_right_ones(client: Client, path: str) -> None:
    response = client.patch(path.replace("{", "").replace("}", ""))
    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")
    described = {method.upper() for method in DOCUMENT["paths"][path]}
    assert set(response.headers["allow"].split(", ")) - {"HEAD"} == described


def check(served: Served, folder: Path, *options: str) -> None:
    """Let schemathesis try the server with every check, and fail when it finds anything."""
    done = subprocess.run(
        [SCHEMATHESIS, "run", f"{served.url}/openapi.json", "--checks", "all", "--no-shrink", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1_200,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_program_keeps_to_its_document(plain: Served, tmp_path: Path) -> None:
    check(plain, tmp_path, "--phases", "coverage,fuzzing", "--max-examples", "1")


@pytest.mark.long
@pytest.mark.timeout(1_500)
def test_program_keeps_to_its_document_over_and_over(plain: Served, tmp_path: Path) -> None:
    check(plain, tmp_path, "--max-examples", "100")
