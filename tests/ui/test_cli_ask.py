"""`smartstore ask` with a question, and with questions on stdin."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import ModelServer
from modelling import model_of, stepping
from program import Result, World, together
from rich.console import Console

from smartstore_indexing.setting_groups import StepSettings
from smartstore_ui.asking import Screen
from smartstore_workflows import Chatbot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MINOR = "미성년자도 판매 회원 등록이 가능한가요?"
FOLLOW_UP = "그럼 서류는요?"
RESTAURANT = "오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?"
REFUSAL = "저는 스마트 스토어 FAQ를 위한 챗봇입니다. 스마트 스토어에 대한 질문을 부탁드립니다."
LONE_SURROGATE = b"\xed\xa0\x80 \xea\xb0\x80"
ASKED_LINES = [
    RESTAURANT.encode(),
    "😀🎉".encode(),
    b"\x01\x02\x03",
    ("가" * 2001).encode(),
    b"\xff\xfe",
    MINOR.encode(),
]


@pytest.fixture(scope="module")
def results(indexed_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Run every question once, each in a world of its own."""

    def world(name: str, indexed: Path | None = indexed_dir) -> World:
        return World.make(tmp_path_factory.mktemp(name) / "world", indexed)

    def conversation() -> list[Result]:
        same = world("conversation")
        first = same.run("ask", "--json", MINOR)
        return [first, same.run("ask", "--json", "--session", first.only("started")["session_id"], FOLLOW_UP)]

    plain, closed = world("plain"), world("closed")
    calls: dict[str, Callable[[], Result]] = {
        "plain": partial(plain.run, "ask", MINOR),
        # As in a locale whose decoder is strict, as ko_KR.UTF-8's is.
        "piped": partial(
            world("piped").run, "ask", "--json", typed=b"\n".join(ASKED_LINES), PYTHONIOENCODING="utf-8:strict"
        ),
        "empty": partial(world("empty").run, "ask", ""),
        "surrogate": partial(world("surrogate").run, "ask", LONE_SURROGATE),
        "surrogate session": partial(world("session").run, "ask", "--session", LONE_SURROGATE, MINOR),
        "model without a key": partial(world("key").run, "ask", "--model", "openai", MINOR),
        "no index": partial(world("none", None).run, "ask", MINOR),
        "reader left": partial(
            closed.shell,
            f"printf '%s\\n' '{MINOR}' '{FOLLOW_UP}' | \"$PROGRAM\" ask | head -1; echo ${{PIPESTATUS[1]}}",
        ),
    }
    first, *rest = together([conversation, *(lambda call=call: [call()] for call in calls.values())])
    found = {name: result for name, (result,) in zip(calls, rest, strict=True)}
    return {**found, "json": first[0], "follow-up": first[1]}


def answers(result: Result) -> list[dict[str, Any]]:
    return [event["data"] for event in result.events if event["event"] == "answer"]


async def test_claims_without_support_are_said_under_the_answer(
    bot: Chatbot, model_server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    async with model_of(model_server.url) as model:
        screen = Screen(Console(file=io.StringIO()))
        async for event in stepping(bot, model, StepSettings()).stream(f"{MINOR} [[reply: 77일이면 됩니다. [1]]]"):
            screen.show(event)
    shown = capsys.readouterr().out
    assert "\n\n※ 도움말에서 확인되지 않은 내용이 있으니 원문을 확인해 주세요: ‘77일’\n\n도움말\n" in shown


def test_one_question_prints_the_answer_its_sources_and_numbered_offers(results: dict[str, Result]) -> None:
    plain = results["plain"]
    answer, sources, offers = plain.out.split("\n\n")

    assert plain.code == 0
    assert plain.err == ""
    assert answer.endswith("[1]")
    assert sources.splitlines()[0] == "도움말"
    assert "  [1] 가입 · 만 19세 미만 미성년자도" in sources
    heading, *numbered = offers.splitlines()
    assert heading == "더 궁금하시다면"
    assert [line[:5] for line in numbered] == [f"  {number}) " for number in range(1, len(numbered) + 1)]
    assert len(numbered) >= 2


def test_json_prints_one_event_a_line_and_nothing_else(results: dict[str, Result]) -> None:
    result = results["json"]
    names = [event["event"] for event in result.events]

    assert result.code == 0
    assert result.err == ""
    assert all(set(event) == {"id", "event", "data"} for event in result.events)
    assert [event["id"] for event in result.events] == list(range(1, len(names) + 1))
    assert names[0] == "started"
    assert names[-1] == "done"
    assert names.count("started") == names.count("done") == names.count("answer") == 1


def test_json_tokens_join_to_the_answer_of_the_plain_screen(results: dict[str, Result]) -> None:
    events = results["json"].events
    tokens = [event["data"]["text"] for event in events if event["event"] == "token"]

    assert "".join(tokens) == results["json"].only("answer")["text"]
    assert results["plain"].out.startswith("".join(tokens))


def test_session_continues_the_conversation_in_another_process(results: dict[str, Result]) -> None:
    first, second = results["json"], results["follow-up"]

    assert second.only("started")["session_id"] == first.only("started")["session_id"]
    assert second.only("answer")["kind"] == "answered"
    titles = [source["question"] for source in second.only("sources")]
    assert any("미성년자" in title and "서류" in title for title in titles)


def test_each_line_of_stdin_is_answered_in_its_turn(results: dict[str, Result]) -> None:
    piped = results["piped"]
    names = [event["event"] for event in piped.events]

    assert [answer["kind"] for answer in answers(piped)] == ["refused", "answered"]
    assert names.count("started") == names.count("done") == 2


def test_refusal_is_word_for_word_with_an_offer_and_no_sources(results: dict[str, Result]) -> None:
    events = results["piped"].events
    refusal = events[: [event["event"] for event in events].index("done") + 1]

    assert answers(results["piped"])[0]["text"] == REFUSAL
    assert [event["data"] for event in refusal if event["event"] == "sources"] in ([], [[]])
    assert len(next(event["data"] for event in refusal if event["event"] == "suggestions")) >= 1


def test_bad_lines_of_stdin_are_named_on_stderr_and_the_others_answered(results: dict[str, Result]) -> None:
    piped = results["piped"]

    assert piped.code == 1
    assert piped.complains_in_korean
    complaints = piped.err.splitlines()
    assert [line.startswith("오류: ") for line in complaints] == [True] * 4
    for said, complaint in zip(("글자가 없는", "비어", "2,000자", "읽을 수 없는"), complaints, strict=True):
        assert said in complaint


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty", "질문이 비어 있습니다"),
        ("surrogate", "읽을 수 없는 글자"),
        ("surrogate session", "읽을 수 없는 글자"),
        ("model without a key", "쓸 수 있는 모델: extractive"),
        ("no index", "smartstore index"),
    ],
)
def test_what_cannot_be_asked_fails_with_a_korean_message(results: dict[str, Result], name: str, said: str) -> None:
    result = results[name]

    assert result.complains_in_korean
    assert said in result.err
    assert result.out == ""


def test_reader_that_leaves_early_ends_the_program_quietly(results: dict[str, Result]) -> None:
    result = results["reader left"]

    assert result.err == ""
    assert result.out.splitlines()[-1] == "0"
    assert len(result.out.splitlines()) == 2
