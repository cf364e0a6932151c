"""What one run of the evaluation found, as it is shown, and as JSON that a later run can be compared with. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from smartstore_workflows.answer_quality import GivenAnswer, Price, answer_figures
from smartstore_workflows.bootstrap import Interval, interval
from smartstore_workflows.evaluation import (
    Judged,
    LabelledSet,
    Metrics,
    Pair,
    SetKind,
    group_of,
    metrics,
    scores,
    weight,
)

DIGITS = 4


@dataclass(frozen=True, slots=True)
class Group:
    """The lines of a set that are alike in some way: how many, and their figures."""

    n: int
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Measured:
    """One set: its lines as they went, its figures with their 95 % intervals, and the figures of its groups.

    `cross_validated` are the figures had the ranking and the thresholds been fitted on the other folds' lines. `model`
    names the model that was asked, whose answers have the figures of `answers`; both are empty where none was.
    """

    file: str
    kind: SetKind
    judged: Sequence[Judged]
    metrics: Metrics
    intervals: Mapping[str, Interval]
    groups: Mapping[str, Group]
    cross_validated: Metrics | None = None
    model: str = ""
    answers: Metrics = field(default_factory=dict)

    @property
    def given(self) -> list[GivenAnswer]:
        """Return the answers; a line that was turned away unread has none."""
        return [item.given for item in self.judged if item.given is not None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One run: the index that answered, named by its number of FAQs and its version, and every set."""

    faqs: int
    version: str
    sets: Sequence[Measured]


def measure(
    labelled: LabelledSet, judged: Sequence[Judged], *, model: str = "", price: Price | None = None
) -> Measured:
    """Return the figures of a set whose lines were judged; groups come in the order in which the lines name them.

    With the name of the model that was asked, and its price where that is known, those of its answers too.
    """
    groups: dict[str, list[Judged]] = {}
    for item in judged:
        if group := group_of(labelled.kind, item.line):
            groups.setdefault(group, []).append(item)
    measured = Measured(
        file=labelled.file,
        kind=labelled.kind,
        judged=judged,
        metrics=metrics(labelled.kind, judged),
        intervals={name: _interval(name, found) for name, found in scores(labelled.kind, judged).items()},
        groups={name: Group(len(items), metrics(labelled.kind, items)) for name, items in groups.items()},
        model=model,
    )
    return replace(measured, answers=answer_figures(measured.given, price)) if model else measured


def _interval(metric: str, found: np.ndarray) -> Interval:
    low, high = interval(found)
    return low * weight(metric, found), high * weight(metric, found)


def as_json(evaluation: Evaluation) -> dict[str, object]:
    """Return the whole result as JSON values, figures rounded to four digits."""
    return {
        "index": {"faqs": evaluation.faqs, "version": evaluation.version},
        "sets": [_set_as_json(measured) for measured in evaluation.sets],
    }


def _set_as_json(measured: Measured) -> dict[str, object]:
    return {
        "file": measured.file,
        "kind": measured.kind,
        "n": len(measured.judged),
        "metrics": _rounded(measured.metrics),
        "intervals": {
            name: [round(low, DIGITS), round(high, DIGITS)] for name, (low, high) in measured.intervals.items()
        },
        "groups": {name: {"n": group.n, "metrics": _rounded(group.metrics)} for name, group in measured.groups.items()},
        **({"model": measured.model, "answers": _rounded(measured.answers)} if measured.model else {}),
        **({"cross_validated": _rounded(measured.cross_validated)} if measured.cross_validated else {}),
        "lines": [_line_as_json(measured.kind, item) for item in measured.judged],
    }


def _line_as_json(kind: SetKind, item: Judged) -> dict[str, object]:
    return {
        "id": item.line.id,
        "query": item.line.query,
        "group": group_of(kind, item.line),
        "kind": item.kind,
        "rank": item.rank,
        "gold": list(item.gold),
        "top": list(item.top),
        "in_scope": round(item.in_scope, DIGITS),
        "found": round(item.found, DIGITS),
        **(
            {"first": item.line.a, "same": item.line.same, "cached": item.cached} if isinstance(item.line, Pair) else {}
        ),
    }


def _rounded(figures: Metrics) -> Metrics:
    return {name: round(figure, DIGITS) for name, figure in figures.items()}
