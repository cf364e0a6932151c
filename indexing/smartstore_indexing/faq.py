"""What an FAQ is: one question of the help centre, its answer, and how they are named."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NewType

FaqId = NewType("FaqId", str)

ID_DIGITS = 16  # 64 bits: at 1,000,000 FAQs the chance of any collision is below 1 in 30,000,000


@dataclass(frozen=True, slots=True)
class RawFAQ:
    """One row of a source file, as it stands there.

    `row` is its position in the file, from 0; it survives duplicates, so that a labelled set can name rows.
    """

    row: int
    category: str
    question: str
    answer: str
    keyword: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FAQ:
    """One cleaned FAQ.

    `id` names the original question and never changes while the question stands; `version` names the cleaned content.
    `title` is the original question on one line, its [tags] included; `question` is it without them. `answer` is
    Markdown. `related` holds the titles of the FAQs that the help centre links to.
    """

    id: FaqId
    version: str
    row: int
    categories: tuple[str, ...]
    title: str
    question: str
    answer: str
    related: tuple[str, ...]

    @property
    def category(self) -> str:
        """Return the categories as one line for a reader, "" when there is none."""
        return " · ".join(self.categories)


def digest(*parts: str) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the parts, each ended by a NUL."""
    joined = "".join(f"{part}\0" for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:ID_DIGITS]


def faq_id(original_question: str) -> FaqId:
    """Return the id of the FAQ that asks this question, spelled as in its source."""
    return FaqId(digest(original_question))


class Catalog:
    """All FAQs of one index version, looked up by id or by title; immutable."""

    def __init__(self, faqs: Iterable[FAQ]) -> None:
        """Hold the FAQs in the order given."""
        self._by_id = {faq.id: faq for faq in faqs}
        self._ids = list(self._by_id)
        self._by_title = {faq.title: faq for faq in self._by_id.values()}

    @property
    def ids(self) -> list[FaqId]:
        """Return the ids in the FAQs' order."""
        return self._ids

    def __len__(self) -> int:
        """Return the number of FAQs."""
        return len(self._by_id)

    def __iter__(self) -> Iterator[FAQ]:
        """Iterate over the FAQs in their order."""
        return iter(self._by_id.values())

    def get(self, faq_id: str) -> FAQ | None:
        """Return the FAQ of this id, or None."""
        return self._by_id.get(FaqId(faq_id))

    def __getitem__(self, faq_id: FaqId) -> FAQ:
        """Return the FAQ of this id; KeyError when there is none."""
        return self._by_id[faq_id]

    def related(self, faq: FAQ) -> Sequence[FAQ]:
        """Return the FAQs that this one links to, in its order, without links that lead nowhere or to itself."""
        linked = dict.fromkeys(self._by_title.get(title) for title in faq.related)
        return [other for other in linked if other is not None and other.id != faq.id]
