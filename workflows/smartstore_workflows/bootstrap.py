"""How far a mean would move had other lines been drawn: percentile bootstrap intervals. Pure and repeatable."""

import numpy as np

RESAMPLES = 2_000
LEVEL = 95.0  # per cent
SEED = 2026  # fixed, so that the same lines have the same interval
EXACT_DIGITS = 12  # what sums to 0 on paper is 0, and not 5e-18 on one side of it

Interval = tuple[float, float]


def interval(scores: np.ndarray) -> Interval:
    """Return the 95 % interval of the mean of scores (n,), n at least 1, from 2,000 resamples of the lines.

    Paired when the scores are differences of the same lines. Lines of several classes that are each measured by
    themselves are resampled within their class by giving one class at a time.
    """
    random = np.random.default_rng(SEED)
    means = [scores[random.integers(len(scores), size=len(scores))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return round(float(low), EXACT_DIGITS), round(float(high), EXACT_DIGITS)
