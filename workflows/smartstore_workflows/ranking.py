"""Rank the FAQs. Pure: scores in, places out.

Each source of evidence is a named feature. The score is linear in them, and its weights stand in ranking.json, fitted
by fitting.py.
"""

import json
from dataclasses import dataclass
from importlib import resources

import numpy as np

COPIES = 10  # of an answer; where an FAQ has more, the list is shorter
RANKED = 30  # passages that go on to the answer and its suggestions; events that carry more cost milliseconds
COSINE_STEP = 0.05  # a difference that tells FAQs apart
# More were tried and left out, since labelled queries rank no better with them: both cosines beside the better of them,
# BM25 of the title alone, n-grams of the title alone, shares of the question's terms found, reciprocal ranks.
FEATURES = ("cosine", "terms", "grams")


@dataclass(frozen=True, slots=True)
class RankingModel:
    """The weights (3,) of the FEATURES; a softmax over all FAQs makes their scores probabilities."""

    weights: np.ndarray

    @classmethod
    def shipped(cls) -> "RankingModel":
        """Return the model of ranking.json."""
        text = resources.files("smartstore_workflows").joinpath("ranking.json").read_text(encoding="utf-8")
        stored = json.loads(text)["weights"]
        return cls(np.array([stored[name] for name in FEATURES], dtype=np.float32))

    def rank(self, features: np.ndarray, answers: np.ndarray) -> tuple[list[int], list[float]]:
        """Return the places of the best RANKED rows of features (n, k), best first, and their probabilities.

        Of FAQs whose answers are equal, which have the same number in `answers` (n,), only the best is among them.
        """
        scores = features @ self.weights
        odds = np.exp(scores - scores.max())
        best = distinct(scores, answers, RANKED)
        return best, (odds[best] / odds.sum()).tolist()


def distinct(scores: np.ndarray, kinds: np.ndarray, most: int) -> list[int]:
    """Return at most `most` places of scores (n,), best first, no two of the same kind (n,)."""
    order = np.argsort(-scores, kind="stable")[: most * COPIES]
    first = np.unique(kinds[order], return_index=True)[1]
    found: list[int] = order[np.sort(first)[:most]].tolist()
    return found


def features_of(*, titles: np.ndarray, answers: np.ndarray, terms: np.ndarray, grams: np.ndarray) -> np.ndarray:
    """Return the features (n, 3) float32 of n FAQs from their two cosines and two BM25 scores, each (n,).

    They compare within one question: the better cosine in COSINE_STEPs below the best, BM25 scores as shares of it.
    """
    cosines = np.maximum(titles, answers)
    lexical = (scores / max(scores.max(), 1e-9) for scores in (terms, grams))
    return np.column_stack([(cosines - cosines.max()) / COSINE_STEP, *lexical]).astype(np.float32)
