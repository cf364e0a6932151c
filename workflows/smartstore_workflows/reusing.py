"""Whether a question is answered with what another one left in the cache; for evaluation."""

from pathlib import Path

from smartstore_indexing.settings import EXTRACTIVE
from smartstore_workflows.app import Services
from smartstore_workflows.cache_stores import SqliteAnswers
from smartstore_workflows.caching import AnswerCache
from smartstore_workflows.events import Outcome, QuestionAsked
from smartstore_workflows.running import outcome_of
from smartstore_workflows.sqlite import SqliteFile
from smartstore_workflows.understanding import checked_question

IN_MEMORY = Path(":memory:")  # SQLite's name for a file that is none


async def asked_after(services: Services, first: str, question: str) -> Outcome:
    """Return how a question ends that is asked after another one, with nothing else cached.

    Raises:
        InvalidRequest: one of them cannot be used as a question.
    """
    both = [QuestionAsked(question=checked_question(text), model=EXTRACTIVE) for text in (first, question)]
    file = await SqliteFile.open(IN_MEMORY)
    try:
        store = await SqliteAnswers.open(file, most=2, days=1.0)
        workflow = services.workflow_with(AnswerCache(store, read=services.morphemes.read))
        await outcome_of(workflow, both[0])
        return await outcome_of(workflow, both[1])
    finally:
        await file.close()
