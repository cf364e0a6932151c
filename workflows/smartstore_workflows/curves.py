"""What any threshold would have given: precision and recall of a yes-or-no judgement. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smartstore_workflows.evaluation import Judged


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision at each recall, (k,) both, recall rising, one point for each threshold that tells lines apart.

    `recall_now` and `precision_now` are the point at which the workflow works; precision is None where it never said
    yes. `average` is the average precision, `positives` and `negatives` count the lines.
    """

    recall: np.ndarray
    precision: np.ndarray
    average: float
    recall_now: float
    precision_now: float | None
    positives: int
    negatives: int


def curve(positive: np.ndarray, scores: np.ndarray, said_yes: np.ndarray) -> Curve | None:
    """Return the curve of lines (n,), the highest score the surest yes; None unless both classes have a line."""
    positives = int(positive.sum())
    if not 0 < positives < len(positive):
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # equal scores fall together
    hits = np.cumsum(positive[order])[ends]
    recall, precision = hits / positives, hits / (ends + 1)
    right = int((positive & said_yes).sum())
    return Curve(
        recall=recall,
        precision=precision,
        average=float(np.sum(np.diff(recall, prepend=0.0) * precision)),
        recall_now=right / positives,
        precision_now=right / int(said_yes.sum()) if said_yes.any() else None,
        positives=positives,
        negatives=len(positive) - positives,
    )


def refusing(judged: Sequence[Judged]) -> Curve | None:
    """Return the curve of refusing a scope set's lines; those labelled `out` are the positive class."""
    labelled = [item for item in judged if item.line.label is not None]
    return curve(
        np.array([item.line.label == "out" for item in labelled], dtype=bool),
        np.array([1 - item.in_scope for item in labelled]),
        np.array([item.kind == "refused" for item in labelled], dtype=bool),
    )


def not_finding(answerable: Sequence[Judged], unanswerable: Sequence[Judged]) -> Curve | None:
    """Return the curve of saying that no FAQ answers; lines that were refused never came to it and are left out."""
    both = [*((item, False) for item in answerable), *((item, True) for item in unanswerable)]
    reached = [(item, positive) for item, positive in both if item.kind != "refused"]
    return curve(
        np.array([positive for _, positive in reached], dtype=bool),
        np.array([1 - item.found for item, _ in reached]),
        np.array([item.kind == "not_found" for item, _ in reached], dtype=bool),
    )
