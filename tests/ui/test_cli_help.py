"""`--help`, and what is said to a wrong call."""

import os
import re
import subprocess
from functools import partial
from pathlib import Path

import pytest
from program import PROGRAM, Result, World, together

CALLS: dict[str, list[str]] = {
    "smartstore": ["--help"],
    "index": ["index", "--help"],
    "ask": ["ask", "--help"],
    "eval": ["eval", "--help"],
    "doctor": ["doctor", "--help"],
}
WRONG: dict[str, list[str]] = {
    "no command": [],
    "unknown command": ["serv"],
    "unknown option": ["doctor", "--fast"],
    "question without quotes": ["ask", "정산은", "언제", "되나요?"],
    "option without its value": ["ask", "--session"],
    "value for a switch": ["index", "--full=yes"],
    "file missing": ["eval"],
}
# argparse's own words, and any sentence in English.
ENGLISH = re.compile(
    r"usage|options|positional|arguments?\b|optional|show this|exit|error|required|choose", re.IGNORECASE
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    world = World.make(tmp_path_factory.mktemp("help") / "world")
    calls = CALLS | WRONG
    return dict(zip(calls, together([partial(world.run, *call) for call in calls.values()]), strict=True))


@pytest.mark.parametrize("name", CALLS)
def test_help_is_korean(results: dict[str, Result], name: str) -> None:
    result = results[name]

    assert result.code == 0
    assert result.err == ""
    assert result.out.startswith("사용법: smartstore")
    assert "옵션:" in result.out
    assert ENGLISH.findall(result.out) == []


def test_help_of_the_program_names_every_command(results: dict[str, Result]) -> None:
    for command in CALLS.keys() - {"smartstore"}:
        assert re.search(rf"^ +{command} .*[가-힣]", results["smartstore"].out, re.MULTILINE)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_call_exits_with_2_and_says_why_in_korean(results: dict[str, Result], name: str) -> None:
    result = results[name]

    assert result.code == 2
    assert result.out == ""
    assert result.complains_in_korean
    assert ENGLISH.findall(result.err) == []
    assert re.search(r"`smartstore[a-z ]* --help`", result.err)


def test_question_without_quotes_is_told_to_use_them(results: dict[str, Result]) -> None:
    assert "따옴표" in results["question without quotes"].err


def test_help_writes_nothing_to_disk(tmp_path: Path) -> None:
    world = World.make(tmp_path / "world")

    world.run("--help")

    assert not world.data.exists()
    assert list(world.folder.iterdir()) == []


def test_reader_that_has_left_is_no_error(tmp_path: Path) -> None:
    world = World.make(tmp_path / "world")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [PROGRAM, "--help"],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=world.environment(),
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)

    assert (done.returncode, done.stderr) == (0, b"")


def test_output_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    result = World.make(tmp_path / "world").shell('"$PROGRAM" --help > /dev/full')

    assert result.code == 1
    assert result.complains_in_korean
    assert "Exception" not in result.err
