"""`smartstore ask` as a conversation in a terminal."""

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import STUB, wait_until
from program import PROMPT, World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MINOR = "미성년자도 판매 회원 등록이 가능한가요?"
GOODBYE = "이용해 주셔서 감사합니다."


@pytest.fixture(scope="module")
def world(indexed_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("talk") / "world", indexed_dir)


@pytest.fixture(scope="module")
def screens(world: World) -> dict[str, str]:
    """Hold one conversation and return what each input showed."""
    with world.terminal("ask") as terminal:
        found = {"welcome": terminal.until(PROMPT)}
        for name, line in [
            ("question", MINOR),
            ("error", "😀🎉"),
            ("whole FAQ", "/1"),
            ("offer", "1"),
            ("follow-up", "그럼 제출은 어떻게 해요?"),
            ("empty", "   "),
            ("unknown command", "/없는명령"),
            ("help", "/도움말"),
            ("new conversation", "/새대화"),
            ("number of nothing", "/1"),
        ]:
            found[name] = terminal.say(line)
        terminal.child.sendeof()
        found["end"] = terminal.rest()
        found["code"] = str(terminal.code)
    return found


@pytest.fixture(scope="module")
def slow_model() -> Iterator[str]:
    """Start the scripted model server, three seconds a token; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        str(STUB),
        "--port",
        str(port),
        "--ttft-ms",
        "20",
        "--token-ms",
        "3000",
        "--tokens",
        "60",
    ]
    with subprocess.Popen(command) as process:
        try:
            wait_until(lambda: _answers(port), 60)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=10)


@pytest.fixture(scope="module")
def interrupted(world: World, screens: dict[str, str], slow_model: str) -> dict[str, str]:
    """Interrupt an answer, go on, and interrupt the prompt; the first conversation is over, its data folder free."""
    key = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"{slow_model}/v1", "SMARTSTORE_OPENAI__MODEL": "stub"}
    with world.terminal("ask", **key) as terminal:
        terminal.until(PROMPT)
        terminal.child.sendline(MINOR)
        terminal.until("스마")  # the stub's first token
        terminal.interrupt()
        found = {"answer": terminal.until(PROMPT)}
        wait_until(lambda: '"disconnected":1' in _get(f"{slow_model}/stub/stats"))
        found["next"] = terminal.say("/새대화")
        terminal.interrupt()
        found["end"] = terminal.rest()
        found["code"] = str(terminal.code)
    return found


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_welcome_says_what_it_is_and_how_it_is_used(screens: dict[str, str]) -> None:
    for word in ("스마트스토어 FAQ 챗봇", "/새대화", "/도움말", "/끝", "Ctrl-D"):
        assert word in screens["welcome"]


def test_question_shows_answer_sources_and_offers(screens: dict[str, str]) -> None:
    for shown in ("법정대리인", "도움말\n  [1] ", "더 궁금하시다면\n  1) "):
        assert shown in screens["question"]


def test_number_chooses_the_offer_of_that_number(screens: dict[str, str]) -> None:
    assert "1) ‘미성년자가 가입 신청할 때 필요한 동의 서류" in screens["question"]
    assert "[1] 가입 · 미성년자가 가입 신청할 때 필요한 동의 서류" in screens["offer"]


def test_number_after_a_slash_shows_the_whole_faq(screens: dict[str, str]) -> None:
    assert "[1] 만 19세 미만 미성년자도 판매 회원으로 가입할 수 있나요?" in screens["whole FAQ"]
    assert "만 14세 미만은 판매 회원이 될 수 없습니다." in screens["whole FAQ"]


def test_follow_up_finds_the_topic_of_the_conversation(screens: dict[str, str]) -> None:
    assert "미성년자" in screens["follow-up"]


def test_error_is_said_and_the_conversation_goes_on(screens: dict[str, str]) -> None:
    assert "오류: 글자가 없는 질문" in screens["error"]
    assert "Traceback" not in screens["error"]


def test_empty_line_asks_again_without_a_word(screens: dict[str, str]) -> None:
    assert screens["empty"].strip() == ""


@pytest.mark.parametrize("name", ["unknown command", "number of nothing"])
def test_command_that_does_not_exist_names_the_help(screens: dict[str, str], name: str) -> None:
    assert "/도움말" in screens[name]


def test_help_shows_the_welcome_again(screens: dict[str, str]) -> None:
    assert "Ctrl-D: 종료" in screens["help"]


def test_new_conversation_forgets_the_sources(screens: dict[str, str]) -> None:
    assert "새 대화를 시작합니다." in screens["new conversation"]
    assert "그런 명령이나 도움말 번호가 없습니다" in screens["number of nothing"]


def test_ctrl_d_says_goodbye_and_ends_with_0(screens: dict[str, str]) -> None:
    assert GOODBYE in screens["end"]
    assert screens["code"] == "0"


def test_ctrl_c_stops_the_answer_and_the_model_and_the_conversation_goes_on(interrupted: dict[str, str]) -> None:
    assert "답변을 멈췄습니다." in interrupted["answer"]
    assert "Traceback" not in interrupted["answer"]
    assert "새 대화를 시작합니다." in interrupted["next"]


def test_ctrl_c_at_the_prompt_says_goodbye_and_ends_with_0(interrupted: dict[str, str]) -> None:
    assert GOODBYE in interrupted["end"]
    assert "Traceback" not in interrupted["end"]
    assert interrupted["code"] == "0"
