"""`smartstore serve` from its start to its end: killed, started again, asked to index, ended; and calls that fail."""

import json
import re
import signal
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import free_port, settings_for, wait_until
from served import KEYS, ModelSwitch, Served, model_settings, serving
from talking import MINOR, Client, Event, only, said, scripted
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from smartstore_indexing.errors import FolderInUse, IndexMissing, InvalidRequest, Misconfigured, TransientError
from smartstore_indexing.wiring import INCOMING
from smartstore_ui.api.context import opened
from smartstore_ui.api.requests import IndexBody
from smartstore_ui.commands import parser
from smartstore_ui.remote_indexing import IndexFailed, asked_of_server, brought
from smartstore_ui.serving import bound

LONG = "가나다 " * 450
NEW_FAQ = {
    "category": "시험",
    "question": "우주선 부품도 스마트스토어에서 판매할 수 있나요?",
    "answer": "우주선 부품은 항공우주 판매 허가증을 등록한 판매자만 판매할 수 있습니다.",
    "keyword": "",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass
class Life:
    """What was seen of one served folder."""

    killed: list[Event] = field(default_factory=list)
    turns_before: list[dict[str, Any]] = field(default_factory=list)
    turns_after: list[dict[str, Any]] = field(default_factory=list)
    went_on: dict[str, Any] = field(default_factory=dict)
    forgotten_run: int = 0
    index: subprocess.CompletedProcess[str] | None = None
    before_index: dict[str, Any] = field(default_factory=dict)
    after_index: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    job_events: str = ""
    broken_job: dict[str, Any] = field(default_factory=dict)
    outside_job: dict[str, Any] = field(default_factory=dict)
    rollback: subprocess.CompletedProcess[str] | None = None
    after_rollback: dict[str, Any] = field(default_factory=dict)
    second_rollback: httpx.Response | None = None
    drained: list[Event] = field(default_factory=list)
    meanwhile: list[httpx.Response] = field(default_factory=list)
    exit_code: int = -1
    socket_closed: int = 0
    log: str = ""


@pytest.fixture(scope="module")
def life(indexed_dir: Path, switch: ModelSwitch, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Serve a folder: killed in mid-answer, started again, asked by other commands, ended while it answers."""
    life, folder = Life(), tmp_path_factory.mktemp("life")
    settings = {
        **model_settings(switch),
        "OPENAI__TIMEOUT_SECONDS": "20",  # the fleet's servers start at the same time, and starve it
        "LIMITS__PER_MINUTE": "0",
        "SERVER__DRAIN_SECONDS": "20",
        "INDEX__FOLDERS": str(folder / "world"),
    }
    with serving(folder / "world", indexed_dir, **settings) as served:
        served.start()
        session_id, run_id = kill_in_mid_answer(served, life)
        served.start()
        with served.client() as client:
            life.turns_after = client.turns(session_id)
            life.forgotten_run = client.get(f"/api/runs/{run_id}/events").status_code
            life.went_on = client.reply("그럼 서류는요?", model="extractive", session_id=session_id)
            use_by_other_commands(served, client, life)
        end_while_answering(served, life)
        life.log = served.log()
    return life


def kill_in_mid_answer(served: Served, life: Life) -> tuple[str, str]:
    with served.client() as client:
        session_id = client.reply(MINOR, model="extractive")["session_id"]
        life.turns_before = client.turns(session_id)
        with client.chat(**scripted(client, LONG), session_id=session_id) as events:
            while not life.killed or life.killed[-1].name != "token":
                life.killed.append(next(events))
            served.signal(signal.SIGKILL)
            served.wait()
            with pytest.raises(httpx.HTTPError):
                life.killed += events
    return session_id, life.killed[0].data["run_id"]


def use_by_other_commands(served: Served, client: Client, life: Life) -> None:
    life.before_index = client.reply(NEW_FAQ["question"], model="extractive")
    sample = resources.files("smartstore_indexing").joinpath("sample/faq.jsonl").read_text(encoding="utf-8")
    anywhere, more = served.folder.parent / "anywhere.jsonl", served.folder / "more.jsonl"
    for path in (anywhere, more):
        path.write_text(f"{sample.rstrip()}\n{json.dumps(NEW_FAQ, ensure_ascii=False)}\n", encoding="utf-8")
    life.index = served.run("index", anywhere)
    wait_until(lambda: client.reply(NEW_FAQ["question"], model="extractive")["answer"]["kind"] == "answered")
    life.after_index = client.reply(NEW_FAQ["question"], model="extractive")
    accepted = client.post("/api/index", json={"source": str(more), "mode": "incremental"})
    assert (accepted.status_code, accepted.headers["location"]) == (202, f"/api/index/{accepted.json()['job_id']}")
    life.job_events = client.get(f"{accepted.headers['location']}/events").text
    life.job = client.get(accepted.headers["location"]).json()
    life.broken_job = ended_job(client, "없는/파일.jsonl")
    life.outside_job = ended_job(client, str(anywhere))
    life.rollback = served.run("index", "--rollback")
    wait_until(lambda: client.reply(NEW_FAQ["question"], model="extractive")["answer"]["kind"] != "answered")
    life.after_rollback = client.reply(MINOR, model="extractive")
    life.second_rollback = client.post("/api/index", json={"mode": "rollback"})


def ended_job(client: Client, source: str) -> dict[str, Any]:
    job = client.post("/api/index", json={"source": source}).headers["location"]
    wait_until(lambda: client.get(job).json()["state"] not in ("queued", "running"))
    found: dict[str, Any] = client.get(job).json()
    return found


def end_while_answering(served: Served, life: Life) -> None:
    with ExitStack() as stack:
        client, other = (stack.enter_context(served.client()) for _ in range(2))
        events = stack.enter_context(client.chat(**scripted(client, LONG[:600])))
        life.drained = [next(events) for _ in range(8)]
        socket = stack.enter_context(connect(f"{served.url.replace('http', 'ws')}/api/chat/ws", proxy=None))
        served.signal(signal.SIGTERM)
        wait_until(lambda: other.get("/readyz").status_code == 503)
        life.meanwhile = [
            other.get("/readyz"),
            other.post("/api/chat", json={"question": MINOR}),
            other.post("/api/chat?stream=false", json={"question": MINOR}),
            other.get(f"/api/runs/{life.drained[0].data['run_id']}/events", headers={"Last-Event-ID": "3"}),
        ]
        life.drained += events
        life.exit_code = served.wait()
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
        life.socket_closed = closed.value.rcvd.code if closed.value.rcvd else 0


def test_after_a_kill_every_finished_turn_is_there_and_no_half_one(life: Life) -> None:
    assert [turn["question"] for turn in life.turns_before] == [MINOR]
    assert life.turns_after == life.turns_before
    assert "done" not in [event.name for event in life.killed]


def test_after_a_kill_the_conversation_goes_on(life: Life) -> None:
    assert life.went_on["answer"]["kind"] == "answered"
    assert "동의" in life.went_on["answer"]["text"]
    assert life.forgotten_run == 404


def test_index_goes_through_the_server_and_shows_its_summary(life: Life) -> None:
    done = life.index
    assert done is not None
    assert (done.returncode, done.stderr) == (0, "")
    assert "FAQ 181건: 추가 1 · 변경 0 · 삭제 0 · 그대로 180" in done.stdout
    assert "새 색인을 사용합니다" in done.stdout


def test_server_answers_from_the_new_index(life: Life) -> None:
    assert life.before_index["answer"]["kind"] != "answered"
    assert life.after_index["answer"]["kind"] == "answered"
    assert "항공우주 판매 허가증" in life.after_index["answer"]["text"]


def test_index_job_that_fails_says_why(life: Life) -> None:
    assert life.broken_job["state"] == "failed"
    assert life.broken_job["error"]["code"] == "invalid_request"
    assert "파일.jsonl" in life.broken_job["error"]["message"]


def test_file_outside_the_allowed_folders_is_not_indexed_on_request(life: Life) -> None:
    assert life.outside_job["state"] == "failed"
    assert "허용된 폴더" in life.outside_job["error"]["message"]


def test_rollback_goes_through_the_server_and_the_index_before_answers(life: Life) -> None:
    assert life.rollback is not None
    assert (life.rollback.returncode, life.rollback.stderr) == (0, "")
    assert "이전 색인으로 되돌렸습니다. FAQ 180건" in life.rollback.stdout
    assert life.after_rollback["answer"]["kind"] == "answered"


def test_second_rollback_is_a_conflict(life: Life) -> None:
    assert life.second_rollback is not None
    assert (life.second_rollback.status_code, life.second_rollback.json()["error"]["code"]) == (409, "conflict")


def test_index_that_the_server_cannot_make_says_why(plain: Served, guarded: Served) -> None:
    def index(served: Served, *keys: str, name: str = "없음.jsonl") -> None:
        wanted = IndexBody(source=str(served.folder / "data" / INCOMING / name))
        asked_of_server(served.url, frozenset(keys), wanted, lambda *_: None)

    with pytest.raises(IndexFailed, match=r"없음\.jsonl"):
        index(plain)
    with pytest.raises(IndexFailed, match=r"없음\.jsonl"):
        index(guarded, KEYS[0])
    with pytest.raises(IndexFailed, match=r" 없음\.csv: 파일이 없습니다"):
        index(plain, name="\u2028\n\x85 없음.csv")
    with pytest.raises(IndexFailed, match="API 키"):
        index(guarded)
    with pytest.raises(TransientError, match="응답하지 않습니다"):
        asked_of_server(f"http://127.0.0.1:{free_port()}", frozenset(), IndexBody(), lambda *_: None)


def test_file_is_brought_into_the_data_folder_and_leaves_nothing_there(tmp_path: Path) -> None:
    source, data = tmp_path / "\u2028\n\x85 파일.csv", tmp_path / "data"
    source.write_text("question,answer\n", encoding="utf-8")
    with brought(source, data) as copy:
        assert copy.is_relative_to(data / INCOMING)
        assert (copy.name, copy.read_text(encoding="utf-8")) == (source.name, "question,answer\n")
    assert list((data / INCOMING).iterdir()) == []
    for missing in (tmp_path / "없음.csv", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(InvalidRequest, match="파일이 없거나"), brought(missing, data):
            pass


def test_index_job_tells_its_way_and_its_end(life: Life) -> None:
    assert life.job["state"] == "succeeded"
    assert life.job["summary"]["unchanged"] == life.job["summary"]["faqs"] == 181
    assert life.job["error"] is None
    assert life.job_events.rstrip().split("\n\n")[-1].split("\n")[1] == "event: succeeded"


async def test_second_server_says_who_holds_the_folder(plain: Served) -> None:
    with pytest.raises(FolderInUse, match="smartstore serve") as raised:
        async with opened(settings_for(plain.folder / "data")):
            pass
    assert (raised.value.exit_code, raised.value.url) == (3, plain.url)


def test_running_stream_finishes_before_the_end(life: Life) -> None:
    assert said(life.drained) == LONG[:600].rstrip()
    assert only(life.drained, "answer")["degraded"] is False
    assert life.drained[-1].name == "done"


def test_new_questions_are_turned_away_at_the_end(life: Life) -> None:
    ready, chat, whole, resumed = life.meanwhile
    assert (ready.status_code, ready.json()) == (
        503,
        {"ready": False, "dependencies": {"milvus": "ok", "server": "closing"}},
    )
    for response in (chat, whole):
        assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
    assert resumed.status_code == 200
    assert "event: done" in resumed.text


def test_server_that_is_told_to_end_ends_well(life: Life) -> None:
    assert life.exit_code == 0
    assert life.socket_closed == 1012  # the service restarts: a page connects anew
    assert "Traceback" not in life.log


async def test_serving_without_an_index_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(IndexMissing, match="smartstore index"):
        async with opened(settings_for(tmp_path)):
            pass


def test_port_in_use_and_address_of_another_machine_are_said_with_what_to_do() -> None:
    with bound("127.0.0.1", 0) as (listener, url):
        listener.listen()
        port = listener.getsockname()[1]
        assert url == f"http://127.0.0.1:{port}"
        with pytest.raises(Misconfigured, match=f"127.0.0.1의 {port}번 포트.*--port"), bound("127.0.0.1", port):
            pass
    with pytest.raises(Misconfigured, match=r"203\.0\.113\.1"), bound("203.0.113.1", 0):
        pass


def test_help_is_korean_and_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["serve", "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert said.startswith("사용법: smartstore serve")
    assert {"--host", "--port"} <= set(said.split())


@pytest.mark.parametrize("port", ["65536", "-1", "팔천", "１"])
def test_port_that_is_none_is_a_wrong_call(capsys: pytest.CaptureFixture[str], port: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["serve", f"--port={port}"])
    assert ended.value.code == 2
    assert "65535" in capsys.readouterr().err


def test_address_is_told_at_the_start(life: Life) -> None:
    assert re.search(r"http://127\.0\.0\.1:\d+/docs", life.log)
