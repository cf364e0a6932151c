"""What the server's log lines hold, and what they must not."""

import asyncio
import json
import logging
import os
import pty
import socket
import sys
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import socketio  # type: ignore[import-untyped]  # it has no types
import structlog
import uvicorn
from opentelemetry.sdk.trace import TracerProvider
from starlette.types import Receive, Scope, Send

from smartstore_indexing.errors import StoreUnavailable
from smartstore_indexing.setting_groups import WatchSettings
from smartstore_ui.logs import configure_logs

SECRET = "010-1234-5678"
QUESTION = f"제 번호 {SECRET} 로 판매자 등록이 되나요"
Lines = Callable[[], list[dict[str, str]]]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Give logging back, which is the process's, as the test found it."""
    names = list(logging.root.manager.loggerDict)
    found = [(logger, dict(vars(logger))) for logger in (logging.root, *map(logging.getLogger, names))]
    disabled, configured, config = logging.root.manager.disable, structlog.is_configured(), structlog.get_config()
    yield
    logging.captureWarnings(capture=False)
    logging.disable(disabled)
    for logger, before in found:
        vars(logger).update(before)
    logging.root.setLevel(logging.root.level)  # forgets what the loggers have cached of their levels
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
    if configured:
        structlog.configure(**config)


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Return what reads the lines written so far, as JSON; nothing may stand on the standard output."""

    def read() -> list[dict[str, str]]:
        out, err = capsys.readouterr()
        assert out == ""
        return [json.loads(line) for line in err.splitlines()]

    return read


def log_with(level: str = "info") -> structlog.BoundLogger:
    """Configure the logs and return a logger of ours."""
    configure_logs(WatchSettings(log_level=level))
    return structlog.get_logger("smartstore_workflows.chatbot")  # type: ignore[no-any-return]  # structlog's


def told(line: dict[str, str]) -> str:
    return json.dumps(line, ensure_ascii=False)


async def test_a_line_is_one_json_object_with_the_request_that_it_belongs_to(lines: Lines) -> None:
    log = log_with()
    structlog.contextvars.bind_contextvars(request_id="req-1")

    async def step() -> None:
        log.warning("conversation not read", code="store_unavailable", tries=2)

    await asyncio.create_task(step())

    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "conversation not read",
        "level": "warning",
        "logger": "smartstore_workflows.chatbot",
        "request_id": "req-1",
        "code": "store_unavailable",
        "tries": 2,
    }


def test_a_library_line_looks_like_ours(lines: Lines) -> None:
    log_with()
    structlog.contextvars.bind_contextvars(request_id="req-1")
    logging.getLogger("redis").warning("connection %s lost", "a")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(capture=False)  # pytest catches warnings too; this time the log is to
        logging.captureWarnings(capture=True)
        warnings.warn("old", stacklevel=1)

    first, second = lines()
    assert (first["event"], first["logger"], first["request_id"]) == ("connection a lost", "redis", "req-1")
    assert (second["level"], second["logger"]) == ("warning", "py.warnings")
    assert "UserWarning: old" in second["event"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", ["debug", "info", "error"]), ("INFO", ["info", "error"]), ("error", ["error"])],
)
def test_the_level_is_the_settings(lines: Lines, level: str, expected: list[str]) -> None:
    log = log_with(level)
    log.debug("one")
    log.info("two")
    log.error("three")

    assert [line["level"] for line in lines()] == expected


@pytest.mark.parametrize("level", ["debug", "info"])
def test_libraries_write_neither_addresses_nor_bodies_at_any_level(lines: Lines, level: str) -> None:
    log_with(level)
    for name in ("openai._base_client", "httpx", "httpcore.http11", "websockets.server", "uvicorn.error", "aiormq"):
        logging.getLogger(name).debug("body %s", QUESTION)
    for name in ("httpx", "socketio.server", "engineio.server", "uvicorn.access", "openai", "pymilvus.milvus_client"):
        logging.getLogger(name).info("packet %s", QUESTION)
    logging.getLogger("pymilvus.decorators").error("RPC error %s", QUESTION)

    assert lines() == []


def test_libraries_that_bring_a_handler_write_no_line_of_their_own_form(lines: Lines) -> None:
    for name in ("socketio.server", "pymilvus"):  # as they are before their imports, and after
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.getLogger("pymilvus").addHandler(logging.StreamHandler())
    log_with()
    socketio.AsyncServer(async_mode="asgi").logger.error("broken")
    logging.getLogger("pymilvus").critical("broken")

    assert [line["event"] for line in lines()] == ["broken", "broken"]


async def test_uvicorn_writes_no_query_and_a_crash_without_its_message(lines: Lines) -> None:
    async def crash(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError(urllib.parse.unquote(scope["query_string"].decode()))

    log_with()
    server = uvicorn.Server(uvicorn.Config(crash, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listening]))
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
                answer = await client.get("/api/search", params={"q": QUESTION})
            server.should_exit = True

    assert answer.status_code == 500
    found = lines()
    assert [line["event"] for line in found if line["level"] == "error"] == ["Exception in ASGI application"]
    assert any("ValueError" in line.get("exception", "") for line in found)
    assert not any("등록" in told(line) or "%EB" in told(line) for line in found)


def ours(log: structlog.BoundLogger) -> None:
    try:
        raise ValueError(QUESTION)
    except ValueError:
        log.exception("failed")


def caused(log: structlog.BoundLogger) -> None:
    try:
        try:
            raise KeyError(QUESTION)
        except KeyError as error:
            raise ValueError(QUESTION) from error
    except ValueError:
        log.exception("failed")


def quoted_by_a_library(log: structlog.BoundLogger) -> None:
    try:
        raise ValueError(QUESTION)
    except ValueError as error:
        logging.getLogger("chainlit").exception(error)  # noqa: TRY401  as chainlit does


def grouped(log: structlog.BoundLogger) -> None:
    try:
        raise ExceptionGroup(QUESTION, [ValueError(QUESTION)])
    except ExceptionGroup:
        log.exception("failed")


def raised_from_itself(log: structlog.BoundLogger) -> None:
    try:
        try:
            raise ValueError(QUESTION)
        except ValueError as error:
            raise error from error  # as pymilvus does
    except ValueError:
        log.exception("failed")


def never_awaited(log: structlog.BoundLogger) -> None:
    async def fail() -> None:
        raise ValueError(QUESTION)

    async def main() -> None:
        await asyncio.wait([asyncio.create_task(fail())])

    with asyncio.Runner() as runner:
        runner.run(main())


CRASHES = [ours, caused, quoted_by_a_library, grouped, raised_from_itself, never_awaited]


@pytest.mark.parametrize("crash", CRASHES)
def test_an_exception_is_told_by_its_type_and_place_alone(
    lines: Lines, crash: Callable[[structlog.BoundLogger], None]
) -> None:
    crash(log_with())

    (line,) = lines()
    assert line["level"] == "error"
    assert "ValueError" in line["exception"]
    assert Path(__file__).name in line["exception"]
    assert "등록" not in told(line)


@pytest.mark.parametrize("crash", CRASHES)
def test_at_debug_the_message_is_told_with_personal_data_masked(
    lines: Lines, crash: Callable[[structlog.BoundLogger], None]
) -> None:
    crash(log_with("debug"))

    (line,) = [line for line in lines() if line["level"] == "error"]
    assert "등록" in told(line)
    assert "[전화번호]" in told(line)
    assert SECRET not in told(line)


def test_what_an_exception_of_ours_or_the_systems_is_can_be_read(lines: Lines, tmp_path: Path) -> None:
    log = log_with()
    try:
        try:
            (tmp_path / "none").read_text()
        except OSError as error:
            raise StoreUnavailable("저장소") from error
    except StoreUnavailable:
        log.exception("failed")

    (line,) = lines()
    assert "StoreUnavailable [store_unavailable]" in line["exception"]
    assert "FileNotFoundError [ENOENT]" in line["exception"]
    assert "저장소" not in line["exception"]


def test_personal_data_is_masked_wherever_it_stands_in_a_line(lines: Lines) -> None:
    log_with().warning(QUESTION, question=QUESTION, all=[QUESTION, {"inner": QUESTION}], error=ValueError(QUESTION))
    logging.getLogger("redis").warning("key %s", QUESTION)

    found = lines()
    assert len(found) == 2
    assert not any(SECRET in told(line) for line in found)
    assert all("[전화번호]" in line["event"] for line in found)


def test_an_id_that_looks_like_a_phone_number_stays_as_it_is(lines: Lines) -> None:
    log_with().info("asked", request_id="01012345678", run_id="01012345678", other="01012345678")

    (line,) = lines()
    assert (line["request_id"], line["run_id"], line["other"]) == ("01012345678", "01012345678", "[전화번호]")


def test_masking_leaves_places_and_addresses_as_they_are(lines: Lines) -> None:
    running = "Uvicorn running on http://0.0.0.0:8000 (Press CTRL+C to quit)"
    ours(log_with())
    logging.getLogger("uvicorn.error").info(running)

    crash, said = lines()
    assert "[" not in crash["exception"]
    assert said["event"] == running


def test_a_library_message_is_cut_at_its_first_line_and_500_characters(lines: Lines) -> None:
    log_with()
    logging.getLogger("redis").error("%s\nsecond", "x" * 600)

    assert [line["event"] for line in lines()] == ["x" * 500]


def test_a_line_names_the_trace_that_it_belongs_to(lines: Lines) -> None:
    log = log_with()
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("step") as span:
        log.info("inside")
    log.info("outside")

    inside, outside = lines()
    assert int(inside["trace_id"], 16) == span.get_span_context().trace_id
    assert "trace_id" not in outside


@pytest.mark.parametrize(("log_format", "is_json"), [("auto", False), ("json", True), ("console", False)])
def test_on_a_terminal_lines_are_for_a_person_unless_json_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, log_format: str, is_json: bool
) -> None:
    ours_end, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        configure_logs(WatchSettings(log_format=log_format))
        structlog.get_logger("smartstore_ui").info("question answered")
        terminal.flush()
        written = os.read(ours_end, 10_000).decode()
    os.close(ours_end)

    assert "question answered" in written
    assert written.startswith("{") is is_json


def test_without_a_terminal_console_lines_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(WatchSettings(log_format="console"))
    structlog.get_logger("smartstore_ui").info("question answered")

    written = capsys.readouterr().err
    assert "question answered" in written
    assert not written.startswith("{")


def test_logging_that_was_turned_off_is_turned_on_again(lines: Lines) -> None:
    logging.disable(logging.CRITICAL)  # as the command line does
    log_with().info("heard")

    assert [line["event"] for line in lines()] == ["heard"]
