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
    block holds clearly more of the question's words, its first block, that block and what follows it come instead.
    Only whole lines or sentences are taken.
    """
    if len(answer) <= limit:
        return answer
    blocks = _blocks(answer)
    start = _taking(blocks, 0, limit)
    wanted = set(grams(question)) - set(grams(start))
    held = [len(wanted.intersection(grams(block))) for block in blocks]
    best = max(range(len(blocks)), key=held.__getitem__)
    return _taking(blocks, best, limit) if held[best] >= NEW_GRAMS else start


def _taking(blocks: list[str], best: int, limit: int) -> str:
    """Return the first block, the best one and as many of those after it as fit."""
    taken: dict[int, str] = {}
    for place in dict.fromkeys((0, *range(best, len(blocks)))):
        room = limit - sum(len(text) + 2 for text in taken.values())
        piece = _fitting(blocks[place], min(room, limit // 2) if place == 0 and best else room)
        if piece:
            taken[place] = piece
        if len(piece) < len(blocks[place]) and place != 0:
            break
    while len(taken) > 1 and _heads_nothing(taken[max(taken)]):
        del taken[max(taken)]
    return "\n\n".join(taken[place] for place in sorted(taken))


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
    fitting = ""
    for unit in units:
        longer = f"{fitting}{separator}{unit}" if fitting else unit
        if len(longer) > room:
            break
        fitting = longer
    return "" if _heads_nothing(fitting) else fitting.strip()


def _heads_nothing(text: str) -> bool:
    """Tell whether a text is only the heading of what comes after it."""
    return len(text) < 60 and bool(
        HEADING.fullmatch(text) or text.rstrip().endswith((":", "※ 참고.", "※참고.", "잠깐!"))
    )
