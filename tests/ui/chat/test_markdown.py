import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartstore_ui.chat.markdown import escaped, linked

MARKUP = "\\`*_{}[]<>#|~:!$ 가1\n"


def unescaped(markdown: str) -> str:
    """Read what Markdown makes of backslashes before punctuation."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown)


@given(st.text(MARKUP), st.booleans())
def test_escaped_text_reads_as_it_was(text: str, of_model: bool) -> None:
    assert unescaped(escaped(text, of_model=of_model)) == text


@given(st.lists(st.text(MARKUP)), st.booleans())
def test_pieces_are_escaped_as_the_whole(pieces: list[str], of_model: bool) -> None:
    whole = escaped("".join(pieces), of_model=of_model)
    assert "".join(escaped(piece, of_model=of_model) for piece in pieces) == whole


@pytest.mark.parametrize("of_model", [True, False], ids=["model", "faq"])
def test_citations_of_shown_sources_become_links_and_others_stay_text(of_model: bool) -> None:
    shown = linked("됩니다 [1][2]. [3] [0] [100]", of_model=of_model, sources=2)
    assert shown == r"됩니다 [[1]](#source-1)[[2]](#source-2). \[3\] \[0\] \[100\]"


def test_models_bold_stays_and_its_links_pictures_and_html_do_not() -> None:
    shown = escaped("**굵게** [여기](https://a.example) ![x](y) <b> 1~2일 :주의", of_model=True)
    assert shown == r"**굵게** \[여기\](https\://a.example) \!\[x\](y) \<b> 1\~2일 \:주의"
