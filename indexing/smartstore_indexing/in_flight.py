"""The messages that a consumer is working on, each in a task of its own, and the events that wait for a subscriber."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")
log = structlog.get_logger(__name__)
CANCEL_SECONDS = 30.0  # a handler that waits for a thread ends when the thread has


class InFlight:
    """Tasks that end with their consumer."""

    def __init__(self) -> None:
        """Begin with none."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False

    def __len__(self) -> int:
        """Return how many run."""
        return len(self._tasks)

    def start(self, work: Coroutine[None, None, None], then: Callable[[bool], None]) -> None:
        """Run the work on a message, then tell whether it ended by itself, so that the message is settled."""
        if self._ending:  # it came after the others were cancelled
            work.close()
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        # Not in the task: one that is cancelled before its first step runs none of it.
        task.add_done_callback(lambda ended: self._ended(ended, then))

    async def drained(self, seconds: float) -> None:
        """Return when all have ended, at the latest after so many seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def cancel(self) -> None:
        """Cancel those that run, take no more, and return when they have ended."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        await self.drained(CANCEL_SECONDS)
        if self._tasks:
            log.error("handlers did not end when cancelled", handlers=len(self._tasks))

    def _ended(self, task: asyncio.Task[None], then: Callable[[bool], None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.warning("message not settled", error=type(error).__name__)
        then(error is None and not task.cancelled())


class Mailbox(Generic[T]):
    """What waits for one reader, in its order; when there is too much the oldest goes."""

    def __init__(self, size: int) -> None:
        """Hold at most `size`."""
        self._waiting: deque[T] = deque(maxlen=size)
        self._filled = asyncio.Event()

    def put(self, item: T) -> None:
        """Add an item."""
        self._waiting.append(item)
        self._filled.set()

    async def get(self) -> T:
        """Return the oldest item, as soon as there is one."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        return self._waiting.popleft()


async def first_of(*waits: Awaitable[object]) -> None:
    """Return when the first of them has ended, the others cancelled; what the first raised is raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
