"""What is learned from labelled questions: the ranking's weights, and where the two thresholds lie. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FOLDS = 5
STEPS, STEP_SIZE, PENALTY = 300, 0.1, 0.02
CONTENDERS = 100  # FAQs that are best by each feature: the softmax over them is that over all, to three digits
# The share of answerable questions that the found threshold may turn down. At .056 it would tell .70 of the
# unanswerable development lines instead of .675, and lose another .012 of the answers from the first three.
WRONGLY_NOT_FOUND = 0.04


@dataclass(frozen=True, slots=True)
class RankedQuestion:
    """One labelled question: the features (n, k) of all FAQs, which of them are gold (n,), and its first gold row."""

    features: np.ndarray
    gold: np.ndarray
    row: int

    def contenders(self) -> "RankedQuestion":
        """Return the question with only the FAQs that may come first: the gold ones and the best by each feature."""
        best = np.argsort(-self.features, axis=0)[:CONTENDERS].ravel()
        kept = np.unique(np.append(best, np.flatnonzero(self.gold)))
        return RankedQuestion(self.features[kept], self.gold[kept], self.row)


def fit_ranking(questions: Sequence[RankedQuestion]) -> np.ndarray:
    """Return the weights (k,) of greatest softmax likelihood of the gold FAQs (ListNet, Cao et al. 2007)."""
    trained = [question.contenders() for question in questions]
    weights = np.zeros(trained[0].features.shape[1])
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, STEPS + 1):
        gradient = PENALTY * weights
        for question in trained:
            scores = question.features @ weights
            odds = np.exp(scores - scores.max())
            probability = odds / odds.sum()
            target = probability * question.gold
            gradient = gradient + question.features.T @ (probability - target / target.sum()) / len(trained)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2  # Adam, Kingma & Ba 2015
        weights = weights - STEP_SIZE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return weights


def scope_threshold(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return the threshold for which the shares of questions inside (n,) kept and outside (m,) refused sum highest.

    Of several that give the same, it is the middle one.
    """
    both = np.unique(np.concatenate([inside, outside, [0.0, 1.0]]))
    between = (both[:-1] + both[1:]) / 2
    shares = [(inside >= at).mean() + (outside < at).mean() for at in between]
    best = between[np.isclose(shares, max(shares))]
    return float(best[len(best) // 2])


def found_threshold(answerable: np.ndarray) -> float:
    """Return the probability below which at most WRONGLY_NOT_FOUND of the answerable questions (n,) lie."""
    return float(np.quantile(answerable, WRONGLY_NOT_FOUND, method="lower"))
