"""The part of an FAQ's answer that answers the question, for when no model writes one. Pure: text in, text out."""

import re

from smartstore_workflows.lexical import grams

EXTRACT_CHARACTERS = 590  # with its citation mark an extract stays within 600
NEW_GRAMS = 4  # a word of three syllables that the start lacks has two 2-grams and one 3-gram, and mostly a particle
SENTENCE = re.compile(r"(?<=[.!?])\s+")
HEADING = re.compile(r"[■□▶▷☞●].{0,40}|\[[^\]]{2,40}\]|.{1,40}(?:방법|기준|절차|안내|조건|순서|예시)")


def extract(answer: str, question: str, limit: int = EXTRACT_CHARACTERS) -> str:
    """Return the lines of a Markdown answer that fit a question, in their order, at most `limit` characters.

    An answer that fits is returned whole. Of a longer one comes its start, which mostly answers at once; where a later
    block holds clearly more of the question's words, its first block, that block and what follows it come instead, and
    what room is left goes to the blocks after the first. Only whole lines or sentences are taken, or where even the
    first sentence is too long its first words and "…".
    """
    if len(answer) <= limit:
        return answer
    blocks = _blocks(answer)
    start = _run(blocks, range(len(blocks)), limit)
    wanted = set(grams(question)) - set(grams(_joined(start)))
    held = [len(wanted.intersection(grams(block))) for block in blocks]
    best = max(range(len(blocks)), key=held.__getitem__)
    taken = _around(blocks, best, limit) if best and held[best] >= NEW_GRAMS else start
    return _joined(taken or start) or _first_words(answer, limit)


def _around(blocks: list[str], best: int, limit: int) -> dict[int, str]:
    """Return the first block, the best, what follows that, then what follows the first; {} if the best is too long."""
    first = _run(blocks, range(1), limit // 2)
    later = _run(blocks, range(best, len(blocks)), limit - _size(first))
    between = _run(blocks, range(1, best), limit - _size(first) - _size(later))
    return {**first, **between, **later} if later else {}


def _run(blocks: list[str], places: range, room: int) -> dict[int, str]:
    """Return, by their places, as many of the blocks one after the other as fit, the last one in part."""
    taken: dict[int, str] = {}
    for place in places:
        piece = _fitting(blocks[place], room - _size(taken))
        if piece.strip():
            taken[place] = piece
        if len(piece) < len(blocks[place]):
            break
    while taken and _heads_nothing(taken[max(taken)]):
        del taken[max(taken)]
    return taken


def _size(taken: dict[int, str]) -> int:
    return sum(len(text) + 2 for text in taken.values())


def _joined(taken: dict[int, str]) -> str:
    return "\n\n".join(taken[place] for place in sorted(taken))


def _first_words(answer: str, limit: int) -> str:
    start = answer.strip()[: limit - 1]
    return (start[: start.rfind(" ")] if " " in start else start).rstrip() + "…"


def pieces(text: str) -> list[str]:
    """Return a text as the pieces that are streamed, word by word; joined they are the text."""
    return re.findall(r"\S+\s*|\s+", text)


def plain(text: str, limit: int) -> str:
    """Return the start of a Markdown text on one line, at most `limit` characters, "…" where it was cut."""
    line = " ".join(re.sub(r"(?m)^(?:- |> |#+ )", "", text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _blocks(answer: str) -> list[str]:
    """Return the answer's paragraphs and lists; a heading stays with what it heads."""
    blocks: list[str] = []
    for block in answer.split("\n\n"):
        last_line = blocks[-1].rsplit("\n", 1)[-1] if blocks else ""
        if blocks and _heads_nothing(last_line):
            blocks[-1] += "\n\n" + block
        else:
            blocks.append(block)
    return blocks


def _fitting(block: str, room: int) -> str:
    """Return the block if it fits, else its first lines or sentences that do."""
    if len(block) <= room:
        return block
    separator = "\n" if "\n" in block else " "
    units = block.split("\n") if "\n" in block else SENTENCE.split(block)
    fitting: list[str] = []
    for unit in units:
        if len(separator.join([*fitting, unit])) > room:
            break
        fitting.append(unit)
    while fitting and (not fitting[-1].strip() or _heads_nothing(fitting[-1])):
        fitting.pop()
    return separator.join(fitting).strip()


def _heads_nothing(text: str) -> bool:
    """Tell whether a text is only the heading of what comes after it."""
    return len(text) < 60 and bool(
        HEADING.fullmatch(text) or text.rstrip().endswith((":", "※ 참고.", "※참고.", "잠깐!"))
    )
