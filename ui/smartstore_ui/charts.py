"""The plots of the evaluation's report, as Plotly figures. Labels are escaped: Plotly reads tags in them."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from smartstore_ui.naming import OUTCOMES, group_name
from smartstore_workflows.curves import Curve
from smartstore_workflows.evaluation import Judged
from smartstore_workflows.results import Measured

FONT = '"Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans KR", "NanumGothic", sans-serif'
HITS = {"hit@1": "#0a7d53", "hit@3": "#5bb98f", "hit@10": "#bfe3d1"}
LINE, MARK = "#0a7d53", "#b3261e"
RANKS = [("1위", 1, 1), ("2위", 2, 2), ("3위", 3, 3), ("4~10위", 4, 10), ("11위 밖", 11, 10**9)]
HEIGHT = 340
ROW_HEIGHT = 58  # of a group: three bars and the space between groups


def hits_by_group(measured: Measured) -> go.Figure:
    """Return the hit@k of each group, as bars side by side."""
    names = [f"{escape(group_name(measured.kind, group))} ({found.n:,})" for group, found in measured.groups.items()]
    bars = [
        go.Bar(
            name=metric,
            y=names,
            x=[group.metrics[metric] for group in measured.groups.values()],
            orientation="h",
            marker_color=color,
            hovertemplate="%{y} " + metric + " %{x:.3f}<extra></extra>",
        )
        for metric, color in HITS.items()
    ]
    figure = _figure(bars, height=max(HEIGHT, 110 + ROW_HEIGHT * len(names)))
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(autorange="reversed", type="category", automargin=True)
    return figure


def rank_distribution(judged: Sequence[Judged]) -> go.Figure:
    """Return how many lines have their gold FAQ at which rank, and how many had none or were not answered."""
    answered = [item.rank for item in judged if item.kind == "answered"]
    counts = {name: sum(low <= rank <= high for rank in answered) for name, low, high in RANKS}
    counts["목록에 없음"] = answered.count(0)
    for kind in ("refused", "not_found"):
        counts[OUTCOMES[kind]] = sum(item.kind == kind for item in judged)
    seen = len(RANKS[:3])
    bars = go.Bar(
        y=list(counts),
        x=list(counts.values()),
        orientation="h",
        text=[f"{count:,}" for count in counts.values()],
        textposition="outside",
        cliponaxis=False,
        marker_color=[LINE] * seen + ["#c9a227"] * (len(RANKS) - seen) + [MARK] * (len(counts) - len(RANKS)),
        hovertemplate="%{y} %{x}건<extra></extra>",
    )
    figure = _figure([bars], height=HEIGHT)
    figure.update_xaxes(title_text="건수", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", type="category", automargin=True)
    return figure


def precision_recall(curve: Curve) -> go.Figure:
    """Return precision over recall, with the point at which the workflow works."""
    line = go.Scatter(
        name=f"문턱값을 바꿀 때 (평균 정밀도 {curve.average:.3f})",
        x=curve.recall,
        y=curve.precision,
        mode="lines+markers",
        line={"color": LINE, "shape": "hv"},
        marker={"size": 4},
        hovertemplate="재현율 %{x:.3f}, 정밀도 %{y:.3f}<extra></extra>",
    )
    base = go.Scatter(
        name="가리지 못할 때",
        x=[0, 1],
        y=[curve.positives / (curve.positives + curve.negatives)] * 2,
        mode="lines",
        line={"color": "#98a2b0", "dash": "dot"},
        hoverinfo="skip",
    )
    traces = [line, base]
    if curve.precision_now is not None:
        traces.append(
            go.Scatter(
                name=f"지금 (재현율 {curve.recall_now:.3f}, 정밀도 {curve.precision_now:.3f})",
                x=[curve.recall_now],
                y=[curve.precision_now],
                mode="markers",
                marker={"size": 14, "symbol": "diamond", "color": MARK},
                cliponaxis=False,
                hovertemplate="지금: 재현율 %{x:.3f}, 정밀도 %{y:.3f}<extra></extra>",
            )
        )
    figure = _figure(traces, height=HEIGHT + 60)
    figure.update_xaxes(title_text="재현율", range=[0, 1.02])
    figure.update_yaxes(title_text="정밀도", range=[0, 1.02])
    return figure


def _figure(traces: Sequence[object], *, height: int) -> go.Figure:
    figure = go.Figure(traces)
    figure.update_layout(
        height=height,
        font={"family": FONT, "size": 13, "color": "#1d2430"},
        margin={"l": 50, "r": 40, "t": 16, "b": 40},
        plot_bgcolor="#fff",
        paper_bgcolor="#fff",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
    )
    figure.update_xaxes(gridcolor="#e8ecf0", linecolor="#c5ccd5", fixedrange=True)
    figure.update_yaxes(gridcolor="#e8ecf0", linecolor="#c5ccd5", fixedrange=True)
    return figure
