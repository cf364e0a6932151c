"""Tables of words that ship as text: a word, ">", and the words it leads to. Pure."""

from collections.abc import Iterable
from functools import cache
from importlib import resources


@cache
def synonyms() -> dict[str, list[str]]:
    """Return the FAQ's words by a seller's everyday word."""
    return _table("synonyms.txt")


@cache
def bridges() -> dict[str, list[str]]:
    """Return the FAQ's words by a noun of questions out of scope; a noun that leads nowhere has none."""
    return _table("bridges.txt")


def expansions(terms: Iterable[str]) -> list[str]:
    """Return the words that the terms' synonyms add to them, each once."""
    asked = dict.fromkeys(terms)
    return list(dict.fromkeys(word for term in asked for word in synonyms().get(term, ()) if word not in asked))


def bridge_terms(nouns: Iterable[str]) -> list[str]:
    """Return the words to look FAQs up by: those that the question's nouns lead to, else its own telling nouns."""
    asked = list(nouns)
    led_to = [word for noun in asked for word in bridges().get(noun, ())]
    return list(dict.fromkeys(led_to)) or [noun for noun in asked if noun not in bridges()]


def _table(name: str) -> dict[str, list[str]]:
    """Return a file's words by each of the words before its ">"."""
    text = resources.files("smartstore_workflows").joinpath(name).read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            words, _, leads_to = line.partition(">")
            found |= {word.lower(): leads_to.lower().split() for word in words.split()}
    return found
