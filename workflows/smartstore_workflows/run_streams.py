"""The events of runs in the Redis that processes share, a stream a run: here as a worker writes them.

An event's number in its run is its id in the stream. Redis takes none that is not above the last, so when two workers
have a run, because one was thought lost, the one that speaks first goes on and the other is told.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import anyio
import structlog
from pydantic import ValidationError
from redis.exceptions import ResponseError

from smartstore_indexing.errors import StoreUnavailable
from smartstore_workflows import wire
from smartstore_workflows.background import beside
from smartstore_workflows.redis_server import AWAY, RedisServer

log = structlog.get_logger(__name__)
Entry = tuple[bytes, dict[bytes, bytes]]
RUN, CANCEL = "run", "cancel"
KEEP_SECONDS = 600  # after the last event
CANCEL_KEEP_SECONDS = 24 * 3600  # questions of a batch wait as long
CANCEL_LOOK_SECONDS = 0.2
ALREADY_THERE = "equal or smaller"


class Superseded(Exception):
    """Raised when another worker speaks in a run."""


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a run is: its last event, "" before the first, and whether nobody wants it any more."""

    last_id: int
    last_event: str
    cancelled: bool


@dataclass(eq=False, slots=True)
class _Append:
    key: str
    event: wire.StreamEvent
    done: asyncio.Future[None]


class RunStreams:
    """The streams of the runs that this process works on; StoreUnavailable is raised when Redis does not answer."""

    def __init__(self, server: RedisServer) -> None:
        """Use a server; `open` must be entered first."""
        self._server = server
        self._appends: list[_Append] = []
        self._appended = asyncio.Event()
        self._stoppable: dict[str, anyio.CancelScope] = {}
        self._watched = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["RunStreams"]:
        """Hold the tasks that write and watch for all runs."""
        async with beside(self._write(), self._watch()):
            yield self

    async def state(self, run_id: str) -> RunState:
        """Return how far a run is."""
        async with self._server.use() as client, client.pipeline(transaction=False) as pipe:
            pipe.xrevrange(stream_key(self._server, run_id), count=1)
            pipe.exists(cancel_key(self._server, run_id))
            last, cancelled = await pipe.execute()
        events = events_in(last)
        return RunState(
            last_id=events[0].id if events else 0,
            last_event=events[0].event if events else "",
            cancelled=bool(cancelled),
        )

    async def append(self, run_id: str, event: wire.StreamEvent) -> None:
        """Return once the event is in the run's stream, after those given before it.

        Raises:
            Superseded: the stream has an event of this number or above.
        """
        append = _Append(stream_key(self._server, run_id), event, asyncio.get_running_loop().create_future())
        self._appends.append(append)
        self._appended.set()
        await asyncio.shield(append.done)  # who is cancelled here may still end the run, with a number above this one

    @contextmanager
    def stoppable(self, run_id: str) -> Iterator[anyio.CancelScope]:
        """Yield a scope that is cancelled soon after somebody cancels the run."""
        with anyio.CancelScope() as scope:
            self._stoppable[run_id] = scope
            self._watched.set()
            try:
                yield scope
            finally:
                if self._stoppable.get(run_id) is scope:
                    del self._stoppable[run_id]

    async def _write(self) -> None:
        """Write what the runs append, all that waits in one call: a call each would keep a core busy at 50 runs."""
        while True:
            await self._appended.wait()
            self._appended.clear()
            appends, self._appends = self._appends, []
            try:
                results = await self._written(appends)
            except StoreUnavailable:
                results = [StoreUnavailable(AWAY) for _ in appends]
            for append, result in zip(appends, results, strict=True):
                if result is not None:
                    append.done.set_exception(result)
                else:
                    append.done.set_result(None)

    async def _written(self, appends: list[_Append]) -> list[Exception | None]:
        async with self._server.use() as client, client.pipeline(transaction=False) as pipe:
            for append in appends:
                event = append.event
                entry = {"id": event.id, "event": event.event, "data": event.data_json()}
                pipe.xadd(append.key, entry, id=f"{event.id}-0")  # type: ignore[arg-type]  # the dict is invariant
            for key in {append.key for append in appends}:
                pipe.expire(key, KEEP_SECONDS)
            results = await pipe.execute(raise_on_error=False)
        return [_failure(result) for result in results[: len(appends)]]

    async def _watch(self) -> None:
        """Stop the runs that somebody cancelled; while Redis is away they go on."""
        while True:
            if not self._stoppable:
                self._watched.clear()
                await self._watched.wait()
            run_ids = list(self._stoppable)
            with suppress(StoreUnavailable):
                async with self._server.use() as client:
                    cancelled = await client.mget([cancel_key(self._server, run_id) for run_id in run_ids])
                for run_id, sign in zip(run_ids, cancelled, strict=True):
                    if sign and (scope := self._stoppable.get(run_id)):
                        scope.cancel()
            await asyncio.sleep(CANCEL_LOOK_SECONDS)


def stream_key(server: RedisServer, run_id: str) -> str:
    """Return the name of a run's stream."""
    return server.key(RUN, run_id)


def cancel_key(server: RedisServer, run_id: str) -> str:
    """Return the name of the sign that nobody wants a run any more."""
    return server.key(RUN, run_id, CANCEL)


def events_in(entries: list[Entry]) -> list[wire.StreamEvent]:
    """Return the events that a stream's entries are; what is none, which others wrote, is left out."""
    events = []
    for _, fields in entries:
        try:
            entry = b'{"id": %b, "event": "%b", "data": %b}' % (fields[b"id"], fields[b"event"], fields[b"data"])
            events.append(wire.StreamEvent.model_validate_json(entry))
        except (KeyError, ValidationError):
            log.warning("event of a run not readable")
    return events


def _failure(result: object) -> Exception | None:
    if isinstance(result, ResponseError) and ALREADY_THERE in str(result):
        return Superseded()
    return StoreUnavailable(AWAY) if isinstance(result, Exception) else None
