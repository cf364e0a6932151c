"""`smartstore eval`: measure the whole workflow on labelled files, compare with an earlier run, print and report."""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from smartstore_indexing.errors import InvalidRequest
from smartstore_indexing.settings import EXTRACTIVE, Settings, load_settings
from smartstore_ui.eval_tables import print_comparisons, print_evaluation, print_misses
from smartstore_ui.exit_codes import SIGNIFICANT_LOSS
from smartstore_ui.writing import check_target, write_whole
from smartstore_workflows import Chatbot
from smartstore_workflows.answer_quality import FREE, Price
from smartstore_workflows.app import Services
from smartstore_workflows.comparing import Comparison, check_comparable, compare, read_baseline
from smartstore_workflows.crossvalidating import cases, cross_validated
from smartstore_workflows.evaluation import LabelledSet, judge, judge_pairs, metrics, read_set
from smartstore_workflows.results import Evaluation, Measured, as_json, measure
from smartstore_workflows.reusing import asked_after

Page = Callable[[Evaluation, Sequence[Comparison]], str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run is to give besides its tables."""

    as_json: bool = False
    output: Path | None = None
    html: Path | None = None
    baseline: Path | None = None
    misses: int = 0
    cross_validated: bool = False
    models: tuple[str, ...] = ()  # that answer; with none the FAQ's extract does, and no answer is measured


def run_eval(files: Sequence[Path], wanted: Wanted) -> int:
    """Measure each file, print and write what is wanted; SIGNIFICANT_LOSS when a main metric is surely worse."""
    sets = [read_set(path) for path in files]
    _check(sets, wanted)
    baseline = read_baseline(wanted.baseline) if wanted.baseline else None
    if baseline:
        check_comparable(baseline, sets, wanted.models or ("",))
    if wanted.output:
        check_target(wanted.output, files)  # the baseline may be replaced by the result that follows it
    if wanted.html:
        check_target(wanted.html, [*files, wanted.baseline, wanted.output])
    page = _page() if wanted.html else None
    evaluation = asyncio.run(_measure(sets, wanted))
    comparisons = compare(baseline, evaluation.sets) if baseline else []
    try:
        _write(evaluation, comparisons, wanted, page)
    finally:  # a full disk does not cost the figures
        _print(evaluation, comparisons, wanted)
    return SIGNIFICANT_LOSS if any(comparison.lost for comparison in comparisons) else 0


def _check(sets: Sequence[LabelledSet], wanted: Wanted) -> None:
    if not wanted.models:
        return
    if wanted.cross_validated:
        raise InvalidRequest("--model과 --cv는 함께 쓸 수 없습니다. --cv는 모델 없이 순위와 문턱값을 맞춥니다.")
    if any(labelled.kind == "cache_pairs" for labelled in sets):
        raise InvalidRequest("답변 재사용 세트(a, b)는 --model 없이 재어 주세요. 재사용은 모델을 부르지 않습니다.")
    if len(set(wanted.models)) < len(wanted.models):
        raise InvalidRequest("--model에 같은 이름이 두 번 있습니다.")


def _page() -> Page:
    from smartstore_ui.reporting import page  # brings Plotly, which only a report needs

    return page


async def _measure(sets: Sequence[LabelledSet], wanted: Wanted) -> Evaluation:
    settings = load_settings()
    async with Chatbot(settings) as bot:
        models = [bot.known_model(name) for name in wanted.models] or [EXTRACTIVE]
        if wanted.models:
            await bot.warm_up()  # or the first answer's time would be that of a start
        snapshot = await bot.services.reader.snapshot()
        console = Console(stderr=True)
        measured = []
        # Where it is no terminal, a finished Progress would still print an empty line.
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
            for labelled, model in product(sets, models):
                title = f"{labelled.file} {model}" if wanted.models else labelled.file
                bar = partial(bars.update, bars.add_task(escape(title), total=len(labelled.lines)), advance=1)
                if labelled.kind == "cache_pairs":
                    judged = await judge_pairs(labelled, partial(asked_after, bot.services), advance=bar)
                else:
                    answer = partial(bot.timed_outcome, model=model)
                    judged = await judge(labelled, answer, snapshot.catalog, advance=bar)
                named = model if wanted.models else ""
                measured.append(measure(labelled, judged, model=named, price=_price(settings, model)))
        if wanted.cross_validated:
            measured = await _cross_validated(bot.services, measured)
    return Evaluation(snapshot.manifest.faqs, snapshot.manifest.version, measured)


def _price(settings: Settings, model: str) -> Price | None:
    """Return the price of a model, None where nobody told it."""
    found = settings.models.get(model)
    if found is None:
        return FREE
    price = (found.price_input, found.price_output)
    return None if price == FREE else price


async def _cross_validated(services: Services, sets: Sequence[Measured]) -> list[Measured]:
    fitted = [measured for measured in sets if measured.kind != "cache_pairs"]  # which holds nothing to fit
    found = [await cases(measured.judged, services.retriever) for measured in fitted]
    scope = services.scope
    folded = await asyncio.to_thread(
        cross_validated, found, least_scope=scope.least_scope, least_found=scope.least_found
    )
    figures = {id(measured): metrics(measured.kind, judged) for measured, judged in zip(fitted, folded, strict=True)}
    return [replace(measured, cross_validated=figures.get(id(measured))) for measured in sets]


def _json(evaluation: Evaluation) -> str:
    return json.dumps(as_json(evaluation), ensure_ascii=False) + "\n"


def _write(evaluation: Evaluation, comparisons: Sequence[Comparison], wanted: Wanted, page: Page | None) -> None:
    if wanted.output:
        write_whole(wanted.output, _json(evaluation), errors="backslashreplace")  # JSON's own escape
    if wanted.html and page:
        write_whole(wanted.html, page(evaluation, comparisons), errors="replace")


def _print(evaluation: Evaluation, comparisons: Sequence[Comparison], wanted: Wanted) -> None:
    console = Console(stderr=wanted.as_json)  # beside JSON, what is for a person goes to the other stream
    if wanted.as_json:
        sys.stdout.write(_json(evaluation))
    else:
        print_evaluation(console, evaluation)
    if wanted.baseline:
        print_comparisons(console, evaluation, comparisons)
    if wanted.misses:
        for measured in evaluation.sets:
            print_misses(console, measured, wanted.misses)
