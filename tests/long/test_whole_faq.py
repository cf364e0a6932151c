"""The main job at full size: the sample FAQ always, and the real one where shared/data stands beside the checkout."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from conftest import REAL_FAQ, ROOT, SHARED

from smartstore_indexing.loading import SAMPLE, load

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_800)]

SETS = {
    SAMPLE: sorted((ROOT / "tests" / "data").glob("sample_*.jsonl")),
    REAL_FAQ: sorted((SHARED / "data" / "eval").glob("dev_[mqsu]*.jsonl")),
}


@dataclass(frozen=True)
class Indexed:
    """An FAQ file, and a data folder that it is being indexed into."""

    source: Path
    data_dir: Path

    def run(self, *arguments: str | Path) -> dict[str, object]:
        """Run the program with --json and return what it printed."""
        command = [sys.executable, "-m", "smartstore_ui.cli", *map(str, arguments), "--json"]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.data_dir), "SMARTSTORE_DATA_DIR": str(self.data_dir)}
        done = subprocess.run(command, env=environment, cwd=self.data_dir, capture_output=True, text=True, check=True)
        found: dict[str, object] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module", params=[path for path in SETS if path.exists()], ids=lambda path: path.name)
def indexed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    """Return each FAQ file, indexed from nothing."""
    found = Indexed(request.param, tmp_path_factory.mktemp("whole"))
    summary = found.run("index", found.source)
    print(f"\n{found.source.name}, from nothing: {summary}")
    assert summary["added"] == summary["embedded"] == summary["faqs"]
    return found


def test_a_second_run_embeds_nothing_and_one_changed_row_one_faq(indexed: Indexed, tmp_path: Path) -> None:
    again = indexed.run("index", indexed.source)
    print(f"\nnothing changed: {again}")
    assert (again["embedded"], again["switched"]) == (0, False)
    rows = [asdict(row) for row in load(indexed.source)]
    rows[len(rows) // 2]["answer"] = "안내가 바뀌었습니다. " + rows[len(rows) // 2]["answer"]
    changed = tmp_path / "changed.jsonl"
    changed.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    summary = indexed.run("index", changed)
    print(f"one row changed: {summary}")
    assert (summary["changed"], summary["embedded"], summary["unchanged"]) == (1, 1, len(rows) - 1)


def test_labelled_questions_find_their_faqs(indexed: Indexed) -> None:
    report = indexed.run("eval", *SETS[indexed.source])
    print(f"\n{json.dumps(report, ensure_ascii=False)}")
    sets = report["sets"]
    assert isinstance(sets, list)
    figures = {measured["kind"]: measured["metrics"] for measured in sets}
    assert set(figures) == {"queries", "scope", "multiturn", "unanswerable"}
    assert figures["queries"]["hit@3"] >= 0.75
    assert figures["queries"]["hit@10"] >= 0.90
