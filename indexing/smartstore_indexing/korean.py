"""Korean text as search terms: Kiwi morphemes, with the field's own nouns, for BM25."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

from kiwipiepy import Kiwi, Token

# Kiwi's tags that carry meaning: nouns, verb and adjective stems, roots, adverbs, foreign words, numbers, Hanja.
CONTENT_TAGS = frozenset({"NNG", "NNP", "NR", "VV", "VA", "XR", "MAG", "SL", "SN", "SH", "W_SERIAL"})
NOUN_TAGS = frozenset({"NNG", "NNP"})
MAX_CHARACTERS = 4_000  # twice the longest question


@dataclass(frozen=True, slots=True)
class Morpheme:
    """One morpheme: its form in lower case, its tag without a suffix, and whether Kiwi's dictionary holds it."""

    form: str
    tag: str
    known: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as Kiwi reads it, and the natural logarithm of its probability: broken Korean is improbable."""

    morphemes: tuple[Morpheme, ...]
    likelihood: float


class Morphemes:
    """Kiwi with this field's dictionary, loaded at the first use (1.6 s, 300 MB)."""

    def __init__(self) -> None:
        """Load nothing yet."""
        self._loading = threading.Lock()

    @cached_property
    def _kiwi(self) -> Kiwi:
        # Of its dictionary of names of several words, which takes 2 s more, an FAQ has but "네이버 쇼핑".
        kiwi = Kiwi(num_workers=-1, load_multi_dict=False)
        for noun in field_nouns():
            kiwi.add_user_word(noun, "NNP")
        return kiwi

    def load(self) -> None:
        """Load Kiwi now; any other call would."""
        self._loaded().tokenize("준비")

    def nouns(self, text: str) -> list[str]:
        """Return the nouns of a text in their order."""
        tokens = self._loaded().tokenize(text[:MAX_CHARACTERS])
        return list(dict.fromkeys(token.form for token in tokens if token.tag in NOUN_TAGS))

    def terms(self, text: str) -> list[str]:
        """Return the content morphemes of a text in their order, lower case."""
        return list(_terms(self._loaded().tokenize(text[:MAX_CHARACTERS])))

    def joined(self, texts: Iterable[str]) -> list[str]:
        """Return the content morphemes of each text joined by blanks, tokenized by all cores."""
        tokenized = self._loaded().tokenize([text[:MAX_CHARACTERS] for text in texts])
        return [" ".join(_terms(tokens)) for tokens in tokenized]

    def read(self, text: str) -> Reading:
        """Return all morphemes of a text, particles and endings too."""
        tokens, likelihood = self._loaded().analyze(text[:MAX_CHARACTERS])[0]
        found = (Morpheme(token.form.lower(), token.tag.partition("-")[0], not token.oov) for token in tokens)
        return Reading(tuple(found), likelihood)

    def _loaded(self) -> Kiwi:
        with self._loading:
            return self._kiwi


def _terms(tokens: Iterable[Token]) -> Iterator[str]:
    return (token.form.lower() for token in tokens if token.tag in CONTENT_TAGS)


def field_nouns() -> list[str]:
    """Return the nouns that Kiwi would cut apart, one a line in field_nouns.txt."""
    text = resources.files("smartstore_indexing").joinpath("field_nouns.txt").read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line and not line.startswith("#")]
