"""Words in common: BM25 over terms, and the character n-grams that find what typos and missing blanks hide. Pure."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

NOT_LETTERS = re.compile(r"[^0-9a-z가-힣]")
GRAM_SIZES = (2, 3)


def grams(text: str, sizes: Sequence[int] = GRAM_SIZES) -> list[str]:
    """Return the character n-grams of a text, blanks and punctuation left out, lower case."""
    letters = NOT_LETTERS.sub("", text.lower())
    return [letters[start : start + size] for size in sizes for start in range(len(letters) - size + 1)]


class Bm25:
    """BM25 (Robertson & Zaragoza 2009, equation 3.15, with an idf that is never negative) over documents in memory."""

    def __init__(self, documents: Iterable[Sequence[str]], *, k1: float, b: float) -> None:
        """Index the documents, each a sequence of terms; a document is named by its place from 0."""
        counts = [Counter(document) for document in documents]
        lengths = np.array([sum(count.values()) for count in counts], dtype=np.float32)
        norms = k1 * (1 - b + b * lengths / max(float(lengths.mean()) if len(lengths) else 1.0, 1.0))
        places: dict[str, list[int]] = defaultdict(list)
        frequencies: dict[str, list[int]] = defaultdict(list)
        for place, count in enumerate(counts):
            for term, frequency in count.items():
                places[term].append(place)
                frequencies[term].append(frequency)
        self._size = len(counts)
        self._postings: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for term, held in places.items():
            at = np.array(held, dtype=np.int32)
            frequency_of = np.array(frequencies[term], dtype=np.float32)
            saturated = frequency_of * (k1 + 1) / (frequency_of + norms[at])
            self._postings[term] = (at, self.idf(len(held)) * saturated)

    def idf(self, holding: int) -> float:
        """Return the weight of a term that so many documents hold."""
        return math.log(1 + (self._size - holding + 0.5) / (holding + 0.5))

    def scores(self, terms: Iterable[str]) -> np.ndarray:
        """Return the score of every document, (n,) float32, 0 for one that shares no term."""
        scores = np.zeros(self._size, dtype=np.float32)
        for term in terms:
            if term in self._postings:
                places, weights = self._postings[term]
                scores[places] += weights
        return scores

    def ideal(self, terms: Iterable[str]) -> float:
        """Return about what a document of average length that equals the terms would score, at least 1.

        Terms that no document holds count too, so a score over it says how much of a question was found.
        """
        total = sum(self.idf(len(self._postings[term][0]) if term in self._postings else 0) for term in terms)
        return max(total, 1.0)
