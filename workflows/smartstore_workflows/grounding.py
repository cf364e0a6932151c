"""The answer that a model should write from one FAQ: its own words, with the FAQ's number after each sentence. Pure."""

import re

from smartstore_indexing.faq import FAQ
from smartstore_workflows.extracting import extract
from smartstore_workflows.prompting import CITATION, unfenced

# The end of a Korean sentence: "1." begins a step and "※ 참고." a note.
SENTENCE_END = re.compile(r"(?<=[다요죠까오음함됨임][.!?]) +")
LISTED = re.compile(r"- |\d{1,2}[.)] ?\S|\d단계|[①-⑩]")
SENTENCE = re.compile(r"[다요죠까오음함됨임][.!?][)\]’”'\"]*$")
LINK = re.compile(r"[^.]{0,60}바로 ?가기\)?")
LONG_BREAK = re.compile(r"\n{3,}")
HEADING_CHARACTERS = 30  # an unlisted line that is shorter and ends no sentence heads what follows


def grounded(faq: FAQ, question: str, number: int, seen: str) -> str:
    """Return what an FAQ of this number answers a question; "" where nothing of it can be cited.

    All of it stands in `seen`, what the model sees of the FAQ: in a context it may have been cut.
    """
    text = unfenced(faq.answer)
    if CITATION.search(text):
        return ""  # a mark of the FAQ's own would read as a citation
    answer = extract(text, question)
    stands = all(line in seen for line in answer.split("\n"))
    return cited(answer, number) if answer and stands and not answer.endswith("…") else ""


def cited(text: str, number: int) -> str:
    """Return a Markdown text with a citation after each sentence and list item, and at least at its end.

    Links, which lead nowhere in a text, are left out, and so is a heading at the end.
    """
    lines = [_marked(line, f" [{number}]") for line in text.split("\n") if not LINK.fullmatch(line)]
    last = max((place for place, line in enumerate(lines) if CITATION.search(line)), default=-1)
    return LONG_BREAK.sub("\n\n", "\n".join(lines[: last + 1])) or f"{text} [{number}]"


def _marked(line: str, mark: str) -> str:
    if not line.strip() or line.rstrip().endswith(":"):
        return line
    if LISTED.match(line):
        return line + mark
    return " ".join(piece + mark * _says_something(piece) for piece in SENTENCE_END.split(line))


def _says_something(piece: str) -> bool:
    return bool(SENTENCE.search(piece)) or len(piece) >= HEADING_CHARACTERS
