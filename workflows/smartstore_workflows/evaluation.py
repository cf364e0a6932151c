"""Measure the whole workflow on labelled lines, in the JSONL forms of shared/data/eval. Metrics are pure.

A line's kind is told from its keys: `gold` with `history` is multiturn, `gold` alone queries, `label` scope, `a` with
`b` cache pairs, and a bare `query` unanswerable. A gold row is a position in the indexed file.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smartstore_indexing.errors import InvalidRequest
from smartstore_indexing.faq import Catalog
from smartstore_workflows.answer_quality import GivenAnswer, given_answer
from smartstore_workflows.events import Asked, Kind, Outcome, Turn
from smartstore_workflows.running import TimedOutcome

SetKind = Literal["queries", "multiturn", "scope", "unanswerable", "cache_pairs"]
Metrics = dict[str, float]
COUNTS = frozenset({"true_hits", "false_hits"})  # metrics that are sums over the lines; the others are means
KEPT_TITLES = 3  # of the ranked list, in a judged line


class Message(BaseModel):
    """One message of a labelled conversation."""

    role: Literal["user", "assistant"]
    content: str


class Line(BaseModel):
    """One labelled line; keys that are not known are ignored."""

    model_config = ConfigDict(extra="ignore")

    id: str
    query: str = Field(min_length=1)
    gold: list[int] = []
    label: Literal["in", "out"] | None = None
    history: list[Message] = []
    style: str | None = None
    kind: str | None = None
    standalone: str | None = None


class Pair(Line):
    """Two questions, and whether the answer to the first, `a`, answers the second, `b`, which is its query."""

    query: str = Field(min_length=1, validation_alias="b")
    a: str = Field(min_length=1)
    same: bool


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """One file of labelled lines."""

    file: str
    kind: SetKind
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Judged:
    """How one line went: the outcome's kind, and the rank of the best gold FAQ in the ranked list, from 1 (0: none).

    `gold` are the titles of the gold FAQs, `top` those of the first three that were found; `in_scope` and `found` are
    the workflow's probabilities, both 0 where the question was turned away unread; `asked` is how it was understood;
    `cached` tells that a pair's second question was answered with the first one's answer; `given` is the answer.
    """

    line: Line
    kind: Kind
    rank: int
    gold: tuple[str, ...] = ()
    top: tuple[str, ...] = ()
    in_scope: float = 0.0
    found: float = 0.0
    asked: Asked | None = None
    cached: bool = False
    given: GivenAnswer | None = field(default=None, compare=False)  # its times are never the same

    @property
    def hit_rank(self) -> int:
        """Return the rank that counts: a question that was not answered is a miss, wherever its FAQ stood."""
        return self.rank if self.kind == "answered" else 0


def read_set(path: Path) -> LabelledSet:
    """Return the labelled lines of a file.

    Raises:
        InvalidRequest: it cannot be read, a line is broken, or its keys are those of no kind that can be measured.
    """
    try:
        texts = [text for text in path.read_text(encoding="utf-8-sig").split("\n") if text.strip()]
        keys = set(json.loads(texts[0])) if texts else set()
        kind = _kind(keys)
        form = Pair if kind == "cache_pairs" else Line
        lines = [form.model_validate_json(text) for text in texts]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path}: 평가 파일을 읽을 수 없습니다.") from error
    except (ValidationError, ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"{path.name}: 평가 파일의 형식이 올바르지 않습니다 (한 줄에 JSON 하나).") from error
    if not lines:
        raise InvalidRequest(f"{path.name}: 평가할 줄이 없습니다.")
    return LabelledSet(path.name, kind, lines)


def _kind(keys: set[str]) -> SetKind:
    if "gold" in keys:
        return "multiturn" if "history" in keys else "queries"
    if {"a", "b"} <= keys:
        return "cache_pairs"
    return "scope" if "label" in keys else "unanswerable"


def turns_of(messages: Iterable[Message]) -> list[Turn]:
    """Return a labelled conversation as turns: each user message with the assistant's message after it."""
    turns: list[Turn] = []
    for message in messages:
        if message.role == "user":
            turns.append(Turn(question=message.content, standalone=message.content, answer="", kind="answered"))
        elif turns:
            turns[-1] = turns[-1].model_copy(update={"answer": message.content})
    return turns


def group_of(kind: SetKind, line: Line) -> str | None:
    """Return the group that a line is also counted in.

    It is a query's style, the kind of a scope line or a pair, or how a turn follows.
    """
    if kind == "queries":
        return line.style or None
    if kind in {"scope", "cache_pairs"}:
        return line.kind or None
    if kind == "multiturn" and line.standalone is not None:
        return "switch" if line.standalone == line.query else "follow_up"
    return None


async def judge(
    labelled: LabelledSet,
    answer: Callable[[str, Sequence[Turn]], Awaitable[TimedOutcome]],
    catalog: Catalog,
    advance: Callable[[], None],
) -> list[Judged]:
    """Answer every line, one after the other, and judge it; `advance` is called after each."""
    by_row = {faq.row: faq for faq in catalog}
    judged = []
    for line in labelled.lines:
        gold = [by_row[row] for row in line.gold if row in by_row]
        titles = tuple(faq.title for faq in gold)
        try:
            timed = await answer(line.query, turns_of(line.history))
        except InvalidRequest:  # nothing but punctuation, say: the doors turn it away
            judged.append(Judged(line, "refused", 0, titles))
        else:
            written = timed.outcome.written
            answers = {faq.answer for faq in gold}  # of equal answers only one is listed
            right = frozenset(faq.id for faq in catalog if faq.answer in answers) if gold else None
            listed = [catalog.get(passage.faq_id) for passage in written.passages]
            ranks = [rank for rank, faq in enumerate(listed, start=1) if faq is not None and faq.answer in answers]
            judged.append(
                Judged(
                    line,
                    written.kind,
                    min(ranks, default=0),
                    titles,
                    tuple(faq.title for faq in listed[:KEPT_TITLES] if faq is not None),
                    written.in_scope,
                    written.found,
                    written.asked,
                    given=given_answer(written, right, first_token=timed.first_token, whole=timed.whole),
                )
            )
        advance()
    return judged


async def judge_pairs(
    labelled: LabelledSet, answer: Callable[[str, str], Awaitable[Outcome]], advance: Callable[[], None]
) -> list[Judged]:
    """Answer both questions of every pair, with nothing else cached, and judge where the second answer came from."""
    judged = []
    for line in labelled.lines:
        assert isinstance(line, Pair)
        try:
            written = (await answer(line.a, line.query)).written
        except InvalidRequest:
            judged.append(Judged(line, "refused", 0))
        else:
            judged.append(Judged(line, written.kind, 0, asked=written.asked, cached=written.cached))
        advance()
    return judged


def metrics(kind: SetKind, judged: Sequence[Judged]) -> Metrics:
    """Return the figures of one set, shares from 0 to 1 or COUNTS; a refused or not-found query is a miss at every k.

    A figure that no line counts for is left out.
    """
    return {name: float(found.mean()) * weight(name, found) for name, found in scores(kind, judged).items()}


def weight(metric: str, found: np.ndarray) -> float:
    """Return what the mean of a metric's scores is multiplied by: their number for one of the COUNTS, else 1."""
    return float(len(found)) if metric in COUNTS else 1.0


def scores(kind: SetKind, judged: Sequence[Judged]) -> dict[str, np.ndarray]:
    """Return for each metric the scores, 0 to 1, of the lines that count for it, in their order.

    It is their mean, or for one of the COUNTS their sum.
    """
    if kind == "cache_pairs":
        found = {
            "true_hits": _reused(judged, same=True),
            "false_hits": _reused(judged, same=False),
        }
    elif kind == "scope":
        outside = [item for item in judged if item.line.label == "out"]
        inside = [item for item in judged if item.line.label == "in"]
        found = {"out_refused": _are(outside, "refused"), "in_kept": 1 - _are(inside, "refused")}
    elif kind == "unanswerable":
        found = {"not_found": _are(judged, "not_found"), "refused": _are(judged, "refused")}
    else:
        ranks = np.array([item.hit_rank for item in judged], dtype=float)
        found = {
            **{f"hit@{k}": ((ranks > 0) & (ranks <= k)).astype(float) for k in (1, 3, 10)},
            "mrr": np.divide(1.0, ranks, out=np.zeros_like(ranks), where=ranks > 0),
            "refused": _are(judged, "refused"),
            "not_found": _are(judged, "not_found"),
        }
    return {name: each for name, each in found.items() if len(each)}


def _reused(judged: Sequence[Judged], *, same: bool) -> np.ndarray:
    pairs = [item for item in judged if isinstance(item.line, Pair) and item.line.same == same]
    return np.array([item.cached for item in pairs], dtype=float)


def _are(judged: Sequence[Judged], kind: Kind) -> np.ndarray:
    return np.array([item.kind == kind for item in judged], dtype=float)
