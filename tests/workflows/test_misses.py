from smartstore_workflows.evaluation import Judged, Line
from smartstore_workflows.events import Kind
from smartstore_workflows.misses import misses


def judged(
    name: str, kind: Kind, rank: int = 0, *, label: str | None = None, in_scope: float = 0.5, found: float = 0.5
) -> Judged:
    return Judged(Line(id=name, query="질문", gold=[0], label=label), kind, rank, in_scope=in_scope, found=found)  # type: ignore[arg-type]


def ids(found: list[Judged]) -> list[str]:
    return [item.line.id for item in found]


def test_what_is_not_listed_comes_before_what_stands_far_down() -> None:
    lines = [
        judged("fourth", "answered", 4),
        judged("third", "answered", 3),
        judged("refused", "refused", 1),
        judged("unfound", "not_found", 1),
        judged("wrong", "answered", 0, found=0.7),
        judged("surely wrong", "answered", 0, found=0.9),
        judged("twelfth", "answered", 12),
        judged("first", "answered", 1),
    ]
    assert ids(misses("queries", lines)) == ["surely wrong", "wrong", "refused", "unfound", "twelfth", "fourth"]
    assert misses("multiturn", lines) == misses("queries", lines)


def test_real_question_refused_comes_before_a_stranger_let_in() -> None:
    lines = [
        judged("let in", "answered", label="out", in_scope=0.6),
        judged("surely let in", "not_found", label="out", in_scope=0.9),
        judged("turned away", "refused", label="in", in_scope=0.3),
        judged("surely turned away", "refused", label="in", in_scope=0.1),
        judged("right", "refused", label="out"),
        judged("kept", "not_found", label="in"),
        judged("no label", "refused"),
    ]
    assert ids(misses("scope", lines)) == ["surely turned away", "turned away", "surely let in", "let in"]


def test_unanswerable_that_is_answered_comes_before_one_refused() -> None:
    lines = [
        judged("refused", "refused"),
        judged("answered", "answered", found=0.6),
        judged("surely answered", "answered", found=0.8),
        judged("right", "not_found"),
    ]
    assert ids(misses("unanswerable", lines)) == ["surely answered", "answered", "refused"]
