"""The figures of answers, from answers that are written down here."""

import math
from dataclasses import replace

import pytest

from smartstore_workflows.answer_quality import FREE, GivenAnswer, answer_figures, answer_scores, given_answer
from smartstore_workflows.comparing import against
from smartstore_workflows.evaluation import Judged, LabelledSet, Line
from smartstore_workflows.events import AnswerWritten, Asked, Usage
from smartstore_workflows.results import Measured, measure

GOOD = GivenAnswer(
    answered=True,
    characters=100,
    citations=2,
    right_citations=1,
    unsupported=(),
    degraded=False,
    first_token=0.5,
    whole=1.0,
    usage=Usage(prompt_tokens=1_000, completion_tokens=200),
)
REFUSED = replace(GOOD, answered=False, citations=0, right_citations=0, usage=Usage())
PRICE = (0.4, 1.6)


def measured(*given: GivenAnswer, model: str = "a") -> Measured:
    lines = [Line(id=str(number), query="질문", gold=[0]) for number in range(len(given))]
    judged = [Judged(line, "answered", 1, given=answer) for line, answer in zip(lines, given, strict=True)]
    return measure(LabelledSet("f", "queries", lines), judged, model=model)


@pytest.mark.parametrize(
    ("answer", "supported"),
    [
        (GOOD, 1.0),
        (replace(GOOD, unsupported=("3일",)), 0.0),
        (replace(GOOD, citations=0, right_citations=0), 0.0),
    ],
)
def test_answer_is_supported_when_it_cites_and_all_that_it_claims_stands_there(
    answer: GivenAnswer, supported: float
) -> None:
    assert answer_scores([answer])["supported"] == [supported]


def test_what_was_not_answered_counts_for_no_share() -> None:
    assert [math.isnan(found[0]) for found in answer_scores([REFUSED]).values()] == [True] * 3
    assert answer_figures([GOOD, REFUSED], FREE)["supported"] == 1.0


def test_citations_are_right_by_the_faqs_that_the_line_names() -> None:
    none_cited = replace(GOOD, citations=0, right_citations=0)
    all_right = replace(GOOD, right_citations=2)
    assert answer_figures([GOOD, none_cited, all_right], FREE)["citation_precision"] == pytest.approx(0.5)
    assert "citation_precision" not in answer_figures([replace(GOOD, right_citations=None)], FREE)


def test_times_and_lengths_are_those_of_answers() -> None:
    slow = replace(GOOD, characters=200, first_token=1.5, whole=3.0)
    figures = answer_figures([GOOD, slow, replace(REFUSED, whole=60.0)], FREE)
    assert (figures["answered"], figures["characters"]) == (2, 150)
    assert (figures["first_token_p50"], figures["whole_p50"]) == (1.0, 2.0)
    assert figures["whole_p95"] == pytest.approx(2.9)


def test_thousand_questions_cost_what_their_tokens_do_the_refused_among_them() -> None:
    # (1,000 x 0.4 + 200 x 1.6) / 1,000,000 = $0.00072 for the answered one, nothing for the other.
    assert answer_figures([GOOD, REFUSED], PRICE)["price"] == pytest.approx(0.36)


def test_price_that_nobody_knows_is_not_told() -> None:
    assert "price" not in answer_figures([GOOD], None)
    assert "price" not in answer_figures([replace(GOOD, usage=Usage())], PRICE)  # the server counted no tokens
    assert answer_figures([replace(GOOD, usage=Usage())], FREE)["price"] == 0.0


def test_answer_is_counted_from_what_was_written() -> None:
    written = AnswerWritten(
        asked=Asked(question="질문", standalone="질문", model="a"),
        kind="answered",
        text="다섯 글자",
        citations=("x", "y"),
        unsupported=("3일",),
        passages=(),
        degraded=True,
        usage=Usage(prompt_tokens=7),
    )
    given = given_answer(written, frozenset({"y", "z"}), first_token=0.1, whole=0.2)
    assert given == GivenAnswer(True, 5, 2, 1, ("3일",), True, 0.1, 0.2, Usage(prompt_tokens=7))


def test_models_are_compared_line_by_line() -> None:
    bad = replace(GOOD, unsupported=("3일",), right_citations=2)
    verdicts = against(measured(*[GOOD] * 20), measured(*[bad] * 20))
    assert (verdicts["supported"], verdicts["citation_precision"], verdicts["degraded"]) == ("loss", "gain", "unclear")
    assert verdicts["hit@1"] == "unclear"


def test_lines_that_one_of_them_did_not_answer_are_left_out_of_the_comparison() -> None:
    first, other = measured(GOOD, REFUSED, GOOD), measured(REFUSED, GOOD, replace(GOOD, degraded=True))
    assert against(first, other)["degraded"] == "loss"
    assert "degraded" not in against(measured(REFUSED), measured(GOOD))
