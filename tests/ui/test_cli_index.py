"""`smartstore index`: its summary, its progress, and what a bad file leaves behind."""

import json
import os
import pickle
from pathlib import Path

import pytest
from program import Result, World, together

from smartstore_indexing.loading import SAMPLE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SUMMARY_FIELDS = {
    *("added", "changed", "removed", "unchanged", "duplicates"),
    *("embedded", "faqs", "version", "switched", "seconds"),
}
CSV = """category,question,answer,keyword
정산,정산은 언제 되나요?,구매확정 다음 영업일에 정산됩니다.,
배송,오늘출발은 어떻게 설정하나요?,상품 등록 화면에서 설정합니다.,
배송,오늘출발은 어떻게 설정하나요?,배송 설정 메뉴에서 켭니다.,
"""
TABLE = {
    "오늘출발은 어떻게 설정하나요?": "배송 설정 메뉴에서 켭니다.",
    "정산은 언제 되나요?": "구매확정 다음 영업일에 정산됩니다.",
    "수수료는 얼마인가요?": "등급마다 다릅니다.",
}


class Hostile:
    """Would make a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def edited_sample() -> str:
    """Return the sample with its first FAQ gone, its second's answer changed, and one more at the end."""
    _, second, *rest = (json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines())
    second["answer"] = "지금은 서류를 내지 않아도 됩니다."
    added = {"question": "새로 생긴 메뉴는 어디에 있나요?", "answer": "왼쪽 메뉴에 있습니다."}
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [second, *rest, added])


@pytest.fixture(scope="module")
def results(indexed_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Return what came of indexing over the sample, and into a folder that held nothing."""
    sample = World.make(tmp_path_factory.mktemp("sample") / "world", indexed_dir)
    (sample.folder / "edited.jsonl").write_text(edited_sample(), encoding="utf-8")
    (sample.folder / "corrupt.jsonl").write_text('{"question": "가", "answer": "나"}\n{"question', encoding="utf-8")
    (sample.folder / "hostile.pkl").write_bytes(pickle.dumps({"질문": Hostile(sample.folder / "ran")}))
    small = World.make(tmp_path_factory.mktemp("small") / "world")
    (small.folder / "faq.csv").write_text(CSV, encoding="utf-8-sig")  # as Excel writes it
    (small.folder / "faq.pkl").write_bytes(pickle.dumps(TABLE))

    def over_the_sample() -> dict[str, Result]:
        return {
            "again": sample.run("index"),
            "edited": sample.run("index", "--json", "edited.jsonl"),
            "missing": sample.run("index", "없는.csv"),
            "corrupt": sample.run("index", "corrupt.jsonl"),
            "hostile": sample.run("index", "--json", "hostile.pkl"),
            "what ran": sample.shell("ls"),
            "asked": sample.run("ask", "--json", "새로 생긴 메뉴는 어디에 있나요?"),
        }

    def into_nothing() -> dict[str, Result]:
        csv = small.run("index", "faq.csv")
        with small.terminal("index", "--full", "--json", SMARTSTORE_FAQ="faq.pkl") as terminal:
            screen = terminal.rest()
        return {"csv": csv, "full, in a terminal": Result(terminal.code or 0, screen, "")}

    first, second = together([over_the_sample, into_nothing])
    return first | second


def test_second_run_says_that_nothing_changed(results: dict[str, Result]) -> None:
    again = results["again"]

    assert again.code == 0
    assert "FAQ 180건: 추가 0 · 변경 0 · 삭제 0 · 그대로 180" in again.out
    assert "바뀐 내용이 없어" in again.out


def test_json_summary_counts_what_changed(results: dict[str, Result]) -> None:
    summary = json.loads(results["edited"].out)

    assert set(summary) == SUMMARY_FIELDS
    assert (summary["added"], summary["changed"], summary["removed"], summary["unchanged"]) == (1, 1, 1, 178)
    assert (summary["embedded"], summary["faqs"], summary["switched"]) == (2, 180, True)


def test_csv_is_indexed_and_repeated_questions_are_said(results: dict[str, Result]) -> None:
    assert results["csv"].code == 0
    assert "FAQ 2건: 추가 2 · 변경 0 · 삭제 0 · 그대로 0 · 같은 질문이 다시 나와 뺀 행 1" in results["csv"].out
    assert "새 색인을 사용합니다" in results["csv"].out


def test_full_embeds_everything_of_the_file_that_the_settings_name(results: dict[str, Result]) -> None:
    summary = json.loads(results["full, in a terminal"].out.splitlines()[-1])

    assert results["full, in a terminal"].code == 0
    assert summary["embedded"] == summary["faqs"] == len(TABLE)


def test_progress_is_shown_in_a_terminal(results: dict[str, Result]) -> None:
    assert "임베딩" in results["full, in a terminal"].out
    assert "6/6" in results["full, in a terminal"].out


@pytest.mark.parametrize("name", ["again", "edited"])
def test_without_a_terminal_only_the_summary_is_written(results: dict[str, Result], name: str) -> None:
    assert results[name].err == ""
    assert len(results[name].out.splitlines()) == (1 if name == "edited" else 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [("missing", "없는.csv"), ("corrupt", "2번째"), ("hostile", "객체를 불러오려고 해서 읽지 않았습니다")],
)
def test_file_that_cannot_be_indexed_is_named_and_fails(results: dict[str, Result], name: str, said: str) -> None:
    result = results[name]

    assert result.code == 1
    assert result.complains_in_korean
    assert said in result.err
    assert result.out == ""


def test_nothing_of_a_hostile_pickle_runs(results: dict[str, Result]) -> None:
    assert "hostile.pkl" in results["what ran"].out
    assert "ran" not in results["what ran"].out.split()


def test_index_in_use_still_answers_after_files_that_failed(results: dict[str, Result]) -> None:
    assert results["asked"].code == 0
    assert results["asked"].only("answer")["text"].startswith("왼쪽 메뉴에 있습니다.")
