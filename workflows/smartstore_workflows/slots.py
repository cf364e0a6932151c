"""What a question asks, taken apart: its words, and the slots that flip its answer. Pure: Kiwi's morphemes in.

Two questions that differ in a slot have different answers however near their vectors are: in what is negated, in a
number, in what is asked for (when, who, how much, why), in what comes before or after what. Opposites, seller types,
services, products and objects are words, of which alignment.py wants each met by its equal.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from smartstore_indexing.korean import Morpheme
from smartstore_workflows.numerals import number_at

FEW = 2  # words, of which 무엇인가요 asks what they mean
EMPTY = "empty"  # the words of lexicon.txt that say how a question is put, not what it asks
NOUNS = frozenset(
    {"NNG", "NNP", "XR", "SL", "SH", "NR", "SN", "W_SERIAL", "W_URL", "W_EMAIL", "W_MENTION", "W_HASHTAG"}
)
SIGHS = re.compile("[ㄱ-ㆎ]")  # ㅠㅠ, ㅋㅋ
PREDICATES = frozenset({"VV", "VA"})
SUFFIXES = frozenset({"XSN"})
PARTICLES = frozenset({"JKS", "JKC", "JKG", "JKO", "JKB", "JKV", "JKQ", "JX", "JC"})
ENDINGS = frozenset({"EP", "EC", "ETN", "ETM"})
# Said with one of ENTREATIES after them, these are how it is put, too: 문의드립니다, 답변 부탁드려요.
ENTREATED = frozenset({"문의", "질문", "답변", "확인", "도움", "조언", "연락"})
ENTREATIES = frozenset({"드리", "부탁", "바라"})
NOT_BEFORE = frozenset({"안", "못"})
NOT_AFTER = frozenset({"않", "못하", "말"})
NOT_NOUNS = frozenset({"불가", "불가능", "금지", "불허", "없", "없이"})
NOT_PREFIXES = frozenset({"비", "미", "불", "무", "부"})
ORDERS = {
    **dict.fromkeys(("전", "이전", "직전", "앞"), "전"),
    **dict.fromkeys(("후", "이후", "직후", "뒤", "다음"), "후"),
    **dict.fromkeys(("중", "도중", "가운데"), "중"),
}
ASKED = {
    **{"언제": "언제", "누구": "누구", "왜": "왜", "이유": "왜", "까닭": "왜"},
    **dict.fromkeys(("얼마", "얼마나", "며칠", "몇", "기간"), "얼마"),
}
OPEN = frozenset(
    {"어떻게", "어떻", "어떡하", "어떡", "무엇", "뭐", "무어", "어디", "어느", "어떤", "무슨", "방법", "법", "절차"}
)
WHAT = frozenset({"무엇", "뭐", "무어"})
# Particles that say what part a noun plays; the others leave it open.
PARTS = {
    **dict.fromkeys(("이", "가", "께서"), "가"),
    **dict.fromkeys(("을", "를"), "를"),
    **dict.fromkeys(("에게", "한테", "께", "더러"), "에게"),
    **dict.fromkeys(("에게서", "한테서", "에서", "으로부터", "로부터"), "에서"),
    **dict.fromkeys(("로", "으로"), "로"),
}


@dataclass(frozen=True, slots=True)
class Word:
    """A content word: told by the first of its equals, as it is written, and with the particle or ending after it."""

    form: str
    written: str
    after: str
    known: bool


@dataclass(slots=True)
class Meaning:
    """What a question asks: its content words in their order, what must be equal, and the part that each noun plays."""

    words: list[Word] = field(default_factory=list)
    slots: set[str] = field(default_factory=set)
    parts: dict[str, set[str]] = field(default_factory=dict)


def meaning(morphemes: Sequence[Morpheme]) -> Meaning:
    """Return what a question asks, from its morphemes."""
    return _Reader(morphemes).read()


class _Reader:
    """Walks along the morphemes once."""

    def __init__(self, morphemes: Sequence[Morpheme]) -> None:
        self._morphemes = morphemes
        self._found = Meaning()
        self._numbers: list[str] = []
        self._negated = 0  # negations that wait for what they negate
        self._must = False
        self._asks = self._asks_one = self._what = False  # anything, for one of ASKED, what something is

    def read(self) -> Meaning:
        at = 0
        while at < len(self._morphemes):
            at = self._number(at) or self._word(at)
        self._settle()
        if self._numbers:  # in their order: 3 of this and 2 of that is not 2 of this and 3 of that
            self._found.slots.add(f"수:{','.join(self._numbers)}")
        if self._must and not self._asks:  # 어떻게 해야 하나요 asks no more than 어떻게 하나요
            self._found.slots.add("해야")
        if self._what and not self._asks_one and len(self._found.words) <= FEW:
            self._found.slots.add("뜻")
        return self._found

    def _number(self, at: int) -> int | None:
        number = number_at(self._morphemes, at)
        if number is None:
            return None
        said, end = number
        if said == "1회" and self._form(end) == "에":  # 한 번에
            self._add("일괄", end, known=True)
        else:
            self._numbers.append(said)
        return end

    def _word(self, at: int) -> int:
        here = self._morphemes[at]
        form, tag = here.form, here.tag
        self._asked(form, tag)
        if (tag == "MAG" and form in NOT_BEFORE) or (tag == "XPN" and form in NOT_PREFIXES):
            self._negated += 1
        elif form in NOT_NOUNS or tag == "VCN" or (form in NOT_AFTER and tag in {"VX", "VV"} and self._after_ji(at)):
            self._negated += 1
            self._settle()
        elif tag in {"NNG", "NNB"} and form in ORDERS and self._found.words:
            self._found.slots.add(f"{ORDERS[form]}:{self._last()}")
        elif tag == "JX" and form == "만" and self._tag(at - 1) not in ENDINGS:
            self._found.slots.add("만")
        elif tag in NOUNS or (tag == "SW" and form.isalpha() and not SIGHS.match(form)):  # a script unknown to Kiwi
            return self._noun(at)
        elif tag in PREDICATES:
            self._add(form, at + 1, known=here.known)
            self._settle()
        elif tag in {"XSV", "XSA"}:
            self._settle()
        elif tag in {"MAG", "MM", "XPN", "NP"}:
            self._add(form, at + 1, known=True)
        elif tag == "EC" and form.endswith(("어야", "아야", "여야")):
            self._must = True
        return at + 1

    def _noun(self, at: int) -> int:
        form, known, end = self._morphemes[at].form, self._morphemes[at].known, at + 1
        if form in ENTREATED and self._form(end) in ENTREATIES:
            return end
        while self._tag(end) in SUFFIXES and self._form(end) != "들":
            form, end = form + self._form(end), end + 1
        self._add(form, end, known=known)
        if self._tag(end) not in NOUNS or self._tag(at - 1) == "XPN":
            self._settle()
        part = PARTS.get(self._form(end)) if self._tag(end) in PARTICLES else None
        if part and form not in lexicon(EMPTY):
            self._found.parts.setdefault(canonical(form)[-1], set()).add(part)
        return end

    def _asked(self, form: str, tag: str) -> None:
        if form in ASKED and tag in {"NP", "MAG", "MM", "NNG"}:
            self._found.slots.add(f"물음:{ASKED[form]}")
            self._asks = self._asks_one = True
        self._asks = self._asks or form in OPEN
        self._what = self._what or (form in WHAT and tag == "NP")

    def _add(self, form: str, end: int, *, known: bool) -> None:
        words = [word for word in canonical(form) if word not in lexicon(EMPTY)]
        for word in words:
            written = form if len(words) == 1 else word
            self._found.words.append(Word(word, written, self._after(end), known))

    def _after(self, end: int) -> str:
        while self._tag(end) in {"XSV", "XSA", "XSN", "VCP"}:
            end += 1
        if self._tag(end) not in PARTICLES | ENDINGS:
            return ""
        return PARTS.get(self._form(end), self._form(end))

    def _settle(self) -> None:
        for _ in range(self._negated):
            self._found.slots.add(f"아님:{self._last()}")
        self._negated = 0

    def _after_ji(self, at: int) -> bool:
        return self._tag(at - 1) in {"EC", "JX", "JKO"}

    def _last(self) -> str:
        return self._found.words[-1].form if self._found.words else ""

    def _form(self, at: int) -> str:
        return self._morphemes[at].form if 0 <= at < len(self._morphemes) else ""

    def _tag(self, at: int) -> str:
        return self._morphemes[at].tag if 0 <= at < len(self._morphemes) else ""


def canonical(form: str) -> tuple[str, ...]:
    """Return the words that a morpheme's equals are told by, itself where it has none."""
    return _equivalents().get(form, (form,))


@cache
def lexicon(name: str) -> frozenset[str]:
    """Return the words that lexicon.txt lists under a name."""
    lines = (line.partition(":") for line in _lines("lexicon.txt"))
    return frozenset(word for named, _, words in lines if named == name for word in words.split())


@cache
def _equivalents() -> dict[str, tuple[str, ...]]:
    groups = (line.split() for line in _lines("equivalents.txt"))
    return {word: tuple(first.split("+")) for first, *others in groups for word in others}


def _lines(name: str) -> list[str]:
    text = resources.files("smartstore_workflows").joinpath(name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
