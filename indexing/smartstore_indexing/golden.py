"""Questions whose FAQs are known: a new index must find them before it is put to use."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smartstore_indexing.errors import Misconfigured
from smartstore_indexing.faq import FaqId, RawFAQ, faq_id
from smartstore_indexing.milvus import Hit

MAX_BYTES = 4 * 1024 * 1024
FOUND = 10  # a question counts when one of its FAQs is among so many
CANDIDATES = 50  # of each branch, nodes: an FAQ has two
RANK_OFFSET = 60  # of reciprocal rank fusion, as usual


class GoldenQuestion(BaseModel):
    """One line: a question and the rows of the indexed file that answer it; keys that are not known are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    query: Annotated[str, Field(min_length=1, max_length=2_000)]
    gold: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


def read_golden(path: Path) -> list[GoldenQuestion]:
    """Return the questions of a file of JSON lines, in the form of eval's search questions.

    Raises:
        Misconfigured: it cannot be read, a line is broken, or there is none.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        lines = content.decode("utf-8-sig").split("\n")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the name
        raise Misconfigured(f"SMARTSTORE_INDEX__GOLDEN의 파일 {path}을(를) 읽을 수 없습니다.") from error
    if len(content) > MAX_BYTES:
        raise Misconfigured(f"SMARTSTORE_INDEX__GOLDEN의 파일이 너무 큽니다 (최대 {MAX_BYTES // 1024**2}MB).")
    questions = [_question(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not questions:
        raise Misconfigured(f"SMARTSTORE_INDEX__GOLDEN의 파일 {path}에 질문이 없습니다.")
    return questions


def answers_of(questions: Iterable[GoldenQuestion], rows: Sequence[RawFAQ]) -> list[frozenset[FaqId]]:
    """Return the FAQs that answer each question; Misconfigured when one names a row that the source does not have."""
    wanted = []
    for question in questions:
        if max(question.gold) >= len(rows):
            raise Misconfigured(
                f"SMARTSTORE_INDEX__GOLDEN의 질문이 {max(question.gold)}번 행을 가리키지만 "
                f"색인할 파일은 {len(rows)}행입니다. 같은 FAQ 파일로 만든 질문인지 확인해 주세요."
            )
        wanted.append(frozenset(faq_id(rows[row].question) for row in question.gold))
    return wanted


def fused(*branches: Sequence[Hit]) -> list[str]:
    """Return the first FAQs of several searches ranked together, best first."""
    scores: dict[str, float] = {}
    for hits in branches:
        for rank, name in enumerate(dict.fromkeys(hit.faq_id for hit in hits), start=1):
            scores[name] = scores.get(name, 0.0) + 1 / (RANK_OFFSET + rank)
    return sorted(scores, key=lambda name: -scores[name])[:FOUND]


def _question(path: Path, number: int, line: str) -> GoldenQuestion:
    try:
        return GoldenQuestion.model_validate_json(line)
    except ValidationError as error:
        raise Misconfigured(
            f"SMARTSTORE_INDEX__GOLDEN의 파일 {path.name}의 {number}번째 줄이 올바르지 않습니다. "
            "query(질문)와 gold(정답 행의 목록)가 있는 JSON이어야 합니다."
        ) from error
