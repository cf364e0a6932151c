"""How well answers were given: what they cite and claim, how long they are and take, and what they cost. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smartstore_workflows.events import ANSWERED, AnswerWritten, Usage

QUESTIONS = 1_000  # that a price is told for
TOKENS_OF_A_PRICE = 1_000_000
Price = tuple[float, float]  # US dollars for a million tokens read, and written
FREE = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """One answer: `right_citations` are those of a gold FAQ, None where the line names none; times are in seconds."""

    answered: bool
    characters: int
    citations: int
    right_citations: int | None
    unsupported: tuple[str, ...]
    degraded: bool
    first_token: float
    whole: float
    usage: Usage


def given_answer(
    written: AnswerWritten, right: frozenset[str] | None, *, first_token: float, whole: float
) -> GivenAnswer:
    """Return what counts of an answer; `right` are the ids of the FAQs that it should cite, None where unknown."""
    return GivenAnswer(
        answered=written.kind == ANSWERED,
        characters=len(written.text),
        citations=len(written.citations),
        right_citations=None if right is None else len(right.intersection(written.citations)),
        unsupported=written.unsupported,
        degraded=written.degraded,
        first_token=first_token,
        whole=whole,
        usage=written.usage,
    )


def answer_scores(given: Sequence[GivenAnswer]) -> dict[str, np.ndarray]:
    """Return for each share the scores, 0 to 1, of all lines in their order; NaN where a line does not count.

    `supported`: the answer cites an FAQ, and all numbers, dates, amounts, periods and menus in it stand in those that
    it cites. `citation_precision`: the share of its citations that are right, 0 where it cites none. `degraded`:
    another than the model that was asked answered, because it failed.
    """
    return {
        "supported": np.array([_if(answer.answered, _supported(answer)) for answer in given]),
        "citation_precision": np.array(
            [_if(answer.answered and answer.right_citations is not None, _precision(answer)) for answer in given]
        ),
        "degraded": np.array([_if(answer.answered, float(answer.degraded)) for answer in given]),
    }


def answer_figures(given: Sequence[GivenAnswer], price: Price | None) -> dict[str, float]:
    """Return the figures of what was given: the means of answer_scores, and of the answers that were given:

    their number, mean length (`characters`), median and 95th percentile of the seconds to the first token and in all;
    and what 1,000 such questions cost, in US dollars, the refused among them, where the server counted the tokens and
    their price is known: None. A figure that no line counts for is left out.
    """
    figures = {
        name: float(np.nanmean(found))
        for name, found in answer_scores(given).items()
        if len(found) and not np.isnan(found).all()
    }
    answers = [answer for answer in given if answer.answered]
    if answers:
        figures["characters"] = float(np.mean([answer.characters for answer in answers]))
        for name, seconds in (
            ("first_token", [answer.first_token for answer in answers]),
            ("whole", [answer.whole for answer in answers]),
        ):
            figures[f"{name}_p50"], figures[f"{name}_p95"] = map(float, np.percentile(seconds, (50, 95)))
    counted = price == FREE or any(answer.usage != Usage() for answer in given)
    if given and price is not None and counted:
        figures["price"] = float(np.mean([_dollars(answer.usage, price) for answer in given])) * QUESTIONS
    return {"answered": float(len(answers)), **figures}


def _supported(answer: GivenAnswer) -> float:
    return float(answer.citations > 0 and not answer.unsupported)


def _precision(answer: GivenAnswer) -> float:
    return (answer.right_citations or 0) / max(1, answer.citations)


def _if(counts: bool, score: float) -> float:
    return score if counts else float("nan")


def _dollars(usage: Usage, price: Price) -> float:
    read, written = price
    return (usage.prompt_tokens * read + usage.completion_tokens * written) / TOKENS_OF_A_PRICE
