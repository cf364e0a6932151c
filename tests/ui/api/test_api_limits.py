"""How much one client may ask, how much all may, how large a request may be, and who may ask at all."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from conftest import RedisProcess, wait_until
from redis import Redis
from served import KEYS, ORIGIN, PER_MINUTE, Served
from talking import MINOR, Client, only, scripted

LONG = "가나다 " * 450
EVERY_ROUTE = [
    ("POST", "/api/chat"),
    ("GET", "/api/runs/x/events"),
    ("DELETE", "/api/runs/x"),
    ("GET", "/api/search?q=a"),
    ("GET", "/api/sessions"),
    ("GET", "/api/sessions/x"),
    ("DELETE", "/api/sessions/x"),
    ("POST", "/api/feedback"),
    ("POST", "/api/index"),
    ("GET", "/api/index/x"),
    ("GET", "/api/index/x/events"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
]
OWNERS = [("GET", "/api/sessions"), ("POST", "/api/index"), ("GET", "/api/index/x"), ("GET", "/api/index/x/events")]


def code(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"code", "message", "request_id"}
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    return response.status_code, body["error"]["code"]


@pytest.fixture(params=["local", "redis"])
def limited(request: pytest.FixtureRequest) -> Iterator[Callable[[], Client]]:
    """Return what opens clients, each with an address of its own, of a server that counts requests."""
    served: Served = request.getfixturevalue({"local": "talkative", "redis": "guarded"}[request.param])
    with ExitStack() as stack:
        yield lambda: stack.enter_context(served.client(Authorization=f"Bearer {KEYS[0]}"))


def assert_too_many(response: httpx.Response) -> None:
    assert code(response) == (429, "too_many_requests")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert f"{response.headers['retry-after']}초" in response.json()["error"]["message"]


def test_address_that_asks_too_often_is_told_when_to_come_back(limited: Callable[[], Client]) -> None:
    one, other = limited(), limited()
    found = [one.get("/api/search", params={"q": "정산"}) for _ in range(PER_MINUTE + 2)]
    assert [response.status_code for response in found] == [200] * PER_MINUTE + [429] * 2
    assert_too_many(found[-1])
    assert_too_many(one.post("/api/chat", json={"question": MINOR}))
    assert other.get("/api/search", params={"q": "정산"}).status_code == 200
    assert one.get("/healthz").status_code == one.get("/readyz").status_code == one.get("/metrics").status_code == 200


def test_session_that_asks_too_often_from_anywhere_is_stopped(limited: Callable[[], Client]) -> None:
    session_id = limited().reply(MINOR, model="extractive")["session_id"]
    body = {"question": MINOR, "session_id": session_id, "model": "extractive"}
    found = [limited().post("/api/chat?stream=false", json=body) for _ in range(PER_MINUTE + 1)]
    assert [response.status_code for response in found] == [200] * PER_MINUTE + [429]
    assert_too_many(found[-1])


def test_requests_are_counted_in_redis_for_all_processes(owner: Client, server_redis: RedisProcess) -> None:
    owner.get("/api/search", params={"q": "정산"})
    with Redis.from_url(server_redis.url) as redis:
        keys = [key.decode() for key in redis.keys("*")]
    assert [key for key in keys if owner.headers["X-Forwarded-For"] in key]
    assert [key for key in keys if not key.startswith("smartstore:")] == []


def test_beyond_the_ceiling_one_waits_and_the_next_is_turned_away(guarded: Served) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(1) as thread:
        first, second, third = (
            stack.enter_context(guarded.client(Authorization=f"Bearer {KEYS[0]}")) for _ in range(3)
        )
        events = stack.enter_context(first.chat(**scripted(first, LONG)))
        run_id = next(events).data["run_id"]
        waiting = thread.submit(second.post, "/api/chat?stream=false", json={"question": MINOR, "model": "extractive"})
        wait_until(lambda: third.metric("smartstore_live_runs") == 2)
        refused = third.post("/api/chat", json={"question": MINOR, "model": "extractive"})
        assert code(refused) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert third.delete(f"/api/runs/{run_id}").status_code == 204
        assert waiting.result(30).json()["answer"]["kind"] == "answered"
        assert third.reply(MINOR, model="extractive")["answer"]["kind"] == "answered"


def test_question_that_waited_too_long_for_a_place_is_turned_away(guarded: Served, owner: Client) -> None:
    with guarded.client(Authorization=f"Bearer {KEYS[0]}") as other, other.chat(**scripted(other, LONG)) as events:
        run_id = next(events).data["run_id"]
        assert code(owner.post("/api/chat", json={"question": MINOR})) == (503, "overloaded")
        assert owner.delete(f"/api/runs/{run_id}").status_code == 204
        assert only(list(events), "error")["code"] == "cancelled"


@pytest.mark.parametrize("path", ["/api/chat", "/api/feedback", "/api/index", "/v1/chat/completions"])
def test_body_of_more_than_64_kib_is_too_large(client: Client, path: str) -> None:
    blank = b" " * (64 * 1024)
    assert code(client.post(path, content=blank + b" ")) == (413, "too_large")
    assert code(client.post(path, content=itertools.repeat(b" " * 1_024, 65))) == (413, "too_large")
    assert code(client.post(path, content=blank)) == (422, "invalid_request")
    assert client.post("/api/chat?stream=false", content=blank[64:] + b'{"question":"%s"}' % b"a").status_code == 200


@pytest.mark.parametrize(
    ("question", "status"), [("가", 200), ("정" * 2_000, 200), ("정" * 2_001, 422), ("", 422), (" \n ", 422)]
)
def test_questions_have_1_to_2000_characters(client: Client, question: str, status: int) -> None:
    assert client.post("/api/chat?stream=false", json={"question": question}).status_code == status


BAD: dict[str, Any] = {
    "nothing": b"",
    "no JSON": b"question=a",
    "no UTF-8": b'{"question": "\xff"}',
    "an array": b"[]",
    "neither question nor FAQ": b"{}",
    "null": b'{"question": null}',
    "a number": b'{"question": 1}',
    "a misspelt field": '{"question": "정산", "sesion_id": "x"}'.encode(),
    "half a surrogate": b'{"question": "\\ud800"}',
    "no number": b'{"question": NaN}',
    "deep": b"[" * 60_000,
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_body_that_cannot_be_read_is_told_in_korean(client: Client, body: bytes) -> None:
    response = client.post("/api/chat", content=body)
    assert code(response) == (422, "invalid_request")
    assert any("가" <= letter <= "힣" for letter in response.json()["error"]["message"])


@pytest.mark.parametrize(("method", "path"), EVERY_ROUTE)
def test_every_route_needs_a_key_where_it_is_required(guarded: Served, method: str, path: str) -> None:
    for authorization in ("", "Bearer wrong", f"Basic {KEYS[0]}", f"Bearer {KEYS[0]}x", "Bearer x", f"Bearer {KEYS}"):
        with guarded.client(**{"Authorization": authorization} if authorization else {}) as client:
            response = client.request(method, path)
        assert code(response) == (401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
    for key in KEYS:
        with guarded.client(Authorization=f"bearer {key}") as client:
            assert client.request(method, path, content=b"x" if method == "POST" else None).status_code in (
                200,
                404,
                422,
            )


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"])
def test_probes_and_documents_need_no_key(guarded: Served, path: str) -> None:
    with guarded.client() as client:
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(("method", "path"), OWNERS)
def test_owners_routes_are_for_this_machine_without_a_key(plain: Served, method: str, path: str) -> None:
    with plain.client(X_Forwarded_For="203.0.113.9") as elsewhere, plain.client() as here:
        assert code(elsewhere.request(method, path)) == (403, "forbidden")
        assert code(here.request(method, path, headers={"Host": "rebound.example"})) == (403, "forbidden")
        assert code(here.request(method, path, headers={"Origin": "https://evil.example"})) == (403, "forbidden")
        own = {"Origin": plain.url}
        assert here.request(method, path, headers=own, content=b"x" if method == "POST" else None).status_code != 403


def test_configured_origin_may_call_and_read(guarded: Served) -> None:
    with guarded.client(Origin=ORIGIN) as page:
        asking = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        preflight = page.options("/api/chat", headers=asking)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert {"authorization", "last-event-id"} <= set(
            preflight.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
        )
        refused = page.post("/api/chat", json={"question": MINOR})
        assert code(refused) == (401, "unauthorized")
        assert refused.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in refused.headers["access-control-expose-headers"].lower()


def test_other_origins_may_not_read(guarded: Served, plain: Served) -> None:
    for served in (guarded, plain):
        with served.client(Origin="https://evil.example") as page:
            asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
            preflight = page.options("/api/chat", headers=asking)
            assert preflight.status_code >= 400
            assert "access-control-allow-origin" not in preflight.headers
            assert "access-control-allow-origin" not in page.get("/v1/models").headers
