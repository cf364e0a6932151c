"""The Korean names of what the evaluation measures, for the terminal and the report."""

from smartstore_workflows.bootstrap import Interval
from smartstore_workflows.comparing import Comparison, Verdict
from smartstore_workflows.evaluation import COUNTS, Judged, Pair, SetKind
from smartstore_workflows.events import Kind
from smartstore_workflows.results import Measured

SETS: dict[SetKind, str] = {
    "queries": "검색 질문",
    "multiturn": "이어지는 질문",
    "scope": "범위 판단",
    "unanswerable": "답이 없는 질문",
    "cache_pairs": "답변 재사용",
}
METRICS = {
    "mrr": "MRR",
    "refused": "잘못 거절",
    "not_found": "찾지 못함",
    "out_refused": "범위 밖을 거절",
    "in_kept": "범위 안을 받음",
    "true_hits": "맞게 재사용 (건)",
    "false_hits": "잘못 재사용 (건)",
    "answered": "답한 질문 (건)",
    "supported": "근거가 있는 답",
    "citation_precision": "인용의 정밀도",
    "degraded": "모델이 답하지 못함",
    "characters": "답의 길이 (글자)",
    "first_token_p50": "첫 글자 중앙값 (초)",
    "first_token_p95": "첫 글자 95% (초)",
    "whole_p50": "답 전체 중앙값 (초)",
    "whole_p95": "답 전체 95% (초)",
    "price": "질문 1,000건의 값 (달러)",
}
WHOLE = COUNTS | {"answered", "characters"}  # shown without digits after the point
GROUPS = {"follow_up": "이어진 질문", "switch": "새 주제"}
OUTCOMES: dict[Kind, str] = {"answered": "답변", "refused": "거절", "not_found": "찾지 못함"}
VERDICTS: dict[Verdict, str] = {"loss": "나빠짐", "gain": "좋아짐", "unclear": "뚜렷하지 않음"}
UNMEASURED = "–"


def set_name(found: Measured | Comparison) -> str:
    """Return the name of a set's file, and of the model that was asked."""
    return f"{found.file} · {found.model}" if found.model else found.file


def metric_name(metric: str) -> str:
    """Return a metric's name for a reader."""
    return METRICS.get(metric, metric)


def group_name(kind: SetKind, group: str) -> str:
    """Return a group's name for a reader; but for conversations it is the operator's own word."""
    return GROUPS.get(group, group) if kind == "multiturn" else group


def figure(metric: str, value: float | None) -> str:
    """Return a metric's value, a share with three digits or a whole count, a dash where there is none."""
    return UNMEASURED if value is None else f"{value:.{_digits(metric)}f}"


def span(metric: str, interval: Interval, *, signed: bool = False) -> str:
    """Return a metric's interval as "0.812 ~ 0.904", or "3 ~ 9" where it is a count."""
    sign = "+" if signed else ""
    return " ~ ".join(f"{end:{sign}.{_digits(metric)}f}" for end in interval)


def _digits(metric: str) -> int:
    return 0 if metric in WHOLE else 3


def how_it_went(item: Judged) -> str:
    """Return a line's outcome, and where its gold FAQ stood when it has one."""
    outcome = OUTCOMES[item.kind]
    if isinstance(item.line, Pair):
        reused = "재사용" if item.cached else "새로 답변"
        return f"{outcome} · {reused} · 앞 질문: {item.line.a}"
    if not item.line.gold:
        return outcome
    return f"{outcome} · 정답은 목록의 {item.rank}위" if item.rank else f"{outcome} · 정답이 목록에 없음"
