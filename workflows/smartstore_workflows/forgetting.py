"""Deletes all that is kept of one conversation, on request."""

from dataclasses import dataclass

from smartstore_workflows.caching import AnswerStore
from smartstore_workflows.run_streams import cancel_key, stream_key
from smartstore_workflows.stores import Stores


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was deleted: whether there was a conversation, and how many of its runs were kept."""

    conversation: bool
    runs: int

    def __bool__(self) -> bool:
        """Tell whether there was anything."""
        return self.conversation or self.runs > 0


async def forget_session(stores: Stores, answers: AnswerStore | None, session_id: str) -> Forgotten:
    """Delete a conversation, its runs with their ratings and events, and what the cache holds of its questions.

    Raises:
        StoreUnavailable: a store cannot be used; what is left is deleted when it is asked for again.
    """
    turns = await stores.conversations.turns(session_id)
    runs = await stores.records.of_session(session_id)
    if answers is not None:
        await answers.forget({turn.question for turn in turns} | {run.question for run in runs})
    if stores.redis is not None and runs:
        keys = [key(stores.redis, run.run_id) for run in runs for key in (stream_key, cancel_key)]
        async with stores.redis.use() as client:
            await client.delete(*keys)
    # Last what names the others, so that a failure before leaves a way back to them.
    await stores.records.forget(session_id)
    return Forgotten(await stores.conversations.forget(session_id), len(runs))
