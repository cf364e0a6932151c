"""Server-sent events: frames that are correct for any text, heartbeats while nothing is said, resuming by id."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import StreamingResponse

from smartstore_indexing.errors import InvalidRequest
from smartstore_ui.api.runs import Frame

HEARTBEAT = b": \n\n"
RETRY = b"retry: 1000\n\n"  # milliseconds before a browser resumes: less than the run's grace
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
LONGEST_ID = 18  # digits, which 64 bits hold


class EventStream(StreamingResponse):
    """A response of server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        """Send the events until their iterator ends; it is closed when the client hangs up."""
        super().__init__(events, headers=HEADERS)


def event_bytes(number: int, name: str, data: str) -> bytes:
    """Return an event in the form of the HTML standard's event streams; `data` is JSON, which has no line breaks."""
    return f"id: {number}\nevent: {name}\ndata: {data}\n\n".encode()


def last_event_id(header: str | None) -> int:
    """Return the id after which a stream goes on, 0 without the header; InvalidRequest when it is no number."""
    if not header:
        return 0
    if not (header.isascii() and header.isdecimal() and len(header) <= LONGEST_ID):
        raise InvalidRequest("Last-Event-ID는 0 이상의 정수여야 합니다.")
    return int(header)


async def events_of(frames: AsyncGenerator[list[Frame], None]) -> AsyncGenerator[bytes, None]:
    """Yield the frames as events, and a comment for an empty list of them."""
    yield RETRY
    async with aclosing(frames):
        async for some in frames:
            yield b"".join(event_bytes(frame.id, frame.event, frame.data) for frame in some) or HEARTBEAT
