"""`smartstore ask --batch` where this process answers, what its file may be, and workers that lack their servers."""

import json
from pathlib import Path

import pytest
from program import World
from talking import MINOR, RESTAURANT

from smartstore_indexing.errors import InvalidRequest, Misconfigured
from smartstore_ui.batch import Item, read_items, run_batch
from smartstore_ui.cli import _run
from smartstore_ui.commands import parser
from smartstore_ui.working import run_worker

pytestmark = pytest.mark.long  # some start a program

GOOD = {
    "lines of text": ("정산은 언제 되나요?\n\n  배송비는?  \n", [("1", "정산은 언제 되나요?"), ("3", "배송비는?")]),
    "JSON": ('{"id": "가", "question": "하나"}\n{"question": "둘"}\n', [("가", "하나"), ("2", "둘")]),
    "a number as id, and more fields": ('{"id": 7, "question": "하나", "gold": 3}', [("7", "하나")]),
    "both, with a mark of the encoding": ('\ufeff하나\r\n{"question": "둘"}', [("1", "하나"), ("2", "둘")]),
    "a separator within a line": ('{"question": "하나\u2028둘"}', [("1", "하나\u2028둘")]),
    "nothing": ("\n", []),
}
BAD = {
    "broken JSON": b'{"question": ',
    "no question": b'{"id": "1"}',
    "an id twice": '{"id": "2", "question": "하나"}\n둘'.encode(),
    "another encoding": "정산".encode("cp949"),
    "an id that is too long": json.dumps({"id": "가" * 201, "question": "하나"}).encode(),
}


@pytest.mark.parametrize(("text", "expected"), GOOD.values(), ids=GOOD)
def test_file_of_questions_is_read(tmp_path: Path, text: str, expected: list[tuple[str, str]]) -> None:
    path = tmp_path / "questions"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_items(path) == [Item(id=name, question=question) for name, question in expected]


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_file_that_is_no_list_of_questions_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "questions"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match="questions"):
        read_items(path)


@pytest.mark.slow
def test_without_a_broker_the_command_answers_itself(indexed_dir: Path, tmp_path: Path) -> None:
    world = World.make(tmp_path, indexed_dir)
    questions = world.folder / "questions.txt"
    questions.write_text(f"{MINOR}\n{RESTAURANT}\n", encoding="utf-8")
    done = world.run("ask", "--batch", questions)
    assert done.code == 0, done.err
    kinds = {line["id"]: line["answer"]["kind"] for line in done.events}
    assert kinds == {"1": "answered", "2": "refused"}


@pytest.mark.parametrize(
    "arguments", [["질문", "--batch", "파일"], ["--batch", "파일", "--json"], ["--output", "파일"]], ids=" ".join
)
def test_batch_goes_with_no_other_way_to_ask(arguments: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="--batch"):
        _run(parser().parse_args(["ask", *arguments]))


def test_output_is_never_the_file_of_the_questions(tmp_path: Path) -> None:
    questions = tmp_path / "questions"
    questions.write_text("정산은 언제 되나요?", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="questions"):
        run_batch(questions, questions, model=None)
    assert questions.read_text(encoding="utf-8") == "정산은 언제 되나요?"


def test_answer_worker_names_the_server_that_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no .env there
    with pytest.raises(Misconfigured, match="RABBITMQ__URL"):
        run_worker("answer")
    monkeypatch.setenv("SMARTSTORE_RABBITMQ__URL", "amqp://guest:guest@127.0.0.1:1/")
    with pytest.raises(Misconfigured, match="REDIS__URL"):
        run_worker("answer")
