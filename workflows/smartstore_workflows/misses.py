"""Which lines went wrong, the worst first. Pure."""

from collections.abc import Callable, Sequence

from smartstore_workflows.evaluation import Judged, Pair, SetKind

SHOWN = 3  # FAQs under an answer: a gold FAQ further down is not seen
SEVERITY = {"answered": 0, "refused": 1, "not_found": 2}  # a wrong answer misleads, a refusal ends the talk


def misses(kind: SetKind, judged: Sequence[Judged]) -> list[Judged]:
    """Return the lines that went wrong, worst first.

    Of questions with an answer: those whose gold FAQ is not among the first three, not listed at all before far down.
    Of the others: those with the wrong outcome. Among equals, the ones that the workflow was surest of come first.
    """
    wrong, severity = RULES[kind]
    return sorted((item for item in judged if wrong(item)), key=severity)


def _ranked_wrong(item: Judged) -> bool:
    return not 0 < item.hit_rank <= SHOWN


def _ranked_severity(item: Judged) -> tuple[float, ...]:
    return (item.hit_rank > 0, -item.hit_rank, *_sureness(item))


def _scope_wrong(item: Judged) -> bool:
    return item.line.label is not None and (item.line.label == "out") != (item.kind == "refused")


def _unanswerable_wrong(item: Judged) -> bool:
    return item.kind != "not_found"


def _sureness(item: Judged) -> tuple[float, ...]:
    sure = {"answered": item.found, "refused": 1 - item.in_scope, "not_found": 1 - item.found}[item.kind]
    return (SEVERITY[item.kind], -sure)


def _scope_severity(item: Judged) -> tuple[float, ...]:
    # A real question turned away comes before a stranger let in.
    return (0, item.in_scope) if item.kind == "refused" else (1, -item.in_scope)


def _pair_wrong(item: Judged) -> bool:
    return isinstance(item.line, Pair) and item.cached != item.line.same


def _pair_severity(item: Judged) -> tuple[float, ...]:
    return (not item.cached,)  # a wrong answer comes before one that was written anew


Wrong = Callable[[Judged], bool]
Severity = Callable[[Judged], tuple[float, ...]]
RULES: dict[SetKind, tuple[Wrong, Severity]] = {
    "queries": (_ranked_wrong, _ranked_severity),
    "multiturn": (_ranked_wrong, _ranked_severity),
    "scope": (_scope_wrong, _scope_severity),
    "unanswerable": (_unanswerable_wrong, _sureness),
    "cache_pairs": (_pair_wrong, _pair_severity),
}
