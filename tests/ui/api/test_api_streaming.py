"""POST /api/chat and the runs behind it: frames, heartbeats, resuming, hanging up, stopping."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import ModelServer, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from served import ModelSwitch, Served
from talking import MINOR, RESTAURANT, UNANSWERED, Client, Event, events_of, only, read_events, said, scripted

from smartstore_ui.api.runs import Frame
from smartstore_ui.api.sse import event_bytes
from smartstore_workflows import wire

LONG = "가나다 " * 450  # four seconds of the scripted model
TEXTS = {
    "line breaks": "하나\n둘\n\n셋\r\n넷\r다섯",
    "frames": "data: 가짜\n\nevent: done\ndata: {}\n\nid: 99\n: 주석\nretry: 0",
    "emoji": "👩‍👩‍👧‍👦 안녕 🎉 끝",
    "separators": "가\u2028나\u2029다\u0085라\u200b마\ufeff바",
    "markup": '<script>alert("x")</script> \\n \\" {"a": [1]}',
}


def stats(server: ModelServer) -> dict[str, int]:
    found: dict[str, int] = json.loads(server.get("/stub/stats"))
    return {"live": 0, "chat": 0, "disconnected": 0, "completed": 0, **found}


@settings(deadline=None)
@given(text=st.text(st.characters(codec="utf-8")), cut=st.integers(1, 40))
def test_any_text_survives_its_frames_wherever_they_are_cut(text: str, cut: int) -> None:
    frame = Frame.of(wire.StreamEvent(id=7, event="token", data=wire.Token(text=text)))
    sent = event_bytes(frame.id, frame.event, frame.data) * 2
    parts = (sent[start : start + cut] for start in range(0, len(sent), cut))
    assert list(read_events(parts)) == [Event(7, "token", {"text": text})] * 2


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_model_may_say_anything_in_its_tokens(listener: Client, text: str) -> None:
    events = listener.ask(**scripted(listener, text))
    assert only(events, "answer")["text"] == text
    assert said(events) == text


@pytest.mark.parametrize(
    ("question", "kind"), [(MINOR, "answered"), (RESTAURANT, "refused"), (UNANSWERED, "not_found")]
)
def test_every_kind_of_answer_is_streamed_in_order(client: Client, question: str, kind: str) -> None:
    events = client.ask(question)
    names = [event.name for event in events]
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert (names[0], names[-1]) == ("started", "done")
    assert names.count("started") == names.count("answer") == names.count("suggestions") == names.count("done") == 1
    assert names.index("answer") > names.index("token")
    assert names.index("suggestions") > names.index("answer")
    answer = only(events, "answer")
    assert (answer["kind"], answer["model"], answer["degraded"]) == (kind, "extractive", False)
    assert said(events) == answer["text"]
    assert names.count("token") >= 3
    assert only(events, "started").keys() == {"run_id", "session_id", "model"}
    assert only(events, "done")["run_id"] == only(events, "started")["run_id"]
    assert only(events, "done").keys() == {"run_id", "timings_ms", "usage"}
    assert all(offer["faq_id"] for offer in only(events, "suggestions"))
    sources = [event.data for event in events if event.name == "sources"]
    assert bool(sources and sources[0]) == (kind == "answered")


def test_stream_has_the_headers_that_keep_it_one(client: Client) -> None:
    with client.stream("POST", "/api/chat", json={"question": MINOR}) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-store"
        assert "content-length" not in response.headers
        response.read()


def test_whole_answer_has_the_streams_content(client: Client) -> None:
    events, reply = client.ask(MINOR), client.reply(MINOR)
    assert reply.keys() == {"run_id", "session_id", "sources", "answer", "suggestions", "usage", "timings_ms"}
    for name in ("sources", "suggestions"):
        assert reply[name] == only(events, name)
    assert reply["answer"] == {**only(events, "answer"), "cached": reply["answer"]["cached"]}
    assert reply["usage"] == only(events, "done")["usage"]
    assert reply["run_id"] != only(events, "started")["run_id"]


def test_model_is_named_and_its_tokens_counted(listener: Client) -> None:
    events = listener.ask(**scripted(listener, "하나 둘 [1] 셋"))
    assert only(events, "started")["model"] == only(events, "answer")["model"] == ModelSwitch.NAME.decode()
    assert only(events, "answer")["citations"] == [only(events, "sources")[0]["id"]]
    extract = listener.reply(MINOR, model="extractive")
    assert extract["answer"]["model"] == "extractive"


def test_quiet_stream_sends_comments(listener: Client, switch: ModelSwitch) -> None:
    with switch.model("stub-hang"), listener.stream("POST", "/api/chat", json=scripted(listener, "늦음")) as response:
        names = [event.name for event in read_events(response.iter_bytes())]
    assert names.count("comment") >= 3
    assert names[-1] == "done"


def test_stream_goes_on_after_the_last_event_that_came(listener: Client) -> None:
    with listener.chat(**scripted(listener, LONG[:400])) as events:
        first = [next(events) for _ in range(12)]
    run_id = first[0].data["run_id"]
    rest = listener.resume(run_id, first[-1].id)
    whole = [*first, *rest]
    assert [event.id for event in whole] == list(range(1, len(whole) + 1))
    assert whole[-1].name == "done"
    assert said(whole) == only(whole, "answer")["text"] == LONG[:400].rstrip()


def test_ended_run_is_read_again_from_anywhere(client: Client) -> None:
    events = client.ask(MINOR)
    run_id = events[0].data["run_id"]
    assert client.resume(run_id) == events
    assert client.resume(run_id, 0) == events
    assert client.resume(run_id, 5) == events[5:]
    assert client.resume(run_id, len(events)) == []
    assert client.resume(run_id, 10**17) == []


def test_several_clients_may_follow_one_run(listener: Client, talkative: Served) -> None:
    with listener.chat(**scripted(listener, LONG[:200])) as events:
        run_id = next(events).data["run_id"]
        with talkative.client() as other, ThreadPoolExecutor(1) as thread:
            following = thread.submit(other.resume, run_id, 1)
            own = list(events)
            assert following.result(30) == own


@pytest.mark.parametrize("header", ["x", "-1", "1.5", "１", "9" * 19, "1 2"])
def test_last_event_id_that_is_no_number_is_refused(client: Client, header: str) -> None:
    run_id = client.reply(MINOR)["run_id"]
    response = client.get(f"/api/runs/{run_id}/events", headers={b"Last-Event-ID": header.encode()})
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("run_id", ["0" * 32, "%00", "가", "a b"])
def test_unknown_run_is_not_found(client: Client, run_id: str) -> None:
    for response in (client.get(f"/api/runs/{run_id}/events"), client.delete(f"/api/runs/{run_id}")):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_client_that_hangs_up_stops_the_models_request(listener: Client, slow_model: ModelServer) -> None:
    before = stats(slow_model)
    with listener.chat(**scripted(listener, LONG)) as events:
        while next(events).name != "token":
            pass
        assert stats(slow_model)["live"] == before["live"] + 1
    wait_until(lambda: stats(slow_model)["live"] == before["live"], 3.0)
    assert stats(slow_model)["disconnected"] == before["disconnected"] + 1


def test_client_that_leaves_a_silent_model_stops_its_request(
    listener: Client, slow_model: ModelServer, switch: ModelSwitch
) -> None:
    before = stats(slow_model)
    with switch.model("stub-hang"):
        with listener.chat(**scripted(listener, "늦음")) as events:
            run_id = next(events).data["run_id"]
            wait_until(lambda: stats(slow_model)["chat"] == before["chat"] + 1)
        wait_until(lambda: listener.metric("smartstore_live_runs") == 0, 4.0)
    assert only(listener.resume(run_id), "error")["code"] == "cancelled"


def test_client_that_comes_back_in_time_goes_on(listener: Client, slow_model: ModelServer) -> None:
    before = stats(slow_model)
    with listener.chat(**scripted(listener, LONG[:800])) as events:
        first = [next(events) for _ in range(10)]
    rest = listener.resume(first[0].data["run_id"], first[-1].id)
    assert said([*first, *rest]) == LONG[:800].rstrip()
    assert only(rest, "answer")["degraded"] is False
    assert stats(slow_model)["disconnected"] == before["disconnected"]


def test_run_that_was_left_is_told_as_cancelled(listener: Client) -> None:
    with listener.chat(**scripted(listener, LONG)) as events:
        first = [next(events) for _ in range(10)]
    wait_until(lambda: listener.metric("smartstore_live_runs") == 0, 4.0)
    whole = listener.resume(first[0].data["run_id"])
    assert whole[:10] == first
    assert [event.name for event in whole[-2:]] == ["error", "done"]
    assert only(whole, "error")["code"] == "cancelled"
    assert listener.turns(first[0].data["session_id"]) == []  # half an answer is not remembered


def test_deleted_run_stops_the_model_and_ends_the_stream(
    listener: Client, slow_model: ModelServer, talkative: Served
) -> None:
    before = stats(slow_model)
    with listener.chat(**scripted(listener, LONG)) as events, talkative.client() as other:
        run_id = next(events).data["run_id"]
        while next(events).name != "token":
            pass
        assert other.delete(f"/api/runs/{run_id}").status_code == 204
        rest = list(events)
    assert [event.name for event in rest if event.name != "token"] == ["error", "done"]
    assert only(rest, "error")["code"] == "cancelled"
    wait_until(lambda: stats(slow_model)["live"] == before["live"], 3.0)
    assert stats(slow_model)["disconnected"] == before["disconnected"] + 1
    assert listener.delete(f"/api/runs/{run_id}").status_code == 204  # a second time changes nothing


def test_clicked_follow_up_is_answered_by_its_faq(client: Client) -> None:
    first = client.ask(MINOR)
    offer = only(first, "suggestions")[0]
    session_id = only(first, "started")["session_id"]
    with client.chat(faq_id=offer["faq_id"], session_id=session_id) as events:
        answer = only(list(events), "answer")
    assert (answer["kind"], answer["citations"]) == ("answered", [offer["faq_id"]])


def test_equal_questions_at_once_ask_the_model_once(talkative: Served, slow_model: ModelServer) -> None:
    before = stats(slow_model)["chat"]
    question = f"반품 배송비는 누가 내나요? [[reply: {'한 번 ' * 30}]]"

    def ask(_: int) -> dict[str, Any]:
        with talkative.client() as one:
            answer: dict[str, Any] = one.reply(question)["answer"]
            return answer

    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(ask, range(5)))
    assert {answer["text"] for answer in answers} == {("한 번 " * 30).rstrip()}
    assert sorted(answer["cached"] for answer in answers) == [False, True, True, True, True]
    assert stats(slow_model)["chat"] == before + 1


def test_whole_answer_of_a_client_that_left_stops_the_model(talkative: Served, slow_model: ModelServer) -> None:
    before = stats(slow_model)
    with talkative.client() as leaving:
        body = scripted(leaving, LONG)
        with pytest.raises(Exception, match="timed out"):
            leaving.post("/api/chat?stream=false", json=body, timeout=0.5)
    assert stats(slow_model)["chat"] == before["chat"] + 1
    wait_until(lambda: stats(slow_model)["live"] == before["live"], 3.5)
    assert stats(slow_model)["disconnected"] == before["disconnected"] + 1


def test_many_streams_at_once_complete(plain: Served) -> None:
    def stream(number: int) -> list[Event]:
        with plain.client() as one, one.chat(question=f"{MINOR} {number % 7}") as events:
            return list(events)

    with ThreadPoolExecutor(30) as threads:
        found = list(threads.map(stream, range(30)))
    assert {events[-1].name for events in found} == {"done"}
    assert not [event for events in found for event in events if event.name == "error"]
    assert len({events[0].data["run_id"] for events in found}) == 30


def test_events_may_be_read_by_a_plain_event_source(client: Client) -> None:
    with client.stream("POST", "/api/chat", json={"question": MINOR}) as response:
        lines = response.read().decode().split("\n")
    assert lines[0] == "retry: 1000"
    assert {line.partition(":")[0] for line in lines if line} == {"retry", "id", "event", "data"}
    assert [event.name for event in events_of(response)][-1] == "done"
