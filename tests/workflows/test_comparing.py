import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartstore_indexing.errors import InvalidRequest
from smartstore_workflows.comparing import (
    HIGHER_IS_WORSE,
    MAIN,
    Baseline,
    Comparison,
    check_comparable,
    compare,
    read_baseline,
    verdict,
)
from smartstore_workflows.evaluation import Judged, LabelledSet, Line, Pair, SetKind
from smartstore_workflows.events import Kind
from smartstore_workflows.results import Evaluation, Measured, as_json, measure

Went = tuple[Kind, int]
RIGHT: Went = ("answered", 1)
WRONG: Went = ("answered", 0)
REFUSED: Went = ("refused", 1)
NOT_FOUND: Went = ("not_found", 0)
BAD = {
    "empty": "",
    "no JSON": "결과",
    "an array": "[]",
    "no sets": '{"index": {}}',
    "no lines": '{"sets": [{"file": "a", "kind": "queries", "n": 1, "metrics": {}}]}',
    "unknown kind": '{"sets": [{"file": "a", "kind": "songs", "lines": []}]}',
    "negative rank": '{"sets": [{"file": "a", "kind": "queries", "lines": [{"id":"1","kind":"answered","rank":-1}]}]}',
    "endlessly nested": "[" * 200_000,
}


def measured(went: Sequence[Went], kind: SetKind = "queries", label: str | None = None, first: int = 0) -> Measured:
    lines = [
        Line.model_validate({"id": str(number), "query": "질문", "label": label})
        for number, _ in enumerate(went, start=first)
    ]
    judged = [Judged(line, *each) for line, each in zip(lines, went, strict=True)]
    return measure(LabelledSet("set.jsonl", kind, lines), judged)


def stored(*sets: Measured) -> Baseline:
    return Baseline.model_validate_json(json.dumps(as_json(Evaluation(1, "v", sets))))


def compared(before: Measured, now: Measured) -> Comparison:
    (found,) = compare(stored(before), [now])
    return found


def test_same_run_has_changed_in_nothing() -> None:
    run = measured([RIGHT, WRONG, REFUSED, NOT_FOUND] * 5)
    found = compared(run, run)
    assert {change.verdict for change in found.changes.values()} == {"unclear"}
    assert all(change.interval == (0, 0) and change.before == change.now for change in found.changes.values())
    assert not found.lost


def test_many_lost_lines_are_a_loss_and_the_other_way_round_a_gain() -> None:
    good, bad = measured([RIGHT] * 40), measured([RIGHT] * 30 + [WRONG] * 10)
    lost, won = compared(good, bad), compared(bad, good)
    assert lost.lost
    assert not won.lost
    assert (lost.changes["hit@3"].verdict, won.changes["hit@3"].verdict) == ("loss", "gain")
    assert (lost.changes["hit@3"].before, lost.changes["hit@3"].now) == (1.0, 0.75)


def test_one_lost_line_of_many_is_unclear() -> None:
    assert not compared(measured([RIGHT] * 40), measured([RIGHT] * 39 + [WRONG])).lost


def test_lines_that_only_changed_places_are_unclear() -> None:
    assert not compared(measured([RIGHT, WRONG] * 20), measured([WRONG, RIGHT] * 20)).lost


def test_more_refusals_are_worse_for_questions_yet_not_a_main_metric() -> None:
    found = compared(measured([WRONG] * 20), measured([REFUSED] * 20))
    assert found.changes["refused"].verdict == "loss"
    assert not found.lost


@pytest.mark.parametrize(
    ("kind", "label", "before", "now", "metric", "lost"),
    [
        ("scope", "out", REFUSED, RIGHT, "out_refused", True),
        ("scope", "out", RIGHT, REFUSED, "out_refused", False),
        ("scope", "in", RIGHT, REFUSED, "in_kept", True),
        ("scope", "in", REFUSED, RIGHT, "in_kept", False),
        ("unanswerable", None, NOT_FOUND, RIGHT, "not_found", True),
        ("unanswerable", None, RIGHT, NOT_FOUND, "not_found", False),
    ],
)
def test_direction_is_that_of_the_metric(
    kind: SetKind, label: str | None, before: Went, now: Went, metric: str, lost: bool
) -> None:
    found = compared(measured([before] * 20, kind, label), measured([now] * 20, kind, label))
    assert found.changes[metric].verdict == ("loss" if lost else "gain")
    assert found.lost == lost


def test_only_lines_of_the_same_id_are_compared() -> None:
    found = compared(measured([WRONG] * 10), measured([RIGHT] * 10, first=6))
    assert found.n == 4
    assert (found.changes["hit@1"].before, found.changes["hit@1"].now) == (0.0, 1.0)


def test_set_of_another_kind_or_without_a_shared_line_is_not_compared() -> None:
    earlier = stored(measured([RIGHT]))
    assert compare(earlier, [measured([RIGHT], "unanswerable")]) == []
    assert compare(earlier, [measured([RIGHT], first=7)]) == []


@pytest.mark.parametrize(("kind", "first"), [("unanswerable", 0), ("queries", 7)], ids=["kind", "ids"])
def test_baseline_that_shares_nothing_is_refused_before_the_run(kind: SetKind, first: int) -> None:
    lines = [Line(id=str(first), query="질문")]
    with pytest.raises(InvalidRequest, match="같은 평가 세트가 없습니다"):
        check_comparable(stored(measured([RIGHT])), [LabelledSet("set.jsonl", kind, lines)])


def test_two_sets_of_one_name_cannot_be_compared() -> None:
    labelled = LabelledSet("set.jsonl", "queries", [Line(id="0", query="질문")])
    with pytest.raises(InvalidRequest, match="이름이 같은"):
        check_comparable(stored(measured([RIGHT])), [labelled, labelled])


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_is_no_result_is_an_invalid_request(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"bad\.json"):
        read_baseline(path)


@pytest.mark.parametrize("name", ["none.json", "."], ids=["missing", "a folder"])
def test_baseline_that_cannot_be_read_is_an_invalid_request(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="읽을 수 없습니다"):
        read_baseline(tmp_path / name)


@given(st.floats(-1, 1), st.floats(-1, 1), st.booleans())
def test_verdict_turns_round_with_the_sign(one: float, other: float, higher_is_worse: bool) -> None:
    low, high = sorted((one, other))
    opposite = {"loss": "gain", "gain": "loss", "unclear": "unclear"}
    found = verdict((low, high), higher_is_worse=higher_is_worse)
    assert verdict((-high, -low), higher_is_worse=higher_is_worse) == opposite[found]
    assert verdict((low, high), higher_is_worse=not higher_is_worse) == opposite[found]


def test_false_hits_are_the_one_main_metric_that_is_better_when_lower() -> None:
    assert {name for kind in MAIN for name in set(MAIN[kind]) & set(HIGHER_IS_WORSE[kind])} == {"false_hits"}


def pairs(*reused: tuple[bool, bool]) -> Measured:
    """Return measured pairs, each as whether it asks the same and whether the second answer was the first's."""
    lines = [Pair(id=str(number), a="앞", b="뒤", same=same) for number, (same, _) in enumerate(reused)]
    judged = [Judged(line, "answered", 0, cached=cached) for line, (_, cached) in zip(lines, reused, strict=True)]
    return measure(LabelledSet("pairs.jsonl", "cache_pairs", lines), judged)


def test_hits_of_cache_pairs_are_counts() -> None:
    found = compared(pairs(*[(True, False)] * 20), pairs(*[(True, True)] * 20))
    assert (found.changes["true_hits"].before, found.changes["true_hits"].now) == (0, 20)
    assert found.changes["true_hits"].interval == (20, 20)
    assert found.changes["true_hits"].verdict == "gain"


def test_more_false_hits_are_a_loss() -> None:
    found = compared(pairs(*[(False, False)] * 20), pairs(*[(False, True)] * 20))
    assert found.changes["false_hits"].verdict == "loss"
    assert found.lost
