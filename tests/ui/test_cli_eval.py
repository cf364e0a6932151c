"""`smartstore eval` on the sample FAQ: the forms of its report, floors under its figures, and comparing two runs."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, ModelServer
from program import Result, World, together

from smartstore_indexing.errors import FaqError
from smartstore_ui.cli import _run
from smartstore_ui.commands import parser
from smartstore_ui.exit_codes import INTERRUPTED, SIGNIFICANT_LOSS, USAGE_ERROR

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DATA = ROOT / "tests" / "data"
SETS = {"queries": 120, "multiturn": 30, "scope": 80, "unanswerable": 30}
RANKED = {"hit@1", "hit@3", "hit@10", "mrr", "refused", "not_found"}
METRICS = {
    "queries": RANKED,
    "multiturn": RANKED,
    "scope": {"out_refused", "in_kept"},
    "unanswerable": {"not_found", "refused"},
}
# A floor only rises. Beside it what was measured when it was set.
FLOORS = [
    ("queries", "hit@3", 0.86),  # 0.875
    ("queries", "hit@10", 0.90),  # 0.900
    ("multiturn", "hit@3", 0.93),  # 0.967
    ("scope", "in_kept", 0.90),  # 0.900
    ("scope", "out_refused", 0.85),  # 0.875
    ("unanswerable", "not_found", 0.80),  # 0.833
]
GROUPS = {
    "queries": {"paraphrase", "everyday", "keyword", "colloquial", "typo", "situation"},
    "multiturn": {"follow_up", "switch"},
    "unanswerable": set(),
}
LINE = {"id", "query", "group", "kind", "rank", "gold", "top", "in_scope", "found"}
OLD = "전에 있던 것"
STRANGERS = '{"id": "s1", "query": "오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?", "label": "out"}\n'
QUERY = '{"id": "q1", "query": "미성년자도 판매 회원 등록이 가능한가요?", "gold": [3]}\n'


@pytest.fixture(scope="module")
def results(
    indexed_dir: Path, model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Result]:
    measured = World.make(tmp_path_factory.mktemp("measured") / "world", indexed_dir)
    printed = World.make(tmp_path_factory.mktemp("printed") / "world", indexed_dir)
    (printed.folder / "[red]한 줄.jsonl").write_text(QUERY, encoding="utf-8")
    (printed.folder / "strangers.jsonl").write_text(STRANGERS, encoding="utf-8")
    (printed.folder / "broken.jsonl").write_text(QUERY + '{"id": "q2", "qu', encoding="utf-8")

    asked = {
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": model_server.url,
        "SMARTSTORE_OPENAI__MODEL": "stub",
        "SMARTSTORE_OPENAI__PRICE_INPUT": "0",
        "SMARTSTORE_OPENAI__PRICE_OUTPUT": "0",
    }

    def smaller() -> dict[str, Result]:
        return {
            "table": printed.run("eval", "[red]한 줄.jsonl"),
            "broken": printed.run("eval", "--json", "broken.jsonl"),
            "models": printed.run(
                *("eval", "[red]한 줄.jsonl", "strangers.jsonl", "--output", "models.json", "--html", "models.html"),
                *("--model", "openai", "--model", "extractive"),
                **asked,
            ),
            "one model": printed.run("eval", "[red]한 줄.jsonl", "--model", "openai", "--json", **asked),
            "missing": printed.run("eval", DATA / "sample_queries.jsonl", "없는.jsonl"),
        }

    def whole() -> dict[str, Result]:
        files = [DATA / f"sample_{kind}.jsonl" for kind in SETS]
        first = measured.run("eval", "--json", "--output", "r.json", "--html", "r.html", *files)
        result = measured.folder / "r.json"
        written = {
            "output": Result(0, result.read_text(encoding="utf-8"), ""),
            "html": Result(0, (measured.folder / "r.html").read_text(encoding="utf-8"), ""),
            "left": Result(0, " ".join(sorted(path.name for path in measured.folder.iterdir())), ""),
        }
        better = json.loads(first.out)
        for line in next(found for found in better["sets"] if found["kind"] == "unanswerable")["lines"]:
            line["kind"] = "not_found"
        (measured.folder / "better.json").write_text(json.dumps(better), encoding="utf-8")
        return {
            "json": first,
            **written,
            "same": measured.run("eval", "--baseline", "r.json", "--misses", "2", files[1], files[3]),
            "worse": measured.run("eval", "--baseline", "better.json", "--json", files[3]),
        }

    first, second = together([whole, smaller])
    files = {
        f"models {kind}": Result(0, (printed.folder / f"models.{kind}").read_text(encoding="utf-8"), "")
        for kind in ("json", "html")
    }
    return first | second | files


@pytest.fixture(scope="module")
def report(results: dict[str, Result]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(results["json"].out)
    return loaded


def test_json_is_one_line_and_nothing_else(results: dict[str, Result]) -> None:
    assert results["json"].code == 0
    assert results["json"].err == ""
    assert len(results["json"].out.splitlines()) == 1


def test_json_names_the_index(report: dict[str, Any]) -> None:
    assert set(report) == {"index", "sets"}
    assert set(report["index"]) == {"faqs", "version"}
    assert report["index"]["faqs"] == 180
    assert report["index"]["version"]


def test_each_set_has_the_metrics_of_the_kind_that_its_keys_tell(report: dict[str, Any]) -> None:
    assert [measured["file"] for measured in report["sets"]] == [f"sample_{kind}.jsonl" for kind in SETS]
    assert {measured["kind"]: measured["n"] for measured in report["sets"]} == SETS
    for measured in report["sets"]:
        assert set(measured) == {"file", "kind", "n", "metrics", "intervals", "groups", "lines"}
        assert set(measured["metrics"]) == METRICS[measured["kind"]]


def test_models_stand_side_by_side(results: dict[str, Result]) -> None:
    assert results["models"].code == 0
    tables = results["models"].out
    assert "[red]한 줄.jsonl · 모델 비교 (1건" in tables
    assert re.search(r"지표\s+┃\s+openai ┃\s+extractive ┃", tables)
    assert re.search(r"근거가 있는 답\s+│\s+0\.000 │\s+1\.000 ▲ │", tables)
    assert re.search(r"질문 1,000건의 값 \(달러\)\s+│\s+– │\s+0\.000 │", tables)
    assert re.search(r"범위 밖을 거절\s+│\s+1\.000 │\s+1\.000 │", tables)


def test_answers_of_each_model_are_in_the_json_and_the_report(results: dict[str, Result]) -> None:
    written = json.loads(results["models json"].out)
    assert [(found["file"], found["model"]) for found in written["sets"]] == [
        ("[red]한 줄.jsonl", "openai"),
        ("[red]한 줄.jsonl", "extractive"),
        ("strangers.jsonl", "openai"),
        ("strangers.jsonl", "extractive"),
    ]
    answers = written["sets"][0]["answers"]
    assert (answers["answered"], answers["supported"], answers["citation_precision"]) == (1, 0, 0)
    assert 0 < answers["first_token_p50"] < answers["whole_p50"]
    assert answers["characters"] > 0
    (alone,) = json.loads(results["one model"].out)["sets"]
    assert (alone["model"], set(alone["answers"])) == ("openai", set(answers))
    page = results["models html"].out
    assert page.count("모델 비교: ") == 2
    assert "[red]한 줄.jsonl · extractive" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "gpt"], "모델 gpt은"),
        (["--model", "extractive", "--model", "extractive"], "두 번"),
        (["--model", "extractive", "--cv"], "--cv"),
    ],
)
def test_models_that_cannot_be_measured_are_said(
    indexed_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text(QUERY, encoding="utf-8")
    shutil.copytree(indexed_dir, tmp_path / "data")
    monkeypatch.setenv("SMARTSTORE_DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(FaqError, match=said):
        _run(parser().parse_args(["eval", str(file), *arguments]))


def test_every_figure_is_a_share(report: dict[str, Any]) -> None:
    figures = [figure for measured in report["sets"] for figure in measured["metrics"].values()]

    assert all(isinstance(figure, float) and 0 <= figure <= 1 for figure in figures)


@pytest.mark.parametrize(("kind", "metric", "floor"), FLOORS)
def test_figures_on_the_sample_stay_above_their_floors(
    report: dict[str, Any], kind: str, metric: str, floor: float
) -> None:
    figures = {measured["kind"]: measured["metrics"] for measured in report["sets"]}

    assert figures[kind][metric] >= floor


def test_table_shows_the_file_and_its_figures(results: dict[str, Result]) -> None:
    table = results["table"]

    assert table.code == 0
    assert table.err == ""
    assert "색인: FAQ 180건" in table.out
    assert "[red]한 줄.jsonl · 검색 질문 1건" in table.out
    assert "95% 구간" in table.out
    for heading in ("hit@1", "hit@3", "hit@10", "MRR", "잘못 거절", "찾지 못함"):
        assert heading in table.out


def test_every_figure_lies_in_its_interval(report: dict[str, Any]) -> None:
    for measured in report["sets"]:
        assert measured["intervals"].keys() == measured["metrics"].keys()
        for name, (low, high) in measured["intervals"].items():
            assert 0 <= low <= measured["metrics"][name] <= high <= 1


def test_groups_are_those_of_the_lines_and_add_up(report: dict[str, Any]) -> None:
    for measured in report["sets"]:
        assert set(measured["groups"]) == {line["group"] for line in measured["lines"]} - {None}
        assert sum(group["n"] for group in measured["groups"].values()) in (0, measured["n"])
        assert set(measured["groups"]) == GROUPS.get(measured["kind"], set(measured["groups"]))
        for group in measured["groups"].values():
            assert set(group["metrics"]) <= METRICS[measured["kind"]]


def test_lines_tell_how_each_question_went(report: dict[str, Any]) -> None:
    for measured in report["sets"]:
        assert len(measured["lines"]) == measured["n"]
        for line in measured["lines"]:
            assert set(line) == LINE
            assert line["kind"] in ("answered", "refused", "not_found")
            assert len(line["top"]) == 3 or (line["top"], line["kind"]) == ([], "refused")  # turned away unread
            assert bool(line["gold"]) == (measured["kind"] in ("queries", "multiturn"))
            assert 0 <= line["in_scope"] <= 1
            assert 0 <= line["found"] <= 1
            assert (line["rank"] in (1, 2, 3)) == bool(set(line["gold"]) & set(line["top"]))


def test_output_file_is_what_json_prints(results: dict[str, Result]) -> None:
    assert results["output"].out == results["json"].out


def test_files_come_alone(results: dict[str, Result]) -> None:
    assert results["left"].out == "r.html r.json"


def test_report_is_one_page_with_every_set(results: dict[str, Result]) -> None:
    assert results["html"].out.startswith("<!DOCTYPE html>")
    for kind in SETS:
        assert f"<h2>sample_{kind}.jsonl</h2>" in results["html"].out


def test_run_compared_with_itself_has_lost_nothing(results: dict[str, Result]) -> None:
    same = results["same"]
    assert (same.code, same.err) == (0, "")
    assert "sample_multiturn.jsonl · 이전 결과와 비교 (id가 같은 30건)" in same.out
    assert "+0.000 ~ +0.000" in same.out
    assert "나빠짐" not in same.out


def test_worst_misses_are_printed_with_what_was_found(results: dict[str, Result]) -> None:
    assert re.search(r"sample_unanswerable\.jsonl · 잘못된 \d+건 가운데 2건", results["same"].out)
    shown = [int(number) for number in re.findall(r"가운데 (\d+)건", results["same"].out)]
    assert results["same"].out.count("찾은 것 3:") == sum(shown) > 2


def test_significant_loss_exits_with_4_and_leaves_json_alone(results: dict[str, Result]) -> None:
    worse = results["worse"]
    assert worse.code == SIGNIFICANT_LOSS
    assert [found["kind"] for found in json.loads(worse.out)["sets"]] == ["unanswerable"]
    assert "나빠짐" in worse.err


@pytest.mark.parametrize(("name", "said"), [("broken", "broken.jsonl"), ("missing", "없는.jsonl")])
def test_file_that_cannot_be_measured_is_named_and_fails(results: dict[str, Result], name: str, said: str) -> None:
    result = results[name]

    assert result.code == 1
    assert result.complains_in_korean
    assert said in result.err
    assert result.out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "없는 폴더/r.json"], "폴더가 없습니다"),
        (["--html", "."], "파일이 아니어서"),
        (["--output", "한 줄.jsonl"], "이미 다른 데 쓰는"),
        (["--output", "r.json", "--html", "r.json"], "이미 다른 데 쓰는"),
        (["--baseline", "old.json", "--html", "old.json"], "저장한 결과 파일이 아닙니다"),
        (["--baseline", "없는.json"], "읽을 수 없습니다"),
        (["--baseline", "other.json"], "같은 평가 세트가 없습니다"),
    ],
)
def test_run_that_could_not_end_well_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setenv("SMARTSTORE_DATA_DIR", str(tmp_path / "data"))  # nothing is indexed here
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    files = {"한 줄.jsonl": QUERY, "old.json": OLD, "other.json": '{"sets": []}'}
    for name, text in files.items():
        Path(name).write_text(text, encoding="utf-8")

    with pytest.raises(FaqError, match=said) as raised:  # IndexMissing would say something else
        _run(parser().parse_args(["eval", "한 줄.jsonl", *arguments]))

    assert raised.value.exit_code == 1
    assert {path.name: path.read_text(encoding="utf-8") for path in Path().iterdir()} == files
    assert not (tmp_path / "data").exists()


def test_interrupted_run_leaves_the_files_as_they_were(indexed_dir: Path, tmp_path: Path) -> None:
    world = World.make(tmp_path / "world", indexed_dir)
    for name in ("r.json", "r.html"):
        (world.folder / name).write_text(OLD, encoding="utf-8")
    with world.terminal(
        "eval", str(DATA / "sample_queries.jsonl"), "--output", "r.json", "--html", "r.html"
    ) as terminal:
        terminal.until("sample_queries.jsonl")  # the progress bar
        terminal.interrupt()
        terminal.rest()

    assert terminal.code == INTERRUPTED
    assert {path.name: path.read_text(encoding="utf-8") for path in world.folder.iterdir()} == {
        "r.json": OLD,
        "r.html": OLD,
    }


@pytest.mark.parametrize("number", ["-1", "셋", "1.5"])
def test_number_of_misses_is_a_number(tmp_path: Path, number: str) -> None:
    result = World.make(tmp_path / "world").run("eval", "세트.jsonl", "--misses", number)

    assert result.code == USAGE_ERROR
    assert result.complains_in_korean


def test_help_says_what_a_loss_exits_with(tmp_path: Path) -> None:
    assert f"종료 코드 {SIGNIFICANT_LOSS}" in World.make(tmp_path / "world").run("eval", "--help").out
