"""WS /api/chat/ws: many turns on one socket, one after the other, each with the events of POST /api/chat."""

import asyncio
import json
from contextlib import aclosing, suppress

import structlog
from pydantic import TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from smartstore_indexing.errors import FaqError, InvalidRequest, Overloaded, TransientError
from smartstore_ui.api.chat import start
from smartstore_ui.api.context import Api, api_of
from smartstore_ui.api.errors import error_body
from smartstore_ui.api.requests import MAX_BODY_BYTES, AskMessage, CancelMessage, parsed
from smartstore_ui.api.runs import Frame, LiveRun

log = structlog.get_logger(__name__)
MAX_WAITING = 8  # questions sent before the ones ahead are answered
POLICY_VIOLATION = 1008


class Turns:
    """The turns of one socket."""

    def __init__(self, socket: WebSocket, api: Api) -> None:
        """Take an accepted socket."""
        self._socket = socket
        self._api = api
        self._asked: asyncio.Queue[AskMessage] = asyncio.Queue(MAX_WAITING)
        self._run: LiveRun | None = None
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        """Answer until the client leaves."""
        with suppress(WebSocketDisconnect):
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(self._answer())
                try:
                    await self._receive()
                finally:
                    answering.cancel()

    async def _receive(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                self._take(message.get("text"))
            except FaqError as error:
                await self._refuse(error)

    def _take(self, text: str | None) -> None:
        if text is None:
            raise InvalidRequest("텍스트(JSON) 메시지만 받습니다.")
        if len(text.encode()) > MAX_BODY_BYTES:
            raise InvalidRequest(f"메시지는 {MAX_BODY_BYTES // 1024}KiB까지 보낼 수 있습니다.")
        if _kind(text) == "cancel":
            wanted = parsed(text, CancelMessage).run_id
            if self._run is not None and self._run.run_id == wanted:
                self._run.stop()
            return
        try:
            self._asked.put_nowait(parsed(text, AskMessage))
        except asyncio.QueueFull as error:
            raise Overloaded("앞의 질문에 답하고 있습니다. 잠시 후 다시 질문해 주세요.", retry_after=1) from error

    async def _answer(self) -> None:
        while True:
            asked = await self._asked.get()
            try:
                self._run = await start(self._api, self._socket, asked)
            except FaqError as error:
                await self._refuse(error)
                continue
            async with aclosing(self._api.runs.follow(self._run)) as frames:
                async for some in frames:
                    for frame in some:
                        await self._send(_framed(frame))

    async def _refuse(self, error: FaqError) -> None:
        body = error_body(error.code, error.message, self._socket.state.request_id)["error"]
        data = {**body, "retryable": isinstance(error, TransientError)}
        await self._send(json.dumps({"id": 0, "event": "error", "data": data}, ensure_ascii=False))

    async def _send(self, text: str) -> None:
        async with self._sending:
            await self._socket.send_text(text)


async def chat_socket(socket: WebSocket) -> None:
    """Serve one socket; a page of another origin is turned away unless it is configured."""
    api = api_of(socket)
    try:
        api.access.same_origin(socket)
        api.access.open_to(socket)
    except FaqError:
        await socket.close(POLICY_VIOLATION)
        return
    await socket.accept()
    await Turns(socket, api).serve()


def _kind(text: str) -> object:
    try:
        message = TypeAdapter(dict[str, object]).validate_json(text)
    except ValidationError as error:
        raise InvalidRequest("JSON 객체가 필요합니다.") from error
    return message.get("type")


def _framed(frame: Frame) -> str:
    return f'{{"id": {frame.id}, "event": "{frame.event}", "data": {frame.data}}}'
