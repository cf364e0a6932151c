"""Judge whether a question is one that a SmartStore seller asks, and whether what was found answers it. Pure.

Two small logistic models with the weights of scope.json, which says how they were fitted. The first sees the question's
vector alone and runs beside the search; the second adds what the search found. Both are for one embedding model.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from smartstore_workflows.events import Evidence, Kind


@dataclass(frozen=True, slots=True)
class Logistic:
    """A logistic model: weights (n,) and a bias, over features as they come."""

    weights: np.ndarray
    bias: float

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Logistic":
        """Return the model that scope.json holds under one name."""
        return cls(np.asarray(stored["weights"], dtype=np.float32), float(stored["bias"]))

    def log_odds(self, features: np.ndarray) -> float:
        """Return the log odds for features (n,)."""
        return float(features @ self.weights) + self.bias


@dataclass(frozen=True, slots=True)
class Judgement:
    """How to answer a question, and the probabilities, 0 to 1, that it is in scope and that an FAQ answers it."""

    kind: Kind
    in_scope: float
    found: float


@dataclass(frozen=True, slots=True)
class ScopeModel:
    """The three judgements and their thresholds, as probabilities."""

    text: Logistic
    scope: Logistic
    found: Logistic
    least_scope: float
    least_found: float

    @classmethod
    def shipped(cls) -> "ScopeModel":
        """Return the model of scope.json."""
        stored = json.loads(resources.files("smartstore_workflows").joinpath("scope.json").read_text(encoding="utf-8"))
        return cls(
            text=Logistic.of(stored["text"]),
            scope=Logistic.of(stored["scope"]),
            found=Logistic.of(stored["found"]),
            least_scope=stored["least_scope"],
            least_found=stored["least_found"],
        )

    def text_odds(self, vector: np.ndarray) -> float:
        """Return the log odds, from its vector (384,) alone, that a question is in scope."""
        return self.text.log_odds(vector)

    def judge(self, text_odds: float, evidence: Evidence) -> Judgement:
        """Return how the question is to be answered, given both steps' findings."""
        features = evidence_features(evidence)
        in_scope = _probability(self.scope.log_odds(np.append(features, text_odds)))
        found = _probability(self.found.log_odds(features))
        kind: Kind = "answered" if found >= self.least_found else "not_found"
        return Judgement(kind if in_scope >= self.least_scope else "refused", in_scope, found)


def evidence_features(evidence: Evidence) -> np.ndarray:
    """Return the evidence as features, in the order of its fields."""
    return np.array([getattr(evidence, name) for name in Evidence.model_fields], dtype=np.float32)


def _probability(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, log_odds))))
