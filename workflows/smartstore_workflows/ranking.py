"""Rank the FAQs. Pure: scores in, places out.

Each source of evidence is a named feature. The score is linear in them, and its weights stand in ranking.json, fitted
by fitting.py.
"""

import json
from dataclasses import dataclass
from importlib import resources

import numpy as np

RANKED = 30  # passages that go on to the answer and its suggestions; events that carry more cost milliseconds
COSINE_STEP = 0.02  # e5's cosines crowd between .78 and .92: a difference of .02 tells FAQs apart
# More were tried and left out, since the labelled development queries rank no better with them: the better of both
# cosines, BM25 of the title alone, n-grams of the title alone, shares of the question's terms found, reciprocal ranks.
FEATURES = ("title_cosine", "answer_cosine", "terms", "grams")


@dataclass(frozen=True, slots=True)
class RankingModel:
    """The weights (4,) of the FEATURES; a softmax over all FAQs makes their scores probabilities."""

    weights: np.ndarray

    @classmethod
    def shipped(cls) -> "RankingModel":
        """Return the model of ranking.json."""
        text = resources.files("smartstore_workflows").joinpath("ranking.json").read_text(encoding="utf-8")
        stored = json.loads(text)["weights"]
        return cls(np.array([stored[name] for name in FEATURES], dtype=np.float32))

    def rank(self, features: np.ndarray) -> tuple[list[int], list[float]]:
        """Return the places of the best RANKED rows of features (n, 4), best first, and their probabilities."""
        scores = features @ self.weights
        odds = np.exp(scores - scores.max())
        best = np.argsort(-scores, kind="stable")[:RANKED]
        shares = odds[best] / odds.sum()
        return best.tolist(), shares.tolist()


def features_of(*, titles: np.ndarray, answers: np.ndarray, terms: np.ndarray, grams: np.ndarray) -> np.ndarray:
    """Return the features (n, 4) float32 of n FAQs from their two cosines and two BM25 scores, each (n,).

    They compare within one question: cosines are COSINE_STEPs below the best, BM25 scores shares of the best.
    """
    top = max(titles.max(), answers.max())
    cosines = ((titles - top) / COSINE_STEP, (answers - top) / COSINE_STEP)
    lexical = (scores / max(scores.max(), 1e-9) for scores in (terms, grams))
    return np.column_stack([*cosines, *lexical]).astype(np.float32)
