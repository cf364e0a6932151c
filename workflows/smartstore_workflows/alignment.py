"""Whether two questions ask the same: all slots agree, each word of the one has its equal in the other. Pure.

A word's equal is the same morpheme, a synonym of equivalents.txt, the parts of a compound that one writes in one word,
or itself mistyped. Word order is free, but two words in each other's place tell another story: 교환을 반품으로, 반품을
교환으로.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import combinations

from smartstore_indexing.korean import Reading
from smartstore_workflows.mistyping import distance, mistyped, near
from smartstore_workflows.slots import Meaning, Word, lexicon, meaning

Read = Callable[[str], Reading]
Said = tuple[str, str]  # a word or phrase, and the particle or ending after it
MOST_WORDS = 24  # a longer question tells a story, and a story is seldom told twice
PAUSE = re.compile(r"[,;:~…!?]+")  # Kiwi joins the words around a comma that no blank follows
SOFT, PERSONS = "soft", "persons"  # of lexicon.txt
JOINING = frozenset({"와", "과", "랑", "이랑", "하고", "이나", "나"})


def ask_the_same(one: str, other: str, read: Read) -> bool:
    """Tell whether two questions ask the same; `read` is Morphemes.read."""
    one, other = PAUSE.sub(". ", one), PAUSE.sub(". ", other)
    return agree(meaning(read(one).morphemes), meaning(read(other).morphemes)) or mistyped(one, other, read)


def agree(one: Meaning, other: Meaning) -> bool:
    """Tell whether two meanings are the same."""
    if one.slots != other.slots or not 0 < max(len(one.words), len(other.words)) <= MOST_WORDS:
        return False
    return not (unmet(one.words, other.words) or _recast(one, other) or _exchanged(one.words, other.words))


def unmet(one: Sequence[Word], other: Sequence[Word]) -> list[Word]:
    """Return the words that have no equal in the other question, but soft ones where the other has none over."""
    left, right = _lacking(one, other), _lacking(other, one)
    left, right = _decomposed(left, right, other)
    right, left = _decomposed(right, left, one)
    if left and _written(left) == _written(right):
        return []
    for word in list(left):
        meant = [found for found in right if not (word.known and found.known) and near(word.form, found.form)]
        if meant:
            left.remove(word)
            right.remove(meant[0])
    return [*left, *right] if left and right else [word for word in (*left, *right) if word.form not in lexicon(SOFT)]


def _lacking(words: Iterable[Word], others: Iterable[Word]) -> list[Word]:
    held = {word.form for word in others}
    return list({word.form: word for word in words if word.form not in held}.values())


def _decomposed(left: list[Word], right: list[Word], others: Iterable[Word]) -> tuple[list[Word], list[Word]]:
    """Return what is over when compounds on the left meet their parts among the others, and the parts gone."""
    written = {word.written for word in others}
    parts = {word.form: _parts(word.written, written) for word in left}
    used = {part for found in parts.values() for part in found}
    return [word for word in left if not parts[word.form]], [word for word in right if word.written not in used]


def _parts(word: str, written: Collection[str]) -> list[str]:
    if word in written:
        return [word]
    for end in range(1, len(word)):
        if word[:end] in written and (rest := _parts(word[end:], written)):
            return [word[:end], *rest]
    return []


def _written(words: Iterable[Word]) -> str:
    return "".join(word.written for word in words)


def _recast(one: Meaning, other: Meaning) -> bool:
    """Tell whether a noun plays another part: 구매자가 신고하면, 구매자를 신고하면."""
    shared = one.parts.keys() & other.parts.keys()
    return any(_cast(noun, one.parts[noun]) != _cast(noun, other.parts[noun]) for noun in shared)


def _cast(noun: str, parts: Iterable[str]) -> set[str]:
    return {"가" if part == "를" and noun not in lexicon(PERSONS) else part for part in parts}


def _exchanged(one: Sequence[Word], other: Sequence[Word]) -> bool:
    """Tell whether the one is the other with two of its words, or of its phrases, in each other's place."""
    return _one_exchange(_said(one), _said(other)) or _one_exchange(_phrases(one), _phrases(other))


def _one_exchange(one: list[Said], other: list[Said]) -> bool:
    apart = distance(one, other)
    if not 2 <= apart <= 3:  # an exchange changes two places, and one more may differ
        return False
    moved = [place for place, said in enumerate(one) if other[place : place + 1] != [said]]
    for first, second in combinations(moved, 2):
        (word, after), (exchanged_word, exchanged_after) = one[first], one[second]
        if second == first + 1 and (after == exchanged_after or after in JOINING):
            continue  # word order: 어제 직접 보낸, 쿠폰과 포인트
        tried = list(one)
        tried[first], tried[second] = (exchanged_word, after), (word, exchanged_after)
        if distance(tried, other) <= 1:
            return True
    return False


def _said(words: Sequence[Word]) -> list[Said]:
    said = [(word.form, word.after) for word in words]
    return [*said[:-1], (said[-1][0], "")] if said else []  # how the sentence ends is politeness


def _phrases(words: Iterable[Word]) -> list[Said]:
    """Return the words as `_said` does, those joined that stand side by side without a particle between them."""
    phrases: list[Said] = []
    phrase = ""
    for word in words:
        phrase += word.form
        if word.after:
            phrases.append((phrase, word.after))
            phrase = ""
    return [*phrases, (phrase, "")] if phrase else phrases
