"""Measure the whole workflow on labelled lines, in the JSONL forms of shared/data/eval. Metrics are pure.

A line's kind is told from its keys: `gold` with `history` is multiturn, `gold` alone queries, `label` scope, and a bare
`query` unanswerable. A gold row is a position in the indexed file.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smartstore_indexing.errors import InvalidRequest
from smartstore_indexing.faq import Catalog
from smartstore_workflows.events import Kind, Outcome, Turn

SetKind = Literal["queries", "multiturn", "scope", "unanswerable"]
Metrics = dict[str, float]


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


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """One file of labelled lines."""

    file: str
    kind: SetKind
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Judged:
    """How one line went: the outcome's kind, and the rank of the best gold FAQ in the ranked list, from 1 (0: none)."""

    line: Line
    kind: Kind
    rank: int


def read_set(path: Path) -> LabelledSet:
    """Return the labelled lines of a file.

    Raises:
        InvalidRequest: it cannot be read, a line is broken, or its keys are those of no kind that can be measured.
    """
    try:
        texts = [text for text in path.read_text(encoding="utf-8-sig").split("\n") if text.strip()]
        keys = set(json.loads(texts[0])) if texts else set()
        lines = [Line.model_validate_json(text) for text in texts]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path}: 평가 파일을 읽을 수 없습니다.") from error
    except (ValidationError, ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"{path.name}: 평가 파일의 형식이 올바르지 않습니다 (한 줄에 JSON 하나).") from error
    if not lines:
        raise InvalidRequest(f"{path.name}: 평가할 줄이 없습니다.")
    return LabelledSet(path.name, _kind(keys), lines)


def _kind(keys: set[str]) -> SetKind:
    if "gold" in keys:
        return "multiturn" if "history" in keys else "queries"
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


async def judge(
    labelled: LabelledSet,
    answer: Callable[[str, Sequence[Turn]], Awaitable[Outcome]],
    catalog: Catalog,
    advance: Callable[[], None],
) -> list[Judged]:
    """Answer every line, one after the other, and judge it; `advance` is called after each."""
    ids_by_row = {faq.row: faq.id for faq in catalog}
    judged = []
    for line in labelled.lines:
        try:
            written = (await answer(line.query, turns_of(line.history))).written
        except InvalidRequest:  # nothing but punctuation, say: the doors turn it away
            judged.append(Judged(line, "refused", 0))
        else:
            gold = {ids_by_row[row] for row in line.gold if row in ids_by_row}
            ranks = [rank for rank, passage in enumerate(written.passages, start=1) if passage.faq_id in gold]
            judged.append(Judged(line, written.kind, min(ranks, default=0)))
        advance()
    return judged


def metrics(kind: SetKind, judged: Sequence[Judged]) -> Metrics:
    """Return the figures of one set, shares from 0 to 1; a refused or not-found query is a miss at every k."""
    if kind in ("queries", "multiturn"):
        ranks = [item.rank if item.kind == "answered" else 0 for item in judged]
        return {
            **{f"hit@{k}": fmean(0 < rank <= k for rank in ranks) for k in (1, 3, 10)},
            "mrr": fmean(1 / rank if rank else 0.0 for rank in ranks),
            "refused": _share(judged, "refused"),
            "not_found": _share(judged, "not_found"),
        }
    if kind == "scope":
        outside = [item for item in judged if item.line.label == "out"]
        inside = [item for item in judged if item.line.label == "in"]
        return {"out_refused": _share(outside, "refused"), "in_kept": 1 - _share(inside, "refused")}
    return {"not_found": _share(judged, "not_found"), "refused": _share(judged, "refused")}


def _share(judged: Sequence[Judged], kind: Kind) -> float:
    return fmean(item.kind == kind for item in judged) if judged else 0.0
