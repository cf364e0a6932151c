"""Tell whether a question leans on the one before it. Pure.

A logistic model over two vectors: the question's own, which shows whether it is complete in itself, and how far the
question before it moves it. Its weights stand in follow_ups.json; fitting.py fits them.
"""

import json
from dataclasses import dataclass
from importlib import resources

import numpy as np

from smartstore_workflows.classifying import Logistic

# In log odds. A follow-up that is searched alone is lost; a new topic that is searched with the old one is not, since
# the encoder was trained to tell, and a stranger's stays out of scope: so what is doubtful leans.
LEAST = -1.8


@dataclass(frozen=True, slots=True)
class FollowUpModel:
    """The weights (768,) of `follow_up_features`."""

    model: Logistic

    @classmethod
    def shipped(cls) -> "FollowUpModel":
        """Return the model of follow_ups.json."""
        text = resources.files("smartstore_workflows").joinpath("follow_ups.json").read_text(encoding="utf-8")
        return cls(Logistic.of(json.loads(text)["leans"]))

    def leans(self, alone: np.ndarray, within: np.ndarray) -> bool:
        """Tell whether a question leans, from its vector (384,) alone and joined to the question before it."""
        return self.model.log_odds(follow_up_features(alone, within)) >= LEAST


def follow_up_features(alone: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Return the features (768,) that tell whether a question leans."""
    return np.concatenate([alone, within - alone])
