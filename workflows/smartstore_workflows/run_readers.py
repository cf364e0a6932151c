"""The events of runs in the Redis that processes share: here as the doors read them, all runs of a process in one call.

A run is read by any number of processes; the last that leaves it cancels it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import anyio
from redis.typing import KeyT, StreamIdT

from smartstore_indexing.errors import StoreUnavailable, TransientError, UnknownResource
from smartstore_workflows import wire
from smartstore_workflows.background import beside
from smartstore_workflows.redis_server import AWAY, RedisServer
from smartstore_workflows.run_events import new_id
from smartstore_workflows.run_streams import (
    CANCEL_KEEP_SECONDS,
    KEEP_SECONDS,
    RUN,
    Entry,
    cancel_key,
    events_in,
    stream_key,
)

READERS, WAKE = "readers", "run-reader"
START = b"0-0"
LEAVE_SECONDS = 2.0
AWAY_SECONDS = 4.0  # Redis may be, without harm to those who read
PAUSE_SECONDS = 0.2
MAX_EVENTS = 1_000  # of a run in one read
GATHER_SECONDS = 0.004  # between reads: 50 runs speak thousands of times a second
BLOCK_SLACK_SECONDS = 0.15  # Redis looks at those it lets wait ten times a second
NO_RUN = "그 답변을 찾을 수 없습니다. 끝난 지 10분이 지났거나 ID가 잘못되었습니다."
SILENT = "답변이 끊겼습니다. 잠시 후 다시 질문해 주세요."
LEAVE = """
redis.call('SREM', KEYS[1], ARGV[1])
if redis.call('SCARD', KEYS[1]) == 0 then redis.call('SET', KEYS[2], '1', 'EX', ARGV[2]) end
"""


@dataclass(eq=False, slots=True)
class Reader:
    """Reads one run from its beginning; `ended` tells that its last event was read."""

    key: str
    silence_seconds: float
    reader_id: str = field(default_factory=new_id)
    ended: bool = False
    _last_id: int = 0
    _news: asyncio.Queue[wire.StreamEvent | StoreUnavailable] = field(default_factory=asyncio.Queue)

    def put(self, news: wire.StreamEvent | StoreUnavailable) -> None:
        """Take what was read; an event that was read before is left out."""
        if isinstance(news, wire.StreamEvent):
            if news.id <= self._last_id:
                return
            self._last_id = news.id
        self._news.put_nowait(news)

    def is_ahead_of(self, last: list[Entry]) -> bool:
        """Tell whether more was read than a stream holds whose last entry this is."""
        there = events_in(last)
        return self._last_id > (there[0].id if there else 0)

    async def next(self, seconds: float) -> wire.StreamEvent:
        """Return the next event.

        Raises:
            TimeoutError: none came within so many seconds.
            StoreUnavailable: Redis does not answer.
        """
        async with asyncio.timeout(seconds):
            news = await self._news.get()
        if isinstance(news, StoreUnavailable):
            raise news
        self.ended = news.event == "done"
        return news

    async def rest(self) -> AsyncGenerator[wire.StreamEvent, None]:
        """Yield the events up to the last; TransientError when none comes for too long."""
        while not self.ended:
            try:
                event = await self.next(self.silence_seconds)
            except TimeoutError as error:
                raise TransientError(SILENT) from error
            yield event


class RunReaders:
    """Reads the runs of all processes; StoreUnavailable is raised when Redis does not answer."""

    def __init__(self, server: RedisServer, *, call_seconds: float, silence_seconds: float) -> None:
        """Use a server whose calls may take so long; who says nothing for `silence_seconds` is given up."""
        self._server = server
        self._block = max(1, round(1_000 * (call_seconds / 2 - BLOCK_SLACK_SECONDS)))
        self._silence_seconds = silence_seconds
        self._wake = server.key(WAKE, new_id())
        self._readers: set[Reader] = set()
        self._places: dict[str, bytes] = {}
        self._followed = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["RunReaders"]:
        """Hold the task that reads."""
        async with beside(self._read()):
            yield self

    async def cancel(self, run_id: str) -> None:
        """Let whoever works on the run, or will, end it."""
        async with self._server.use() as client:
            await client.set(cancel_key(self._server, run_id), "1", ex=CANCEL_KEEP_SECONDS)

    @asynccontextmanager
    async def reading(self, run_id: str) -> AsyncIterator[Reader]:
        """Yield what reads a run, which may not have begun; the last who leaves one that goes on cancels it."""
        reader = Reader(stream_key(self._server, run_id), self._silence_seconds)
        self._readers.add(reader)
        self._places[reader.key] = START
        self._followed.set()
        try:
            await self._join(run_id, reader)
            yield reader
        finally:
            self._readers.discard(reader)
            if not reader.ended:
                await self._leave(run_id, reader)

    async def replay(self, run_id: str) -> AsyncGenerator[wire.StreamEvent, None]:
        """Yield the events of a run that another process began, from the first to the last.

        Raises:
            UnknownResource: there is none of that id.
            TransientError: nothing more came of it.
        """
        async with self._server.use() as client:
            known = await client.exists(stream_key(self._server, run_id))
        if not known:
            raise UnknownResource(NO_RUN)
        async with self.reading(run_id) as reader, aclosing(reader.rest()) as events:
            async for event in events:
                yield event

    async def _join(self, run_id: str, reader: Reader) -> None:
        readers = self._server.key(RUN, run_id, READERS)
        async with self._server.use() as client, client.pipeline(transaction=False) as pipe:
            pipe.sadd(readers, reader.reader_id)
            pipe.expire(readers, KEEP_SECONDS)
            pipe.xadd(self._wake, {"run": run_id}, maxlen=1, approximate=False)  # ends a read that began without it
            pipe.expire(self._wake, KEEP_SECONDS)
            await pipe.execute()

    async def _leave(self, run_id: str, reader: Reader) -> None:
        keys = (self._server.key(RUN, run_id, READERS), cancel_key(self._server, run_id))
        with anyio.move_on_after(LEAVE_SECONDS, shield=True), suppress(StoreUnavailable):
            async with self._server.use() as client:
                await client.eval(LEAVE, 2, *keys, reader.reader_id, CANCEL_KEEP_SECONDS)

    async def _read(self) -> None:
        woken = START
        while True:
            if not self._readers:
                self._places.clear()
                self._followed.clear()
                await self._followed.wait()
            read = {reader.key for reader in self._readers}
            self._places = {key: place for key, place in self._places.items() if key in read}
            places = {**self._places, self._wake: woken}
            try:
                found = await self._found(places)
            except StoreUnavailable:
                await self._recover()
                continue
            for name, entries in found:
                key, last = name.decode(), entries[-1][0]
                if key == self._wake:
                    woken = last
                    continue
                self._give(key, entries)
                if self._places.get(key) == places[key]:  # else somebody began to read it meanwhile
                    self._places[key] = last
            await asyncio.sleep(GATHER_SECONDS)

    async def _found(self, places: Mapping[str, bytes]) -> list[tuple[bytes, list[Entry]]]:
        async with self._server.use() as client:
            wanted = cast("dict[KeyT, StreamIdT]", places)
            found = await client.xread(wanted, count=MAX_EVENTS, block=self._block)
        return cast("list[tuple[bytes, list[Entry]]]", found)

    def _give(self, key: str, entries: list[Entry]) -> None:
        events = events_in(entries)
        for reader in self._readers:
            if reader.key == key:
                for event in events:
                    reader.put(event)

    async def _recover(self) -> None:
        """Return when Redis answers again; tell those whose events it lost, and all when it stays away."""
        deadline = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < deadline:
            readers = list(self._readers)
            try:
                async with self._server.use() as client, client.pipeline(transaction=False) as pipe:
                    for reader in readers:
                        pipe.xrevrange(reader.key, count=1)
                    lasts = await pipe.execute()
            except StoreUnavailable:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self._tell([reader for reader, last in zip(readers, lasts, strict=True) if reader.is_ahead_of(last)])
            return
        self._tell(list(self._readers))

    def _tell(self, readers: list[Reader]) -> None:
        for reader in readers:
            reader.put(StoreUnavailable(AWAY))
            self._readers.discard(reader)
