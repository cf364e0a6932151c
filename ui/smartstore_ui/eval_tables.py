"""The evaluation as tables in a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from smartstore_ui import naming
from smartstore_ui.rivals import Rivals, rivalries
from smartstore_workflows.comparing import Comparison
from smartstore_workflows.misses import misses
from smartstore_workflows.results import Evaluation, Measured


def print_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Print the index and every set; where several models were asked, side by side."""
    console.print(f"색인: FAQ {evaluation.faqs:,}건 (버전 {evaluation.version})")
    rivalry = rivalries(evaluation.sets)
    for rivals in rivalry:
        _print_rivals(console, rivals)
    for measured in [] if rivalry else evaluation.sets:
        _print_measured(console, measured)


def print_comparisons(console: Console, evaluation: Evaluation, comparisons: Sequence[Comparison]) -> None:
    """Print how the sets changed, and which had no earlier result."""
    for comparison in comparisons:
        _print_comparison(console, comparison)
    compared = {(comparison.file, comparison.model) for comparison in comparisons}
    for measured in evaluation.sets:
        if (measured.file, measured.model) not in compared:
            _say(console, f"{naming.set_name(measured)}: 비교할 이전 결과가 없습니다.")


def _print_measured(console: Console, measured: Measured) -> None:
    _say(console, f"\n{naming.set_name(measured)} · {naming.SETS[measured.kind]} {len(measured.judged):,}건")
    folded = measured.cross_validated
    table = _table("지표", "값", "95% 구간", *(["교차 검증"] if folded else []))
    for name, figure in measured.metrics.items():
        beside = [naming.figure(name, folded[name])] if folded else []
        table.add_row(
            naming.metric_name(name), naming.figure(name, figure), naming.span(name, measured.intervals[name]), *beside
        )
    for name, figure in measured.answers.items():
        table.add_row(naming.metric_name(name), naming.figure(name, figure), "")
    console.print(table)
    if measured.groups:
        names = list(measured.metrics)
        table = _table("구분", "건수", *(naming.metric_name(name) for name in names))
        for group, found in measured.groups.items():
            figures = (naming.figure(name, found.metrics.get(name)) for name in names)
            table.add_row(escape(naming.group_name(measured.kind, group)), f"{found.n:,}", *figures)
        console.print(table)


def _print_rivals(console: Console, rivals: Rivals) -> None:
    _say(console, f"\n{rivals.file} · 모델 비교 ({rivals.n:,}건, ▲▼는 {rivals.models[0]}보다 뚜렷이 좋거나 나쁨)")
    table = _table("지표", *map(escape, rivals.models))
    for row in rivals.rows():
        table.add_row(*row)
    console.print(table)


def _print_comparison(console: Console, comparison: Comparison) -> None:
    _say(console, f"\n{naming.set_name(comparison)} · 이전 결과와 비교 (id가 같은 {comparison.n:,}건)")
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


def print_misses(console: Console, measured: Measured, most: int) -> None:
    """Print the lines that went wrong, at most so many."""
    found = misses(measured.kind, measured.judged)
    shown = min(most, len(found))
    _say(console, f"\n{naming.set_name(measured)} · 잘못된 {len(found):,}건 가운데 {shown:,}건, 가장 나쁜 것부터")
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
