"""The runs of this process: each is read by whoever follows it, ends when nobody does, and is kept for a while."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field

import structlog

from smartstore_indexing.errors import FaqError, Overloaded, UnknownResource
from smartstore_indexing.setting_groups import LimitSettings, StreamSettings
from smartstore_ui.metrics import Metrics
from smartstore_workflows import wire
from smartstore_workflows.events import Usage
from smartstore_workflows.run_readers import NO_RUN, RunReaders

log = structlog.get_logger(__name__)
Events = AsyncGenerator[wire.StreamEvent, None]
Observe = Callable[[wire.StreamEvent], None]


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as it is sent: its id, its name, and its data as JSON."""

    id: int
    event: wire.EventName
    data: str

    @classmethod
    def of(cls, event: wire.StreamEvent) -> "Frame":
        """Return the frame of an event."""
        return cls(event.id, event.event, event.data_json())


@dataclass(eq=False, slots=True)
class LiveRun:
    """A run and what it has said so far; `frames` only grows, and ends with `done`."""

    run_id: str
    session_id: str
    request_id: str
    frames: list[Frame] = field(default_factory=list)
    gathered: wire.Gathered = field(default_factory=wire.Gathered)
    ended_at: float | None = None  # time.monotonic()
    followers: int = 0
    task: asyncio.Task[None] | None = None
    _leaving: asyncio.TimerHandle | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ended(self) -> bool:
        """Tell whether the last frame is there."""
        return self.ended_at is not None

    def say(self, event: wire.StreamEvent) -> None:
        """Add an event and wake the followers."""
        self.frames.append(Frame.of(event))
        self.gathered.add(event)
        if event.event == "done":
            self.ended_at = time.monotonic()
        news, self._news = self._news, asyncio.Event()
        news.set()

    def end(self, code: str, message: str) -> wire.StreamEvent:
        """Say that the run ends without its answer, and return the error's event."""
        last = self.frames[-1].id
        failure = wire.Failure(code=code, message=message, retryable=True, request_id=self.request_id)
        told = wire.StreamEvent(id=last + 1, event="error", data=failure)
        if not self.ended:
            self.say(told)
            done = wire.Done(run_id=self.run_id, timings_ms={}, usage=Usage())
            self.say(wire.StreamEvent(id=last + 2, event="done", data=done))
        return told

    def stop(self) -> None:
        """Stop the run, unless it has ended."""
        if self.task is not None and not self.ended:
            self.task.cancel()

    def left(self, grace_seconds: float) -> None:
        """Stop the run after so long unless somebody follows it by then."""
        if not self.ended:
            self._leaving = asyncio.get_running_loop().call_later(grace_seconds, self.stop)

    async def follow(
        self, after: int, grace_seconds: float, heartbeat_seconds: float
    ) -> AsyncGenerator[list[Frame], None]:
        """Yield the new frames with ids above `after`, up to the last, and [] whenever none came for a heartbeat.

        A run that nobody follows any more is stopped after the grace.
        """
        self.followers += 1
        if self._leaving is not None:
            self._leaving.cancel()
        try:
            place = 0
            while True:
                news, place = self.frames[place:], len(self.frames)
                if fresh := [frame for frame in news if frame.id > after]:
                    yield fresh
                elif self.ended:
                    return
                elif not await self._changed(heartbeat_seconds):
                    yield []
        finally:
            self.followers -= 1
            if not self.followers:
                self.left(grace_seconds)

    async def _changed(self, seconds: float) -> bool:
        """Wait for the next event; False when none comes within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()  # no await since the look at the frames = nothing can be missed
        except TimeoutError:
            return False
        return True


class Runs:
    """Starts runs, a bounded number at once, and finds them again."""

    def __init__(
        self, *, limits: LimitSettings, stream: StreamSettings, metrics: Metrics, elsewhere: RunReaders | None = None
    ) -> None:
        """Take the bounds, and what reads other processes' runs; `open` must be entered before a run is started."""
        self._limits = limits
        self._stream = stream
        self._metrics = metrics
        self._elsewhere = elsewhere
        self._runs: OrderedDict[str, LiveRun] = OrderedDict()
        self._places = asyncio.Semaphore(limits.max_runs)
        self._queued = 0
        self._group: asyncio.TaskGroup | None = None
        self._closing = False

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Runs", None]:
        """Hold the tasks of the runs; at the end those that still run are stopped."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                try:
                    yield self
                finally:
                    for run in self._runs.values():
                        run.stop()
        finally:
            self._group = None

    @property
    def live(self) -> int:
        """Return how many runs have not ended."""
        return sum(not run.ended for run in self._runs.values())

    @property
    def busy(self) -> bool:
        """Tell whether a run has not ended, or somebody still reads its end."""
        return any(not run.ended or run.followers for run in self._runs.values())

    @property
    def closing(self) -> bool:
        """Tell whether no run is started any more."""
        return self._closing

    def close(self) -> None:
        """Start no run from now on."""
        self._closing = True

    async def start(self, events: Events, request_id: str) -> LiveRun:
        """Start a run once there is room, and return it with its first frame.

        Raises:
            Overloaded: too many runs and too many in the queue, or no room in time, or the server is ending.
            FaqError: the run could not begin.
        """
        with ExitStack() as stack:
            counted = stack.enter_context(self._metrics.run())
            try:
                await self._take_place()
                stack.callback(self._places.release)
                first = await anext(events)
            except BaseException:
                await events.aclose()
                raise
            assert isinstance(first.data, wire.Started)
            counted.observe(first)
            run = LiveRun(first.data.run_id, first.data.session_id, request_id)
            return await self._begin(run, first, events, counted.observe, stack.pop_all())

    def get(self, run_id: str) -> LiveRun:
        """Return a run of this process and the last ten minutes; UnknownResource when there is none of that id."""
        self._drop_old()
        run = self._runs.get(run_id)
        if run is None:
            raise UnknownResource(NO_RUN)
        return run

    async def find(self, run_id: str, request_id: str) -> LiveRun:
        """Return a run of any process; raises what `get` does, and StoreUnavailable where it cannot be looked for."""
        self._drop_old()
        if self._elsewhere is None or run_id in self._runs:
            return self.get(run_id)
        events = self._elsewhere.replay(run_id)
        first = await anext(events)
        if run_id in self._runs:  # another client found it meanwhile
            await events.aclose()
            return self._runs[run_id]
        session_id = first.data.session_id if isinstance(first.data, wire.Started) else ""
        return await self._begin(LiveRun(run_id, session_id, request_id), first, events, _uncounted, ExitStack())

    async def stop(self, run_id: str, request_id: str) -> None:
        """Stop a run of any process; raises what `find` does."""
        (await self.find(run_id, request_id)).stop()
        if self._elsewhere is not None:
            await self._elsewhere.cancel(run_id)  # others may read it too

    def follow(
        self, run: LiveRun, after: int = 0, *, heartbeat_seconds: float | None = None
    ) -> AsyncGenerator[list[Frame], None]:
        """Return the frames of a run with ids above `after`, and [] at each heartbeat, by default the settings'.

        Close the iterator to stop following.
        """
        return run.follow(after, self._stream.grace_seconds, heartbeat_seconds or self._stream.heartbeat_seconds)

    async def _take_place(self) -> None:
        if self._closing:
            raise Overloaded("서버를 끝내는 중입니다. 잠시 후 다시 질문해 주세요.", retry_after=5)
        busy = "지금 질문이 많습니다. 잠시 후 다시 질문해 주세요."
        if self._places.locked() and self._queued >= self._limits.queue:
            raise Overloaded(busy, retry_after=1)
        self._queued += 1
        try:
            async with asyncio.timeout(self._limits.queue_seconds):
                await self._places.acquire()
        except TimeoutError as error:
            raise Overloaded(busy, retry_after=1) from error
        finally:
            self._queued -= 1

    async def _begin(
        self, run: LiveRun, first: wire.StreamEvent, events: Events, observe: Observe, ending: ExitStack
    ) -> LiveRun:
        assert self._group is not None
        self._drop_old()
        self._runs[run.run_id] = run
        run.say(first)
        run.task = self._group.create_task(self._pump(run, events, observe, ending))
        # A client may be gone before its first frame; a busy process may be late to send it.
        run.left(max(self._stream.grace_seconds, self._stream.heartbeat_seconds))
        await asyncio.sleep(0)  # a task that is cancelled before its first step never takes it, nor ends its run
        return run

    async def _pump(self, run: LiveRun, events: Events, observe: Observe, ending: ExitStack) -> None:
        structlog.contextvars.bind_contextvars(request_id=run.request_id, run_id=run.run_id)
        with ending:
            try:
                async with aclosing(events):
                    async for event in events:
                        observe(event)
                        run.say(event)
            except asyncio.CancelledError:
                run.end(wire.CANCELLED, wire.STOPPED)  # on purpose: the task ends here
            except FaqError as error:
                observe(run.end(error.code, error.message))
            except Exception:  # the edge of a run: whatever it is, the reader is told and the process stays up
                log.exception("run failed")
                observe(run.end(wire.INTERNAL, wire.BROKEN))

    def _drop_old(self) -> None:
        """Drop the runs whose ten minutes are over, and the oldest ended ones beyond the bound."""
        until = time.monotonic() - self._stream.keep_seconds
        ended = [run for run in self._runs.values() if run.ended_at is not None]
        beyond = max(0, len(ended) - self._stream.keep_runs)
        for place, run in enumerate(ended):
            if place < beyond or (run.ended_at or 0) < until:
                del self._runs[run.run_id]


def _uncounted(_: wire.StreamEvent) -> None:
    """Count nothing: the process that began the run does."""
