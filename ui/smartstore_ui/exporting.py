"""`smartstore export-finetune`: the chats to fine-tune a model on, and a card that says what they are."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smartstore_indexing.cleaning import clean_all
from smartstore_indexing.errors import InvalidRequest
from smartstore_indexing.faq import FAQ, FaqId, digest
from smartstore_indexing.loading import SAMPLE, load
from smartstore_indexing.settings import load_settings
from smartstore_ui.writing import check_target, write_whole
from smartstore_workflows.evaluation import read_set
from smartstore_workflows.finetuning import (
    KINDS,
    OWN_QUESTIONS,
    UNCONFIRMED,
    Asking,
    ExampleKind,
    Splits,
    off_topic_lines,
    splits,
)
from smartstore_workflows.prompting import prompt_version
from smartstore_workflows.wording import REFUSAL

TRAIN, VALIDATION, CARD = "train.jsonl", "validation.jsonl", "README.md"
LEAST_FAQS = 20  # with fewer there is nothing to choose a context from
MOST_HELD_OUT = 0.5
NAMES: dict[ExampleKind, str] = {
    "answered": "답변",
    "multi_turn": "이어지는 대화",
    "not_found": "찾지 못함",
    "refused": "거절",
}
ANSWERS: dict[ExampleKind, str] = {
    "answered": "문맥의 FAQ 하나에서 옮긴 답",
    "multi_turn": "앞 대화에 이어지는 질문에, 위와 같은 답",
    "not_found": UNCONFIRMED,
    "refused": REFUSAL,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be exported, as typed: `validation` is the share that is held out."""

    output: Path
    validation: str
    seed: int
    queries: Path | None
    force: bool


def run_export_finetune(path: Path | None, wanted: Wanted) -> int:
    """Write the chats of an FAQ file, by default the settings', into a folder, and print how many they are.

    Raises:
        InvalidRequest: a file cannot be read or written, the share is none, or the folder holds an earlier export.
    """
    source = path or load_settings().faq
    share = _share(wanted.validation)
    faqs = clean_all(load(source))
    if len(faqs) < LEAST_FAQS:
        raise InvalidRequest(f"{source.name}: 학습 데이터를 만들려면 FAQ가 {LEAST_FAQS}건 이상 있어야 합니다.")
    queries = _queries(wanted.queries or (_shipped_queries() if source == SAMPLE else None), faqs)
    _check_folder(wanted, source)
    asked = sum(map(len, queries.values()))
    with _bar(len(faqs) * OWN_QUESTIONS + asked) as advance:
        made = splits(faqs, queries, off_topic_lines(), validation=share, seed=wanted.seed, advance=advance)
    if not made.validation:
        raise InvalidRequest(f"{source.name}: 답이 모두 비슷해서 검증으로 떼어 둘 FAQ가 없습니다.")
    texts = {
        TRAIN: "".join(example.line for example in made.train),
        VALIDATION: "".join(example.line for example in made.validation),
        CARD: _card(
            made,
            made_on=datetime.now().astimezone().date(),
            source=source.name,
            faqs=faqs,
            queries=asked,
            share=share,
            seed=wanted.seed,
        ),
    }
    for name, text in texts.items():  # the card comes last: where it is, all is there
        write_whole(wanted.output / name, text, errors="replace")
    sys.stdout.write(_summary(made, wanted.output))
    return 0


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= MOST_HELD_OUT:
        raise InvalidRequest(f"--validation에는 0보다 크고 {MOST_HELD_OUT} 이하인 수를 써 주세요 (예: 0.1).")
    return share


def _shipped_queries() -> Path:
    return Path(str(resources.files("smartstore_workflows"))) / "training_queries.jsonl"


def _queries(path: Path | None, faqs: Sequence[FAQ]) -> dict[FaqId, list[Asking]]:
    """Return the questions of a labelled file by the FAQ that answers each."""
    found: dict[FaqId, list[Asking]] = {}
    if path is None:
        return found
    labelled = read_set(path)
    if labelled.kind != "queries":
        raise InvalidRequest(f'{path.name}: 검색 질문({{"id", "query", "gold"}}) 파일이 아닙니다.')
    rows = {faq.row: faq for faq in faqs}
    for line in labelled.lines:
        gold = [rows[row] for row in line.gold if row in rows]
        if not gold:
            raise InvalidRequest(f"{path.name}: {line.id}의 gold에 해당하는 FAQ가 없습니다. 같은 FAQ의 파일인가요?")
        also = frozenset(faq.id for faq in gold[1:])
        found.setdefault(gold[0].id, []).append(Asking(gold[0], line.query, also))
    return found


def _check_folder(wanted: Wanted, source: Path) -> None:
    folder = wanted.output
    try:
        held = [name for name in (TRAIN, VALIDATION, CARD) if (folder / name).exists()]
        if held and not wanted.force:
            raise InvalidRequest(
                f"{folder}: 이미 {', '.join(held)} 파일이 있습니다. 바꾸려면 --force를, 아니면 다른 폴더를 써 주세요."
            )
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InvalidRequest(f"{folder}: 폴더를 만들 수 없습니다. 경로와 쓰기 권한을 확인해 주세요.") from error
    for name in (TRAIN, VALIDATION, CARD):
        check_target(folder / name, [source, wanted.queries])


@contextmanager
def _bar(questions: int) -> Iterator[Callable[[], None]]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("예제 만들기", total=questions)
        yield lambda: bars.advance(task)


def _card(
    made: Splits, *, made_on: date, source: str, faqs: Sequence[FAQ], queries: int, share: float, seed: int
) -> str:
    """Return the card, which stands as a template in data_card.md."""
    train, validation = (Counter(example.kind for example in part) for part in (made.train, made.validation))
    rows = [f"| {NAMES[kind]} | {train[kind]:,} | {validation[kind]:,} | {ANSWERS[kind]} |" for kind in KINDS]
    rows.append(f"| 모두 | {len(made.train):,} | {len(made.validation):,} | |")
    template = resources.files("smartstore_ui").joinpath("data_card.md").read_text(encoding="utf-8")
    return template.format(
        made=made_on.isoformat(),
        source=source,
        faqs=len(faqs),
        fingerprint=digest(*(f"{faq.id}{faq.version}" for faq in faqs)),
        queries=queries,
        prompt=prompt_version(),
        share=share,
        seed=seed,
        counts="\n".join(rows),
        left_out=made.left_out,
    )


def _summary(made: Splits, folder: Path) -> str:
    train, validation = (Counter(example.kind for example in part) for part in (made.train, made.validation))
    lines = [f"학습 {len(made.train):,}건, 검증 {len(made.validation):,}건을 저장했습니다: {folder}"]
    lines += [f"  {NAMES[kind]}: 학습 {train[kind]:,} · 검증 {validation[kind]:,}" for kind in KINDS]
    lines.append(f"  예제가 없는 FAQ: {made.left_out:,}")
    lines.append(f"무엇이 들어 있는지는 {folder / CARD}에 적혀 있습니다.\n")
    return "\n".join(lines)
