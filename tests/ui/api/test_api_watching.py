"""What an operator and a browser see of every response: ids, headers, logs, metrics, readiness, feedback."""

import asyncio
import re

import pytest
from conftest import settings_for, wait_until
from served import ModelSwitch, Served
from talking import MINOR, RESTAURANT, UNANSWERED, Client, events_of, only, scripted

from smartstore_workflows.records import SqliteRunRecords
from smartstore_workflows.sqlite import SqliteFile
from smartstore_workflows.stores import FILE

SECRET = "비밀스러운 질문 zebra-4711"


def lines_of(served: Served, request_id: str) -> list[dict[str, object]]:
    """Return the log lines of a request, the last of which is written when its response was sent."""

    def found() -> list[dict[str, object]]:
        return [line for line in served.lines() if line.get("request_id") == request_id]

    wait_until(lambda: found()[-1:] != [] and found()[-1]["event"] == "request served")
    return found()


def test_request_id_is_in_the_header_the_error_body_and_every_log_line(client: Client, plain: Served) -> None:
    response = client.get("/api/runs/none/events")
    request_id = response.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert response.json()["error"]["request_id"] == request_id
    events = [line["event"] for line in lines_of(plain, request_id)]
    assert events == ["request refused", "request served"]


def test_given_request_id_is_kept_unless_it_could_be_none(owner: Client) -> None:
    given = "page:42_a.b-c"
    response = owner.post("/api/chat?stream=false", json={"question": " "}, headers={"X-Request-ID": given})
    assert response.headers["x-request-id"] == response.json()["error"]["request_id"] == given
    for unusable in ("페이지".encode(), b"a b", b"x" * 101, b'"}{'):
        response = owner.get("/healthz", headers={b"X-Request-ID": unusable})
        assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


@pytest.mark.parametrize("path", ["/healthz", "/api/nothing", "/docs", "/docs/files/swagger-ui.css", "/openapi.json"])
def test_every_response_has_the_headers_that_browsers_heed(client: Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe-eval" not in headers["content-security-policy"]
    assert "server" not in headers


def test_logs_hold_no_question_above_debug(client: Client, plain: Served) -> None:
    client.reply(SECRET)
    client.get("/api/search", params={"q": SECRET})
    client.post("/api/chat", json={"question": SECRET, "session_id": SECRET})
    client.post("/api/chat", json={"question": SECRET, SECRET: 1})
    client.get(f"/api/{SECRET}")
    assert "zebra" not in plain.log()


def test_request_is_logged_by_its_routes_template(client: Client, plain: Served) -> None:
    response = client.get("/api/sessions/some-session")
    (line,) = [line for line in lines_of(plain, response.headers["x-request-id"]) if line["event"] == "request served"]
    assert (line["method"], line["route"], line["status"]) == ("GET", "/api/sessions/{session_id}", 404)
    assert isinstance(line["milliseconds"], int)
    assert "some-session" not in plain.log()


def test_run_is_named_in_the_log_lines_of_its_request(listener: Client, talkative: Served, switch: ModelSwitch) -> None:
    with switch.model("stub-401"), listener.stream("POST", "/api/chat", json=scripted(listener, "답")) as response:
        run_id = only(list(events_of(response)), "started")["run_id"]
        request_id = response.headers["x-request-id"]
    failed, served = lines_of(talkative, request_id)
    assert (failed["event"], failed["run_id"]) == ("model failed", run_id)
    assert served["event"] == "request served"


def test_metrics_count_what_was_asked(client: Client) -> None:
    def figures() -> list[float]:
        return [
            client.metric("smartstore_answers_total", kind="answered", model="extractive"),
            client.metric("smartstore_answers_total", kind="refused", model="extractive"),
            client.metric("smartstore_answers_total", kind="not_found", model="extractive"),
            client.metric("smartstore_cache_hits_total"),
            client.metric("smartstore_first_token_seconds_count", model="extractive"),
            client.metric("smartstore_stage_seconds_count", stage="suggest"),
            client.metric("smartstore_http_requests_total", route="/api/chat", method="POST", status="200"),
        ]

    client.reply(MINOR)
    before = figures()
    client.reply(MINOR)
    client.ask(RESTAURANT)
    client.reply(UNANSWERED)
    wait_until(lambda: [now - was for now, was in zip(figures(), before, strict=True)] == [1, 1, 1, 1, 3, 3, 3])
    assert client.metric("smartstore_live_runs") == 0
    text = client.get("/metrics").text
    for name in ("smartstore_run_errors", "smartstore_model_errors", "smartstore_degraded_answers"):
        assert f"# HELP {name}_total" in text
    assert client.get("/metrics").headers["content-type"].startswith("text/plain")


def test_metrics_name_no_path_that_a_client_made_up(client: Client) -> None:
    client.get("/api/made-up-path")
    client.request("BREW", "/api/made-up-path")
    text = client.get("/metrics").text
    assert "made-up-path" not in text
    assert "BREW" not in text
    assert client.metric("smartstore_http_requests_total", route="unmatched", method="GET", status="404") >= 1


def test_files_of_the_documentation_are_counted_as_such(client: Client) -> None:
    def counted() -> float:
        return client.metric("smartstore_http_requests_total", route="/docs/files", method="GET", status="200")

    before = counted()
    assert client.get("/docs/files/swagger-ui.css").status_code == 200
    wait_until(lambda: counted() == before + 1)  # counted when it was sent


def test_stopped_run_is_counted(listener: Client) -> None:
    before = listener.metric("smartstore_stopped_runs_total")
    with listener.chat(question=MINOR) as events:
        run_id = next(events).data["run_id"]
        listener.delete(f"/api/runs/{run_id}")
        names = [event.name for event in events]
    stopped = "answer" not in names
    assert listener.metric("smartstore_stopped_runs_total") == before + stopped


def test_liveness_and_readiness(client: Client, owner: Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "dependencies": {"milvus": "ok"}})
    assert owner.get("/readyz").json() == {"ready": True, "dependencies": {"milvus": "ok", "redis": "ok"}}


@pytest.mark.parametrize("asker", ["client", "owner"])
def test_feedback_is_kept_for_runs_that_exist(request: pytest.FixtureRequest, asker: str) -> None:
    client: Client = request.getfixturevalue(asker)
    run_id = client.reply(MINOR, model="extractive")["run_id"]
    for body in ({"score": 1}, {"score": -1, "comment": "도움이 안 됐어요"}, {"score": 1, "comment": None}):
        rated = client.post("/api/feedback", json={"run_id": run_id, **body})
        assert (rated.status_code, rated.content) == (204, b"")
    unknown = client.post("/api/feedback", json={"run_id": "0" * 32, "score": 1})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
    for bad in ({"score": 0}, {"score": 2}, {"score": "1"}, {"score": True}, {"comment": "x"}):
        assert client.post("/api/feedback", json={"run_id": run_id, **bad}).status_code == 422


async def test_feedback_stands_beside_its_run_with_personal_data_masked(client: Client, plain: Served) -> None:
    def rate() -> str:
        run_id = str(client.reply(MINOR)["run_id"])
        client.post("/api/feedback", json={"run_id": run_id, "score": -1, "comment": "010-1234-5678로 연락 주세요"})
        return run_id

    run_id = await asyncio.to_thread(rate)
    file = await SqliteFile.open(settings_for(plain.folder / "data").data_dir / FILE)
    try:
        record = await (await SqliteRunRecords.open(file, days=3.0, feedback_days=365.0)).get(run_id)
    finally:
        await file.close()
    assert record is not None
    assert record.rating is not None
    assert (record.question, record.rating.score) == (MINOR, -1)
    assert "1234" not in (record.rating.comment or "")
    assert "연락 주세요" in (record.rating.comment or "")


def test_search_is_the_retriever_alone(client: Client) -> None:
    found = client.get("/api/search", params={"q": MINOR, "k": 5}).json()["results"]
    assert [one["n"] for one in found] == [1, 2, 3, 4, 5]
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    assert found[0]["id"] == only(client.ask(MINOR), "sources")[0]["id"]
    category = found[0]["category"]
    within = client.get("/api/search", params={"q": "정산", "category": category}).json()["results"]
    assert {one["category"] for one in within} == {category}
    assert client.get("/api/search", params={"q": "정산", "category": "없음"}).json() == {"results": []}
    for bad in ({}, {"q": ""}, {"q": "가" * 2_001}, {"q": "가", "k": 0}, {"q": "가", "k": 31}, {"q": "가", "k": "x"}):
        assert client.get("/api/search", params=bad).status_code == 422
