"""`smartstore export-finetune`: the files, the card, the summary, and what it refuses to do."""

import json
import re
from collections import Counter
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from program import Result, World, together

from smartstore_indexing.errors import InvalidRequest
from smartstore_indexing.loading import SAMPLE
from smartstore_ui.exporting import Wanted, run_export_finetune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FAQS = 30
ROW = (
    "메뉴{kind},{number}번 메뉴는 어디에 있나요?,{number}번 메뉴는 {number}째 줄에 있습니다. {time}초 뒤에 열립니다.,\n"
)
SOURCE = "category,question,answer,keyword\n" + "".join(
    ROW.format(kind=number % 3, number=number, time=number * 3) for number in range(FAQS)
)
ASKED = [{"id": "q1", "query": "다섯 번째 메뉴 어딨어요", "gold": [5]}]
NAMES = {"answered": "답변", "multi_turn": "이어지는 대화", "not_found": "찾지 못함", "refused": "거절"}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    found = World.make(tmp_path_factory.mktemp("export") / "world")
    files = {
        "faq.csv": SOURCE,
        "few.csv": "".join(SOURCE.splitlines(keepends=True)[:9]),
        "equal.csv": "question,answer\n"
        + "".join(f"{place}번 질문인가요?,모두 같은 답입니다.\n" for place in range(25)),
        "asked.jsonl": jsonl(*ASKED),
        "other.jsonl": jsonl({"id": "q1", "query": "질문", "gold": [999]}),
        "scope.jsonl": jsonl({"id": "s1", "query": "질문", "label": "out"}),
        "file": "",
        "held/train.jsonl": "내 파일",
    }
    for name, text in files.items():
        (found.folder / name).parent.mkdir(exist_ok=True)
        (found.folder / name).write_text(text, "utf-8")
    return found


@pytest.fixture(scope="module")
def results(world: World) -> dict[str, Result]:
    export = partial(world.run, "export-finetune", "faq.csv")
    calls = {
        "first": partial(
            export, "--output", "deep/first", "--seed", "7", "--queries", "asked.jsonl", "--validation", "0.2"
        ),
        "no output": export,
        "help": partial(world.run, "export-finetune", "--help"),
    }
    return dict(zip(calls, together(list(calls.values())), strict=True))


def wanted(world: World, output: str, **changes: Any) -> Wanted:
    chosen: dict[str, Any] = {"validation": "0.2", "seed": 7, "queries": None, "force": False}
    return Wanted(output=world.folder / output, **chosen | changes)


def test_files_and_summary_and_card_agree(world: World, results: dict[str, Result]) -> None:
    result, folder = results["first"], world.folder / "deep" / "first"
    assert (result.code, result.err) == (0, "")
    assert {path.name for path in folder.iterdir()} == {"train.jsonl", "validation.jsonl", "README.md"}
    card = (folder / "README.md").read_text("utf-8")
    train, validation = lines(folder / "train.jsonl"), lines(folder / "validation.jsonl")
    counts = [Counter(chat["kind"] for chat in part) for part in (train, validation)]
    assert f"학습 {len(train)}건, 검증 {len(validation)}건" in result.out
    for kind, name in NAMES.items():
        assert f"{name}: 학습 {counts[0][kind]} · 검증 {counts[1][kind]}" in result.out
        assert f"| {name} | {counts[0][kind]} | {counts[1][kind]} |" in card
    assert f"faq.csv: FAQ {FAQS}건" in card
    assert "파일의 질문 1건" in card
    assert "| 난수 씨앗 | 7 |" in card
    assert datetime.now().astimezone().date().isoformat() in card
    assert "FAQ를 쓴 쪽의 것입니다" in card
    assert str(world.folder) not in card
    assert not re.search(r"\{\w*\}", card)


def test_line_is_a_chat_that_ends_in_its_answer(world: World, results: dict[str, Result]) -> None:
    assert results["first"].code == 0
    for chat in lines(world.folder / "deep" / "first" / "train.jsonl"):
        roles = [message["role"] for message in chat["messages"]]
        assert roles == ["system", *["user", "assistant"] * (len(roles) // 2)]
        assert all(message.keys() == {"role", "content"} for message in chat["messages"])
        assert chat.keys() == {"kind", "faq_id", "messages"}


def test_same_call_writes_the_same_chats(world: World, results: dict[str, Result]) -> None:
    assert results["first"].code == 0
    run_export_finetune(world.folder / "faq.csv", wanted(world, "again", queries=world.folder / "asked.jsonl"))
    for name in ("train.jsonl", "validation.jsonl"):
        first, again = world.folder / "deep" / "first" / name, world.folder / "again" / name
        assert first.read_bytes() == again.read_bytes()


def test_questions_of_a_file_are_asked(world: World, results: dict[str, Result]) -> None:
    assert results["first"].code == 0
    folder = world.folder / "deep" / "first"
    asked = [
        chat["messages"][-2]["content"] for name in ("train", "validation") for chat in lines(folder / f"{name}.jsonl")
    ]
    assert any(ASKED[0]["query"] in text for text in asked)


def test_nothing_is_indexed(world: World, results: dict[str, Result]) -> None:
    assert results["first"].code == 0
    assert not world.data.exists()


def test_sample_is_exported_with_the_questions_that_ship_with_it(world: World) -> None:
    run_export_finetune(SAMPLE, wanted(world, "sample"))
    assert "파일의 질문 1,620건" in (world.folder / "sample" / "README.md").read_text("utf-8")
    assert len(lines(world.folder / "sample" / "train.jsonl")) > 2_000


def test_earlier_export_is_kept_unless_it_is_forced(world: World) -> None:
    held = world.folder / "held" / "train.jsonl"
    with pytest.raises(InvalidRequest, match="--force"):
        run_export_finetune(world.folder / "faq.csv", wanted(world, "held"))
    assert held.read_text("utf-8") == "내 파일"
    run_export_finetune(world.folder / "faq.csv", wanted(world, "held", force=True))
    assert lines(held)


@pytest.mark.parametrize(
    ("source", "changes", "said"),
    [
        ("faq.csv", {"validation": "많이"}, "--validation"),
        ("faq.csv", {"validation": "1"}, "--validation"),
        ("faq.csv", {"validation": "nan"}, "--validation"),
        ("few.csv", {}, "20건 이상"),
        ("none.csv", {}, "파일이 없습니다"),
        ("faq.csv", {"queries": "other.jsonl"}, "gold"),
        ("faq.csv", {"queries": "scope.jsonl"}, "검색 질문"),
        ("faq.csv", {"output": "file/below"}, "폴더를 만들 수 없습니다"),
        ("equal.csv", {}, "떼어 둘 FAQ가 없습니다"),
    ],
    ids=["no share", "all", "no number", "few", "no file", "other FAQ", "no queries", "no folder", "equal answers"],
)
def test_what_cannot_be_exported_is_told_in_korean(
    world: World, source: str, changes: dict[str, Any], said: str
) -> None:
    queries = world.folder / changes["queries"] if "queries" in changes else None
    asked = wanted(world, **{"output": "none", **changes, "queries": queries})
    with pytest.raises(InvalidRequest, match=said):
        run_export_finetune(world.folder / source, asked)
    assert list((world.folder / "none").glob("*")) == []


def test_call_without_a_folder_is_not_understood(results: dict[str, Result]) -> None:
    assert results["no output"].code == 2
    assert results["no output"].complains_in_korean
    assert "--output" in results["no output"].err


def test_help_is_korean(results: dict[str, Result]) -> None:
    assert results["help"].code == 0
    assert results["help"].out.startswith("사용법: smartstore export-finetune")
    assert not re.search(r"usage|options|positional|show this|required", results["help"].out)
