"""`smartstore eval`: measure the whole workflow on labelled files, compare with an earlier run, print and report."""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from smartstore_indexing.settings import load_settings
from smartstore_ui import naming
from smartstore_ui.exit_codes import SIGNIFICANT_LOSS
from smartstore_ui.writing import check_target, write_whole
from smartstore_workflows import Chatbot
from smartstore_workflows.app import Services
from smartstore_workflows.comparing import Comparison, check_comparable, compare, read_baseline
from smartstore_workflows.crossvalidating import cases, cross_validated
from smartstore_workflows.evaluation import LabelledSet, judge, judge_pairs, metrics, read_set
from smartstore_workflows.misses import misses
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


def run_eval(files: Sequence[Path], wanted: Wanted) -> int:
    """Measure each file, print and write what is wanted; SIGNIFICANT_LOSS when a main metric is surely worse."""
    sets = [read_set(path) for path in files]
    baseline = read_baseline(wanted.baseline) if wanted.baseline else None
    if baseline:
        check_comparable(baseline, sets)
    if wanted.output:
        check_target(wanted.output, files)  # the baseline may be replaced by the result that follows it
    if wanted.html:
        check_target(wanted.html, [*files, wanted.baseline, wanted.output])
    page = _page() if wanted.html else None
    evaluation = asyncio.run(_measure(sets, cross_validate=wanted.cross_validated))
    comparisons = compare(baseline, evaluation.sets) if baseline else []
    try:
        _write(evaluation, comparisons, wanted, page)
    finally:  # a full disk does not cost the figures
        _print(evaluation, comparisons, wanted)
    return SIGNIFICANT_LOSS if any(comparison.lost for comparison in comparisons) else 0


def _page() -> Page:
    from smartstore_ui.reporting import page  # brings Plotly, which only a report needs

    return page


async def _measure(sets: Sequence[LabelledSet], *, cross_validate: bool) -> Evaluation:
    async with Chatbot(load_settings()) as bot:
        snapshot = await bot.services.reader.snapshot()
        console = Console(stderr=True)
        measured = []
        # Where it is no terminal, a finished Progress would still print an empty line.
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
            for labelled in sets:
                bar = partial(bars.update, bars.add_task(escape(labelled.file), total=len(labelled.lines)), advance=1)
                if labelled.kind == "cache_pairs":
                    judged = await judge_pairs(labelled, partial(asked_after, bot.services), advance=bar)
                else:
                    judged = await judge(labelled, bot.outcome, snapshot.catalog, advance=bar)
                measured.append(measure(labelled, judged))
        if cross_validate:
            measured = await _cross_validated(bot.services, measured)
    return Evaluation(snapshot.manifest.faqs, snapshot.manifest.version, measured)


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
        console.print(f"색인: FAQ {evaluation.faqs:,}건 (버전 {evaluation.version})")
        for measured in evaluation.sets:
            _print_measured(console, measured)
    for comparison in comparisons:
        _print_comparison(console, comparison)
    if wanted.baseline:
        compared = {comparison.file for comparison in comparisons}
        for measured in evaluation.sets:
            if measured.file not in compared:
                _say(console, f"{measured.file}: 비교할 이전 결과가 없습니다.")
    if wanted.misses:
        for measured in evaluation.sets:
            _print_misses(console, measured, wanted.misses)


def _print_measured(console: Console, measured: Measured) -> None:
    _say(console, f"\n{measured.file} · {naming.SETS[measured.kind]} {len(measured.judged):,}건")
    folded = measured.cross_validated
    table = _table("지표", "값", "95% 구간", *(["교차 검증"] if folded else []))
    for name, figure in measured.metrics.items():
        beside = [naming.figure(name, folded[name])] if folded else []
        table.add_row(
            naming.metric_name(name), naming.figure(name, figure), naming.span(name, measured.intervals[name]), *beside
        )
    console.print(table)
    if measured.groups:
        names = list(measured.metrics)
        table = _table("구분", "건수", *(naming.metric_name(name) for name in names))
        for group, found in measured.groups.items():
            figures = (naming.figure(name, found.metrics.get(name)) for name in names)
            table.add_row(escape(naming.group_name(measured.kind, group)), f"{found.n:,}", *figures)
        console.print(table)


def _print_comparison(console: Console, comparison: Comparison) -> None:
    _say(console, f"\n{comparison.file} · 이전 결과와 비교 (id가 같은 {comparison.n:,}건)")
    table = _table("지표", "이전", "지금", "판정", "차이의 95% 구간")
    for name, change in comparison.changes.items():
        table.add_row(
            naming.metric_name(name),
            naming.figure(name, change.before),
            naming.figure(name, change.now),
            naming.VERDICTS[change.verdict],
            naming.span(name, change.interval, signed=True),
        )
    console.print(table)


def _print_misses(console: Console, measured: Measured, most: int) -> None:
    found = misses(measured.kind, measured.judged)
    shown = min(most, len(found))
    _say(console, f"\n{measured.file} · 잘못된 {len(found):,}건 가운데 {shown:,}건, 가장 나쁜 것부터")
    for number, item in enumerate(found[:most], start=1):
        lines = [f"{number:3}. {item.line.query} ({item.line.id}) → {naming.how_it_went(item)}"]
        lines += [f"     정답: {title}" for title in item.gold]
        lines += [f"     찾은 것 {place}: {title}" for place, title in enumerate(item.top, start=1)]
        _say(console, "\n".join(lines))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _table(first: str, *others: str) -> Table:
    table = Table()
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
