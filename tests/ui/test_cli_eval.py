"""`smartstore eval` on the sample FAQ: the forms of its report, and floors under its figures."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from program import Result, World, together

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
    ("queries", "hit@3", 0.80),  # 0.883
    ("queries", "hit@10", 0.90),  # 0.925
    ("multiturn", "hit@3", 0.70),  # 0.767
    ("scope", "in_kept", 0.90),  # 0.950
    ("scope", "out_refused", 0.60),  # 0.667
]
QUERY = '{"id": "q1", "query": "미성년자도 판매 회원 등록이 가능한가요?", "gold": [3]}\n'


@pytest.fixture(scope="module")
def results(indexed_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    measured = World.make(tmp_path_factory.mktemp("measured") / "world", indexed_dir)
    printed = World.make(tmp_path_factory.mktemp("printed") / "world", indexed_dir)
    (printed.folder / "[red]한 줄.jsonl").write_text(QUERY, encoding="utf-8")
    (printed.folder / "broken.jsonl").write_text(QUERY + '{"id": "q2", "qu', encoding="utf-8")

    def smaller() -> dict[str, Result]:
        return {
            "table": printed.run("eval", "[red]한 줄.jsonl"),
            "broken": printed.run("eval", "--json", "broken.jsonl"),
            "missing": printed.run("eval", DATA / "sample_queries.jsonl", "없는.jsonl"),
        }

    def whole() -> dict[str, Result]:
        return {"json": measured.run("eval", "--json", *(DATA / f"sample_{kind}.jsonl" for kind in SETS))}

    first, second = together([whole, smaller])
    return first | second


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
        assert set(measured) == {"file", "kind", "n", "metrics"}
        assert set(measured["metrics"]) == METRICS[measured["kind"]]


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
    for heading in ("hit@1", "hit@3", "hit@10", "MRR", "잘못 거절", "찾지 못함"):
        assert heading in table.out


@pytest.mark.parametrize(("name", "said"), [("broken", "broken.jsonl"), ("missing", "없는.jsonl")])
def test_file_that_cannot_be_measured_is_named_and_fails(results: dict[str, Result], name: str, said: str) -> None:
    result = results[name]

    assert result.code == 1
    assert result.complains_in_korean
    assert said in result.err
    assert result.out == ""
