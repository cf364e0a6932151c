"""From a question out of scope to what a seller may have meant: everyday nouns to words of the FAQ. Pure."""

from collections.abc import Iterable
from functools import cache
from importlib import resources


@cache
def bridges() -> dict[str, list[str]]:
    """Return the FAQ's words by everyday noun, from bridges.txt; a noun that leads nowhere has none."""
    text = resources.files("smartstore_workflows").joinpath("bridges.txt").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            nouns, _, words = line.partition(">")
            found |= {noun: words.split() for noun in nouns.split()}
    return found


def bridge_terms(nouns: Iterable[str]) -> list[str]:
    """Return the words to look FAQs up by: those that the question's nouns lead to, else its own telling nouns."""
    asked = list(nouns)
    led_to = [word for noun in asked for word in bridges().get(noun, [])]
    return list(dict.fromkeys(led_to)) or [noun for noun in asked if noun not in bridges()]
