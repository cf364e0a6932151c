"""Whether two texts differ in typing mistakes only. Pure.

A mistype differs in a letter or two (jamo), and leaves a sentence that Kiwi finds far less probable than the right one;
a word put for another of its shape, 켜 for 끄, leaves one as probable.
"""

import unicodedata
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from smartstore_indexing.korean import Reading

MOST_SYLLABLES = 2  # of one mistake
MOST_JAMO, MOST_JAMO_OF_TWO = 2, 3  # wrong in a mistake of one syllable, of two
MOST_LETTERS = 200  # comparing takes time with the square of them
SYLLABLES_TO_A_JAMO = 5  # of the text, for each wrong jamo beyond the first
# How many times e more probable a sentence must be without a mistake: of this project's own pairs those that differ in
# a real word of like shape reach 2.8, mistakes are from 4.6 on.
LEAST_GAIN = 4.0
# One of these put for another, left out or put in makes a word of another meaning, not a mistyped one.
FLIPS = frozenset(
    "안못비미불무부재주전후중없있상하내외신구대소남여유켜끄꺼넣빼한두세네일이삼사오육칠팔구십백천만억년월달초분시"
)


def mistyped(one: str, other: str, read: Callable[[str], Reading]) -> bool:
    """Tell whether mistakes are all in which two texts differ, blanks and punctuation apart."""
    tried = mistakes(one, other)
    if not tried:
        return False
    likely = read(one).likelihood
    return all(abs(likely - read(text).likelihood) >= LEAST_GAIN for text in tried)


def mistakes(one: str, other: str) -> list[str]:
    """Return the one text with each single difference of the other in it; none when they are too many or too large."""
    places, letters = _letters(one)
    _, others = _letters(other)
    if max(len(letters), len(others)) > MOST_LETTERS:
        return []
    found, wrong = [], 0
    for kind, start, end, other_start, other_end in SequenceMatcher(None, letters, others, False).get_opcodes():
        if kind == "equal":
            continue
        instead = others[other_start:other_end]
        if not _is_mistake(letters[start:end], instead):
            return []
        wrong += distance(_jamo(letters[start:end]), _jamo(instead))
        first = places[start] if start < len(places) else len(one)
        last = places[end - 1] + 1 if end > start else first
        found.append(one[:first] + instead + one[last:])
    return found if wrong <= 1 + len(letters) // SYLLABLES_TO_A_JAMO else []


def near(one: str, other: str) -> bool:
    """Tell whether a word may be the other mistyped: one jamo apart, two for words of four syllables and more."""
    return distance(_jamo(one), _jamo(other)) <= (1 if min(len(one), len(other)) < 4 else 2)


def distance(one: Sequence[object], other: Sequence[object]) -> int:
    """Return how many insertions, deletions and substitutions lead from the one to the other (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for number, item in enumerate(one, start=1):
        before, row[0] = row[0], number
        for place, wanted in enumerate(other, start=1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (item != wanted))
    return row[-1]


def _is_mistake(here: str, instead: str) -> bool:
    syllables = max(len(here), len(instead))
    if syllables > MOST_SYLLABLES or any(letter.isdecimal() for letter in here + instead):
        return False
    most = MOST_JAMO if syllables == 1 else MOST_JAMO_OF_TWO
    return not FLIPS.issuperset(here + instead) and distance(_jamo(here), _jamo(instead)) <= most


def _letters(text: str) -> tuple[list[int], str]:
    """Return the places of the letters and digits in a text, and the letters, lower case."""
    found = [(place, letter.lower()[0]) for place, letter in enumerate(text) if letter.isalnum()]
    return [place for place, _ in found], "".join(letter for _, letter in found)


def _jamo(text: str) -> str:
    return unicodedata.normalize("NFD", text)
