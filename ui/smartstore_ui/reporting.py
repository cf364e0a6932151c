"""The evaluation as one HTML page that needs nothing else: Plotly's script is in it, and it may request nothing."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from importlib import resources
from itertools import count
from string import Template

import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from smartstore_ui import naming
from smartstore_ui.charts import hits_by_group, precision_recall, rank_distribution
from smartstore_ui.rivals import Rivals, rivalries
from smartstore_workflows.comparing import Comparison
from smartstore_workflows.curves import Curve, not_finding, refusing
from smartstore_workflows.evaluation import Judged
from smartstore_workflows.misses import misses
from smartstore_workflows.results import Evaluation, Measured

TITLE = "스마트스토어 FAQ 챗봇 품질 보고서"
MOST_MISSES = 100  # of a set: a page that still opens at once on a phone
RANKED = ("queries", "multiturn")


def page(evaluation: Evaluation, comparisons: Sequence[Comparison]) -> str:
    """Return the whole page."""
    plots = _Plots()
    compared = {(comparison.file, comparison.kind, comparison.model): comparison for comparison in comparisons}
    sections = (
        _section(found, compared.get((found.file, found.kind, found.model)), plots) for found in evaluation.sets
    )
    body = [_head(evaluation), *map(_rivals, rivalries(evaluation.sets)), *sections]
    if curve := _finding_curve(evaluation):
        body.append(_finding(curve, plots))
    template = Template(resources.files("smartstore_ui").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(TITLE), plotly=get_plotlyjs(), body="\n".join(body))


class _Plots:
    """Turns figures into HTML, each with an id of its own."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def html(self, figure: go.Figure, described: str) -> str:
        plot = to_html(
            figure,
            full_html=False,
            include_plotlyjs=False,
            div_id=f"plot-{next(self._numbers)}",
            config={"displayModeBar": False, "responsive": True},
        )
        return f'<div class="plot" role="img" aria-label="{escape(described)}">{plot}</div>'


def _head(evaluation: Evaluation) -> str:
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return (
        f"<h1>{escape(TITLE)}</h1>"
        f'<p class="soft">색인: FAQ {evaluation.faqs:,}건 (버전 {escape(evaluation.version)}) · {made}에 만듦</p>'
    )


def _rivals(rivals: Rivals) -> str:
    first = escape(rivals.models[0])
    return (
        f"<section><h2>모델 비교: {escape(rivals.file)}</h2>"
        f'<p class="soft">{rivals.n:,}건. ▲와 ▼는 {first}보다 뚜렷이(차이의 95% 구간이 모두 한쪽일 때) 좋거나 나쁜 '
        "것입니다. 시간은 이 컴퓨터에서 한 건씩 차례로 잰 것입니다.</p>"
        f"{_table(['지표', *rivals.models], rivals.rows())}</section>"
    )


def _section(measured: Measured, comparison: Comparison | None, plots: _Plots) -> str:
    parts = [
        f"<h2>{escape(naming.set_name(measured))}</h2>",
        f'<p class="soft">{naming.SETS[measured.kind]} {len(measured.judged):,}건</p>',
        _metrics(measured),
    ]
    if comparison:
        parts += [f"<h3>이전 결과와 비교 (id가 같은 {comparison.n:,}건)</h3>", _comparison(comparison)]
    if measured.groups:
        parts += ["<h3>구분별 결과</h3>", _groups(measured)]
    if measured.kind in RANKED:
        if measured.groups:
            parts.append(plots.html(hits_by_group(measured), "구분별 hit@1, hit@3, hit@10 막대그래프"))
        parts += ["<h3>정답 FAQ의 순위</h3>", plots.html(rank_distribution(measured.judged), "정답 순위의 분포")]
    if measured.kind == "scope" and (curve := refusing(measured.judged)):
        parts += [
            "<h3>거절의 정밀도와 재현율</h3>",
            f'<p class="soft">범위 밖 질문({curve.positives:,}건)을 거절하는 것이 맞힌 것입니다.</p>',
            plots.html(precision_recall(curve), "거절의 정밀도-재현율 곡선"),
        ]
    return f"<section>{''.join([*parts, _misses(measured)])}</section>"


def _finding_curve(evaluation: Evaluation) -> Curve | None:
    """Return the curve over all queries and unanswerable sets; None unless both are there."""
    answerable, unanswerable = (
        [item for measured in evaluation.sets if measured.kind == kind for item in measured.judged]
        for kind in ("queries", "unanswerable")
    )
    return not_finding(answerable, unanswerable)


def _finding(curve: Curve, plots: _Plots) -> str:
    return (
        "<section><h2>‘찾지 못함’의 정밀도와 재현율</h2>"
        f'<p class="soft">답이 없는 질문({curve.positives:,}건)을 찾지 못했다고 하는 것이 맞힌 것입니다. '
        f"답이 있는 질문은 {curve.negatives:,}건이며, 거절한 질문은 세지 않았습니다.</p>"
        f"{plots.html(precision_recall(curve), '찾지 못함의 정밀도-재현율 곡선')}</section>"
    )


def _metrics(measured: Measured) -> str:
    folded = measured.cross_validated
    rows = (
        [
            naming.metric_name(name),
            naming.figure(name, figure),
            naming.span(name, measured.intervals[name]),
            *([naming.figure(name, folded[name])] if folded else []),
        ]
        for name, figure in measured.metrics.items()
    )
    answers = ([naming.metric_name(name), naming.figure(name, found), ""] for name, found in measured.answers.items())
    return _table(["지표", "값", "95% 구간", *(["교차 검증"] if folded else [])], [*rows, *answers])


def _groups(measured: Measured) -> str:
    names = list(measured.metrics)
    rows = (
        [
            naming.group_name(measured.kind, group),
            f"{found.n:,}",
            *(naming.figure(name, found.metrics.get(name)) for name in names),
        ]
        for group, found in measured.groups.items()
    )
    return _table(["구분", "건수", *map(naming.metric_name, names)], rows)


def _comparison(comparison: Comparison) -> str:
    rows = []
    for name, change in comparison.changes.items():
        before = _cells([naming.metric_name(name), naming.figure(name, change.before), naming.figure(name, change.now)])
        verdict = f'<td class="{change.verdict}">{naming.VERDICTS[change.verdict]}</td>'
        rows.append(before + verdict + _cells([naming.span(name, change.interval, signed=True)]))
    return _framed(["지표", "이전", "지금", "판정", "차이의 95% 구간"], rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return _framed(heads, (_cells(row) for row in rows))


def _cells(row: Sequence[str]) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in row)


def _framed(heads: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _misses(measured: Measured) -> str:
    found = misses(measured.kind, measured.judged)
    if not found:
        return "<h3>잘못된 질문</h3><p>없습니다.</p>"
    shown = f", 그 가운데 {MOST_MISSES}건" if len(found) > MOST_MISSES else ""
    items = "".join(_miss(item) for item in found[:MOST_MISSES])
    return f'<h3>잘못된 질문 {len(found):,}건{shown} (가장 나쁜 것부터)</h3><ol class="misses">{items}</ol>'


def _miss(item: Judged) -> str:
    rows = [("결과", naming.how_it_went(item))]
    rows += [("정답", title) for title in item.gold]
    rows += [(f"찾은 것 {place}", title) for place, title in enumerate(item.top, start=1)]
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    query, line_id = escape(item.line.query), escape(item.line.id)
    return f'<li><span class="query">{query}</span> <span class="soft">{line_id}</span><dl>{listed}</dl></li>'
