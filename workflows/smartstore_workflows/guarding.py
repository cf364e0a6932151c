"""Keeps what only the model is to see out of its answer: its rules, and the fences around the FAQs and the question.

Texts are compared by their letters and digits alone, so that blanks, marks and line breaks between them hide nothing.
"""

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cache, lru_cache
from typing import NamedTuple

from smartstore_indexing.errors import ModelUnavailable
from smartstore_workflows.events import Usage
from smartstore_workflows.prompting import FENCE, HIDDEN, NARROW, prompts, rules

# Letters and digits in a row, of one line of the rules: two more than the sentence that the rules tell the model to
# say when the FAQs do not answer. No answer of the help centre holds such a stretch.
STRETCH = 18
EVERYDAY = 6  # letters from the middle of a rule that wait: fewer are a word of every other answer
FENCES = frozenset({"<faq", "<question", "<history"})
NUMBERING = "0123456789. "
WITHHELD = "모델의 답변에 보여 드릴 수 없는 글이 섞여 FAQ에서 답을 찾아 드립니다."


class Withheld(NamedTuple):
    """What is not shown, as letters; `openings` are the beginnings of whole lines and of fences."""

    whole: frozenset[str]
    beginnings: frozenset[str]
    openings: frozenset[str]


class Guard:
    """Reads one answer as it is written, and lets through what surely is no rule and no fence."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        self._match = ""  # the last letters read, as far as they may begin what is withheld
        self._waiting: deque[str] = deque()  # for each of them its text and the marks after it, "" when it was shown

    def let_through(self, piece: str) -> str:
        """Return what may be shown now; the rest waits for what follows it.

        Raises:
            ModelUnavailable: the answer repeats its rules or a fence.
        """
        free = [freed for character in piece for freed in self._read(character)]
        if len(self._match) < EVERYDAY and self._match not in withheld().openings:
            free += self._waiting
            self._waiting = deque([""] * len(self._match))
        return "".join(free)

    def rest(self) -> str:
        """Return what still waits when the answer has ended."""
        return "".join(self._waiting)

    def _read(self, character: str) -> list[str]:
        """Take one character, and return the texts that need wait no longer."""
        letter = _letter(character)
        if not letter and not self._waiting:
            return [character]
        if not letter:
            self._waiting[-1] += character
            return []
        self._match += letter
        self._waiting.append(character)
        free = []
        while self._match not in withheld().beginnings:
            self._match = self._match[1:]
            free.append(self._waiting.popleft())
        if self._match in withheld().whole:
            raise ModelUnavailable(WITHHELD)
        return free


async def guarded(pieces: AsyncGenerator[str | Usage, None]) -> AsyncGenerator[str | Usage, None]:
    """Yield the pieces of an answer; a Usage goes through. Text that may begin what is withheld waits.

    Raises:
        ModelUnavailable: the answer repeats its rules or a fence; at most five letters of that were yielded, and of
            a rule from its beginning, or of a fence, nothing.
    """
    guard = Guard()
    async with aclosing(pieces):
        async for piece in pieces:
            shown = guard.let_through(piece) if isinstance(piece, str) else piece
            if shown:
                yield shown
    if rest := guard.rest():
        yield rest


@cache
def withheld() -> Withheld:
    """Return every stretch of all rules, and the fences."""
    parts = (part for prompt in prompts() for part in FENCE.split(rules(prompt)))  # a fence is known by itself
    lines = ["".join(map(_letter, line.lstrip(NUMBERING))) for part in parts for line in part.splitlines()]
    stretches = {line[at : at + STRETCH] for line in lines for at in range(len(line) - STRETCH + 1)}
    opening = {line[:STRETCH] for line in lines if len(line) >= STRETCH}
    return Withheld(FENCES | stretches, _beginnings(FENCES | stretches), _beginnings(FENCES | opening))


def _beginnings(texts: set[str] | frozenset[str]) -> frozenset[str]:
    return frozenset({text[:length] for text in texts for length in range(len(text) + 1)})


@lru_cache(maxsize=4096)
def _letter(character: str) -> str:
    """Return the small, narrow form of a letter, a digit or a "<", and nothing for any other character."""
    narrow = character.translate(NARROW).casefold()
    counts = narrow == "<" or (narrow.isalnum() and not HIDDEN.match(narrow))
    return narrow if counts and len(narrow) == 1 else ""
