"""A follow-up, rewritten by the model into a question that stands alone; the rules stand in prompts/rewrite.txt."""

import re
import unicodedata
from collections.abc import Sequence

import structlog
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from smartstore_indexing.cleaning import CONTROL
from smartstore_indexing.errors import InvalidRequest, ModelUnavailable
from smartstore_workflows.events import Turn
from smartstore_workflows.extracting import plain
from smartstore_workflows.model_calls import Completes
from smartstore_workflows.prompting import rules, unfenced
from smartstore_workflows.understanding import checked_question

log = structlog.get_logger(__name__)
MAX_TOKENS = 400  # a reply that needs more is cut off, and then not used
TURNS = 3
TOPIC_CHARACTERS = 300  # of each turn's question, its end: what a follow-up of follow-ups asked last
ANSWER_CHARACTERS = 200  # of each turn's answer, its beginning
LABEL = re.compile(r"\A(?:고쳐 쓴 |다시 쓴 )?질문\s*:\s*")
FILLERS = "\u115f\u1160\u3164\uffa0"  # Hangul "letters" that show as a blank
QUOTES = ('""', "''", "``", "“”", "‘’", "「」", "『』", "«»")


async def rewrite(model: Completes, question: str, history: Sequence[Turn], timeout_seconds: float) -> str | None:
    """Return a follow-up as a question that stands alone, or a new topic as it is.

    None when the model fails, takes longer than its timeout, or says nothing usable.
    """
    try:
        reply, _ = await model.complete(
            rewrite_messages(question, history), max_tokens=MAX_TOKENS, timeout_seconds=timeout_seconds
        )
    except ModelUnavailable as error:
        log.warning("question not rewritten", model=model.name, code=error.code, reason=error.message)
        return None
    rewritten = cleaned(reply)
    if rewritten is None:
        log.warning("question not rewritten", model=model.name, reason="the reply is no question")
    return rewritten


def rewrite_messages(question: str, history: Sequence[Turn]) -> list[ChatMessage]:
    """Return the chat that asks for the question as it stands alone, given the last turns that were not refused."""
    turns = [turn for turn in history if turn.kind != "refused"][-TURNS:]
    told = [f"질문: {_topic(turn)}\n답변: {unfenced(plain(turn.answer, ANSWER_CHARACTERS))}" for turn in turns]
    content = "\n".join(["<history>", *told, "</history>", f"<question>\n{unfenced(question)}\n</question>"])
    return [
        ChatMessage(role=MessageRole.SYSTEM, content=rules("rewrite")),
        ChatMessage(role=MessageRole.USER, content=content),
    ]


def cleaned(reply: str) -> str | None:
    """Return the question of a reply: its first line with a letter, without fences, quotes and a label.

    None when no line has a letter, or the question exceeds 2,000 characters.
    """
    lines = (_bare(line) for line in unicodedata.normalize("NFC", CONTROL.sub("", reply)).splitlines())
    line = next((line for line in lines if any(map(_is_letter, line))), "")
    try:
        return checked_question(line)
    except InvalidRequest:
        return None


def _topic(turn: Turn) -> str:
    return unfenced(" ".join(turn.standalone.split())[-TOPIC_CHARACTERS:].lstrip())


def _bare(line: str) -> str:
    while (bare := _unquoted(LABEL.sub("", " ".join(unfenced(line).split()), count=1))) != line:
        line = bare
    return line


def _unquoted(text: str) -> str:
    """Return the text without a pair of quotes around the whole of it."""
    inside = text[1:-1]
    if text[:1] + text[-1:] in QUOTES and not {text[0], text[-1]} & set(inside):
        return inside.strip()
    return text


def _is_letter(character: str) -> bool:
    return character.isalpha() and character not in FILLERS
