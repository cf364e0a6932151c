"""Work that goes on beside what a block does."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager


@asynccontextmanager
async def beside(*loops: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run endless loops as long as the block; one that fails ends the block, and what was raised is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop) for loop in loops]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the others' are those of the same fault
