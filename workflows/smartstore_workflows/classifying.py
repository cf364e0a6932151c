"""Small trained classifiers over vectors, read from files that ship. Pure but for the reading."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np


@dataclass(frozen=True, slots=True)
class Logistic:
    """A logistic model: weights (n,) and a bias, over features as they come."""

    weights: np.ndarray
    bias: float

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """Return the model that a JSON file holds under one name."""
        return cls(np.asarray(stored["weights"], dtype=np.float32), float(stored["bias"]))

    def log_odds(self, features: np.ndarray) -> float:
        """Return the log odds for features (n,)."""
        return float(features @ self.weights) + self.bias


@dataclass(frozen=True)
class KernelMachine:
    """A support vector machine with a Gaussian kernel (Cortes & Vapnik 1995) over standardized vectors.

    `support` (m, n) are its support vectors, standardized by `mean` and `scale` (n,); `weights` (m,) are signed.
    """

    support: np.ndarray
    weights: np.ndarray
    bias: float
    mean: np.ndarray
    scale: np.ndarray
    gamma: float

    @classmethod
    def of(cls, stored: Mapping[str, np.ndarray], name: str) -> Self:
        """Return the machine that an npz file holds under a name, as `arrays` gave it."""

        def array(field: str) -> np.ndarray:
            found: np.ndarray = stored[f"{name}_{field}"].astype(np.float32)
            return found

        return cls(
            support=array("support"),
            weights=array("weights"),
            bias=float(array("bias")),
            mean=array("mean"),
            scale=array("scale"),
            gamma=float(array("gamma")),
        )

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return what an npz file holds of the machine; half precision for the support vectors."""
        held = {f"{name}_{field}": np.asarray(getattr(self, field)) for field in self.__dataclass_fields__}
        held[f"{name}_support"] = self.support.astype(np.float16)
        return held

    def margin(self, vector: np.ndarray) -> float:
        """Return on which side of the boundary a vector (n,) lies: above 0 the positive one, +-1 at its margins."""
        standard = (vector - self.mean) / self.scale
        apart = self._norms - 2 * (self.support @ standard) + standard @ standard  # squared distances
        return float(np.exp(-self.gamma * apart) @ self.weights) + self.bias

    @cached_property
    def _norms(self) -> np.ndarray:
        norms: np.ndarray = np.einsum("ij,ij->i", self.support, self.support)
        return norms
