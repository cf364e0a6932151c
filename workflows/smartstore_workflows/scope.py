"""Judge whether a question is one that a SmartStore seller asks, and whether what was found answers it. Pure.

Two support vector machines see the question's vector alone and run beside the search: one tells sellers' questions from
others, one questions that the FAQ answers from those that it does not. Two logistic models then add what the search
found. All are for one embedding model, which scope.json names; fitting.py fits them.
"""

import json
import math
from dataclasses import dataclass
from importlib import resources

import numpy as np

from smartstore_workflows.classifying import KernelMachine, Logistic
from smartstore_workflows.events import Evidence, Kind, ScopeJudged

# The machine that knows what the FAQ it was trained on lacks may move the cosine by .01 at most. With more say it tells
# more unanswerable questions of that FAQ (.725 instead of .675 of the development lines), fewer of another (.73
# instead of .90 of the lines of the sample), and turns down answerable ones of the other.
ANSWERABLE_WEIGHT, ANSWERABLE_MOST = 0.02, 0.5
# Probabilities of being in scope between which a model may be asked: on the sample 22 of the 80 lines on scope, 12 of
# the 120 questions of sellers, and 8 of the 9 lines on scope that are judged wrongly.
UNCERTAIN = 0.02, 0.8


@dataclass(frozen=True, slots=True)
class Judgement:
    """How to answer a question, and the probabilities, 0 to 1, that it is in scope and that an FAQ answers it."""

    kind: Kind
    in_scope: float
    found: float

    @property
    def uncertain(self) -> bool:
        """Tell whether the question may as well be in scope as not."""
        least, most = UNCERTAIN
        return least <= self.in_scope < most


@dataclass(frozen=True, slots=True)
class ScopeModel:
    """The four judgements, and the two thresholds, as probabilities."""

    text: KernelMachine
    answerable: KernelMachine
    scope: Logistic
    found: Logistic
    least_scope: float
    least_found: float

    @classmethod
    def shipped(cls) -> "ScopeModel":
        """Return the model of scope.json and scope.npz."""
        folder = resources.files("smartstore_workflows")
        stored = json.loads(folder.joinpath("scope.json").read_text(encoding="utf-8"))
        with folder.joinpath("scope.npz").open("rb") as file, np.load(file, allow_pickle=False) as machines:
            text, answerable = (KernelMachine.of(machines, name) for name in ("text", "answerable"))
        return cls(
            text=text,
            answerable=answerable,
            scope=Logistic.of(stored["scope"]),
            found=Logistic.of(stored["found"]),
            least_scope=stored["least_scope"],
            least_found=stored["least_found"],
        )

    def judge_text(self, vector: np.ndarray) -> ScopeJudged:
        """Return what a question's vector (384,) says alone."""
        return ScopeJudged(in_scope=self.text.margin(vector), answerable=self.answerable.margin(vector))

    def judge(self, text: ScopeJudged, evidence: Evidence) -> Judgement:
        """Return how the question is to be answered, given both steps' findings."""
        in_scope = _probability(self.scope.log_odds(scope_features(text, evidence)))
        found = _probability(self.found.log_odds(found_features(text, evidence)))
        return self.decided(in_scope, found, inside=in_scope >= self.least_scope)

    def decided(self, in_scope: float, found: float, *, inside: bool) -> Judgement:
        """Return how a question is to be answered that is in scope or, decided elsewhere, is not."""
        kind: Kind = "answered" if found >= self.least_found else "not_found"
        return Judgement(kind if inside else "refused", in_scope, found)


def scope_features(text: ScopeJudged, evidence: Evidence) -> np.ndarray:
    """Return the features (5,) that tell whether a question is in scope."""
    found = [evidence.best_cosine, evidence.lead, evidence.terms_found, evidence.grams_found]
    return np.array([text.in_scope, *found], dtype=np.float32)


def found_features(text: ScopeJudged, evidence: Evidence) -> np.ndarray:
    """Return the feature (1,) that tells whether an FAQ answers: the best cosine, moved by what the text says.

    More were tried, and tell no better on the development lines: the lead over the next FAQs, the ranking's
    probability, the shares of terms and n-grams found, products of the question's and the FAQ's vectors.
    """
    moved = ANSWERABLE_WEIGHT * min(max(text.answerable, -ANSWERABLE_MOST), ANSWERABLE_MOST)
    return np.array([evidence.best_cosine + moved], dtype=np.float32)


def _probability(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, log_odds))))
