r"""Answers as the page's Markdown: characters that would be taken for markup are escaped, [1] becomes a link. Pure.

Chainlit's reader knows GitHub's Markdown and directives: "1~2일, 3~4일" would be struck through and ":주의" lost.
"""

import re

# What is escaped of an FAQ's text, which is plain but for its lists, and of a model's, which may write bold or tables
# but no links or pictures: they could lead anywhere.
FAQ_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~:!$])")
MODEL_MARKUP = re.compile(r"([\\\[\]<~:!$])")
CITATION = re.compile(r"\\?\[(\d{1,2})\\?\]")


def escaped(text: str, *, of_model: bool) -> str:
    """Return a piece of an answer for the page; pieces may be cut anywhere, for no character depends on another."""
    return (MODEL_MARKUP if of_model else FAQ_MARKUP).sub(r"\\\1", text)


def linked(text: str, *, of_model: bool, sources: int) -> str:
    """Return a whole answer for the page, its citations of the first `sources` FAQs as links to their cards."""

    def link(found: re.Match[str]) -> str:
        number = int(found[1])
        return f"[[{number}]](#source-{number})" if 1 <= number <= sources else found[0]

    return CITATION.sub(link, escaped(text, of_model=of_model))
