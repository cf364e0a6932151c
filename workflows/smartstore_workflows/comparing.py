"""Whether a run of the evaluation did better or worse than an earlier one, line by line. Only the reading does I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from smartstore_indexing.errors import InvalidRequest
from smartstore_workflows.answer_quality import answer_scores
from smartstore_workflows.bootstrap import Interval, interval
from smartstore_workflows.evaluation import Judged, LabelledSet, SetKind, scores, weight
from smartstore_workflows.events import Kind
from smartstore_workflows.results import Measured

Verdict = Literal["loss", "gain", "unclear"]
# A loss of one of these fails the run. The other outcomes of a question are in its hits already.
MAIN: dict[SetKind, tuple[str, ...]] = {
    "queries": ("hit@1", "hit@3", "hit@10", "mrr"),
    "multiturn": ("hit@1", "hit@3", "hit@10", "mrr"),
    "scope": ("out_refused", "in_kept"),
    "unanswerable": ("not_found",),
    "cache_pairs": ("true_hits", "false_hits"),
}
HIGHER_IS_WORSE: dict[SetKind, tuple[str, ...]] = {
    "queries": ("refused", "not_found"),
    "multiturn": ("refused", "not_found"),
    "scope": (),
    "unanswerable": ("refused",),
    "cache_pairs": ("false_hits",),
}


class EarlierLine(BaseModel):
    """How a line went then."""

    id: str
    kind: Kind
    rank: int = Field(ge=0)
    cached: bool = False


class EarlierSet(BaseModel):
    """A set as it was measured then."""

    file: str
    kind: SetKind
    model: str = ""
    lines: list[EarlierLine]


class Baseline(BaseModel):
    """The result of an earlier run."""

    sets: list[EarlierSet]


@dataclass(frozen=True, slots=True)
class Change:
    """One metric over the lines of both runs: then, now, and the 95 % interval of the difference."""

    before: float
    now: float
    interval: Interval
    verdict: Verdict
    main: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """One set over its `n` lines that both runs have."""

    file: str
    kind: SetKind
    model: str
    n: int
    changes: dict[str, Change]

    @property
    def lost(self) -> bool:
        """Tell whether a main metric is surely worse than it was."""
        return any(change.main and change.verdict == "loss" for change in self.changes.values())


def read_baseline(path: Path) -> Baseline:
    """Return an earlier result; InvalidRequest when it cannot be read or is none."""
    try:
        return Baseline.model_validate_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path}: 비교할 결과 파일을 읽을 수 없습니다.") from error
    except ValidationError as error:
        raise InvalidRequest(f"{path.name}: `eval --output`으로 저장한 결과 파일이 아닙니다.") from error


def check_comparable(baseline: Baseline, sets: Sequence[LabelledSet], models: Sequence[str] = ("",)) -> None:
    """Raise InvalidRequest unless some set has lines in the earlier result, and each is told by its name and kind.

    The lines must be those that one of these models was asked; "" stands for none.
    """
    names = [(labelled.file, labelled.kind) for labelled in sets]
    if len(set(names)) < len(names):
        raise InvalidRequest("이름이 같은 평가 파일이 여럿이면 비교할 수 없습니다. 파일 이름을 다르게 해 주세요.")
    for labelled in sets:
        earlier = (
            found
            for found in baseline.sets
            if (found.file, found.kind) == (labelled.file, labelled.kind) and found.model in models
        )
        if {line.id for line in labelled.lines} & {line.id for found in earlier for line in found.lines}:
            return
    raise InvalidRequest("비교할 결과 파일에 같은 평가 세트가 없습니다. 파일 이름과 줄의 id, --model을 확인해 주세요.")


def compare(baseline: Baseline, sets: Sequence[Measured]) -> list[Comparison]:
    """Return how each set that both runs have changed, over the lines with the same id."""
    compared = []
    for measured in sets:
        earlier = _earlier_lines(baseline, measured)
        now = [item for item in measured.judged if item.line.id in earlier]
        if now:
            before = [_as_it_went(item, earlier[item.line.id]) for item in now]
            changes = _changes(measured.kind, before, now)
            compared.append(Comparison(measured.file, measured.kind, measured.model, len(now), changes))
    return compared


def _as_it_went(item: Judged, then: EarlierLine) -> Judged:
    return replace(item, kind=then.kind, rank=then.rank, cached=then.cached)


def _earlier_lines(baseline: Baseline, measured: Measured) -> dict[str, EarlierLine]:
    """Return the lines of the same file that the same model was asked then, by their ids."""
    wanted = (measured.file, measured.kind, measured.model)
    return {
        line.id: line
        for found in baseline.sets
        if (found.file, found.kind, found.model) == wanted
        for line in found.lines
    }


def _changes(kind: SetKind, before: Sequence[Judged], now: Sequence[Judged]) -> dict[str, Change]:
    scores_before = scores(kind, before)
    changes = {}
    for name, scores_now in scores(kind, now).items():
        times = weight(name, scores_now)
        low, high = interval(scores_now - scores_before[name])
        changes[name] = Change(
            before=float(scores_before[name].mean()) * times,
            now=float(scores_now.mean()) * times,
            interval=(low * times, high * times),
            verdict=verdict((low, high), higher_is_worse=name in HIGHER_IS_WORSE[kind]),
            main=name in MAIN[kind],
        )
    return changes


def against(first: Measured, other: Measured) -> dict[str, Verdict]:
    """Return of each share whether another model did better or worse on a set than the first one, line by line.

    Shares of the answers are compared over the lines that both answered; one without such lines is left out.
    """
    found = {name: change.verdict for name, change in _changes(first.kind, first.judged, other.judged).items()}
    both = [
        (before.given, now.given)
        for before, now in zip(first.judged, other.judged, strict=True)
        if before.given is not None and now.given is not None
    ]
    befores, nows = (answer_scores(answers) for answers in zip(*both, strict=True)) if both else ({}, {})
    for name, scores_now in nows.items():
        difference = scores_now - befores[name]
        if len(difference := difference[~np.isnan(difference)]):
            found[name] = verdict(interval(difference), higher_is_worse=name == "degraded")
    return found


def verdict(difference: Interval, *, higher_is_worse: bool) -> Verdict:
    """Return "loss" or "gain" when the whole interval of a difference lies on that side of 0."""
    low, high = difference
    if low <= 0 <= high:
        return "unclear"
    return "loss" if (low > 0) == higher_is_worse else "gain"
