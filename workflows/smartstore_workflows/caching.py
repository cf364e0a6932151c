"""Answers that are given again: to the same text, and to another that asks the same and is backed by the same FAQs.

Only whole answers from the FAQ are kept, and only of questions without a conversation around them: a refusal and a "not
found" cost no model call, and whoever asks nonsense would push out the answers that help.
"""

import asyncio
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import structlog

from smartstore_indexing.errors import StoreUnavailable
from smartstore_indexing.faq import digest
from smartstore_workflows.alignment import Read, ask_the_same
from smartstore_workflows.events import ANSWERED, AnswerWritten, Asked, Passage, RememberedAnswer
from smartstore_workflows.prompting import CONTEXT_FAQS, prompt_version

log = structlog.get_logger(__name__)
FORMAT = "1"  # counts up when answers are written in another way, so that no older one is given again
BACKING = CONTEXT_FAQS  # of each question, those that must hold the other's first FAQ; a model is given them
MOST_ALIKE = 50  # answers that are looked through for one that asks the same
READINGS = 2_048  # of questions, that are kept in memory: 2.4 KiB each
BLANKS, CLOSING = re.compile(r"\s+"), " ?!.,~…"


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """Under which an answer is kept: the index version, the model's name, and the normalized question."""

    index_version: str
    model: str
    text: str

    @property
    def scope(self) -> str:
        """Return one short name for all keys of this index version and model, and of what the model is asked with."""
        return digest(FORMAT, prompt_version(), self.index_version, self.model)

    @property
    def name(self) -> str:
        """Return one short name for this key."""
        return digest(self.scope, self.text)


class AnswerStore(Protocol):
    """Where answers are kept. Every method raises StoreUnavailable when the store cannot be used."""

    async def get(self, key: AnswerKey) -> RememberedAnswer | None:
        """Return the answer that is kept under a key, None where there is none, or a broken or too old one."""

    async def backed_by(self, scope: str, faq_ids: Sequence[str], *, limit: int) -> list[RememberedAnswer]:
        """Return at most `limit` answers of a scope whose first FAQ is one of these, the newest first."""

    async def put(self, key: AnswerKey, answer: RememberedAnswer) -> None:
        """Keep an answer, and drop what is too old and the oldest beyond the bound."""

    async def forget(self, questions: Collection[str]) -> None:
        """Delete the answers that were written for these questions, word for word."""


class AnswerCache:
    """Gives answers again. A store that fails makes it forget, never fail."""

    def __init__(self, store: AnswerStore | None, *, read: Read) -> None:
        """Use a store, or none to keep nothing; `read` is Morphemes.read."""
        self._store = store
        self._read = lru_cache(READINGS)(read)

    async def exact(self, key: AnswerKey | None) -> RememberedAnswer | None:
        """Return the answer to the same text."""
        if self._store is None or key is None:
            return None
        try:
            return await self._store.get(key)
        except StoreUnavailable as error:
            log.warning("cached answers not read", code=error.code)
            return None

    async def alike(self, key: AnswerKey | None, passages: Sequence[Passage]) -> RememberedAnswer | None:
        """Return the answer to a question that asks the same, `passages` being what was found for this one."""
        backing = [passage.faq_id for passage in passages[:BACKING]]
        if self._store is None or key is None or not backing:
            return None
        try:
            found = await self._store.backed_by(key.scope, backing, limit=MOST_ALIKE)
        except StoreUnavailable as error:
            log.warning("cached answers not read", code=error.code)
            return None
        backed = [answer for answer in found if backing[0] in [held.faq_id for held in answer.passages[:BACKING]]]
        return await asyncio.to_thread(self._first_same, key.text, backed)

    async def keep(self, key: AnswerKey | None, written: AnswerWritten) -> None:
        """Keep an answer from the FAQ, unless it is degraded."""
        if not written.degraded and written.kind == ANSWERED:
            await self.keep_again(key, remembered(written))

    async def keep_again(self, key: AnswerKey | None, answer: RememberedAnswer) -> None:
        """Keep a remembered answer under another text that it was given to; it stays the answer to its own question."""
        if self._store is None or key is None:
            return
        try:
            await self._store.put(key, answer)
        except StoreUnavailable as error:
            log.warning("answer not cached", code=error.code)

    def _first_same(self, text: str, answers: Sequence[RememberedAnswer]) -> RememberedAnswer | None:
        return next((answer for answer in answers if ask_the_same(normalized(answer.question), text, self._read)), None)


def key_of(asked: Asked, model: str) -> AnswerKey | None:
    """Return the key of what is asked of a model; None when the answer may not be kept."""
    if not asked.index_version:
        return None
    return AnswerKey(asked.index_version, model, normalized(asked.question))


def normalized(question: str) -> str:
    """Return the question without what two writings of the same text differ in: blanks, case, width, its full stop."""
    return BLANKS.sub(" ", unicodedata.normalize("NFKC", question)).strip(CLOSING).lower()


def remembered(written: AnswerWritten) -> RememberedAnswer:
    """Return what is kept of an answer to a question."""
    return RememberedAnswer(
        question=written.asked.question,
        text=written.text,
        citations=written.citations,
        unsupported=written.unsupported,
        sources=written.sources,
        passages=written.passages,
    )


def recalled(answer: RememberedAnswer, asked: Asked) -> AnswerWritten:
    """Return an answer as it is given again."""
    return AnswerWritten(
        asked=asked,
        kind=ANSWERED,
        text=answer.text,
        citations=answer.citations,
        unsupported=answer.unsupported,
        sources=answer.sources,
        passages=answer.passages,
        usage=asked.usage,
        cached=True,
    )
