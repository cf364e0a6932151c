"""Replies and faults of models for the tests: the scripted server's, and fixed ones of a server of one reply."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from conftest import ModelServer, workflow_over
from pydantic import SecretStr

from smartstore_indexing.model_settings import OpenAISettings
from smartstore_indexing.setting_groups import StepSettings
from smartstore_workflows import Chatbot
from smartstore_workflows.chat_model import AnswerModel
from smartstore_workflows.models import Models
from smartstore_workflows.openai_chat import openai_model

# The fault, what the person is told of it, and what the model had said by then.
FAULTS = {
    "stub-429": ("사용 한도를 넘었습니다", ""),
    "stub-500": ("서버에 오류가 있습니다", ""),
    "stub-401": ("키를 거절했습니다.", ""),
    "stub-cut": ("서버에 오류가 있습니다", "하나 둘 셋 넷 다섯"),
    "stub-hang": ("제한 시간 안에 답하지 않았습니다", ""),
    "stub-empty": ("빈 답변을 보냈습니다", ""),
}
EVENT_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"


def chunk(content: str | None = None, usage: dict[str, int | None] | None = None) -> bytes:
    """Return one chunk of a streamed answer, text escaped as JSON allows."""
    choices = [{"index": 0, "delta": {"role": "assistant", "content": content}}] if content is not None else []
    body = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": choices,
        "usage": usage,
    }
    return f"data: {json.dumps(body)}\n\n".encode()


def completed(text: object, **rest: object) -> bytes:
    """Return the whole response that gives one completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **rest}
    return JSON + json.dumps(body).encode()


@asynccontextmanager
async def server_of(reply: bytes, *, silent: bool = False) -> AsyncIterator[str]:
    """Serve one fixed reply to every request, then close the connection, or hold it and say no more."""
    done = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        if silent:
            await done.wait()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        done.set()


@asynccontextmanager
async def model_of(url: str, name: str = "stub", **settings: float) -> AsyncIterator[AnswerModel]:
    """Open a model of a server that speaks OpenAI's protocol."""
    chosen = {"model": name, "max_retries": 0, "timeout_seconds": 0.5 if name == "stub-hang" else 10.0, **settings}
    opened = openai_model(OpenAISettings.model_validate(chosen), key="sk-test", base_url=url)
    try:
        yield opened
    finally:
        await opened.close()


def stats(server: ModelServer) -> dict[str, int]:
    """Return what the scripted server counted."""
    found: dict[str, int] = json.loads(server.get("/stub/stats"))
    return {"live": 0, "chat": 0, "disconnected": 0, **found}


def sent(server: ModelServer) -> list[dict[str, str]]:
    """Return the messages that the scripted server was last sent."""
    messages: list[dict[str, str]] = json.loads(server.get("/stub/last"))["messages"]
    return messages


def stepping(bot: Chatbot, model: AnswerModel, steps: StepSettings) -> Chatbot:
    """Return a bot over another's open index that takes these steps with this model."""
    services = bot.services
    workflow = workflow_over(services, models=Models({"openai": model}), steps=steps)
    settings = services.settings.model_copy(update={"openai_api_key": SecretStr("sk-test"), "steps": steps})
    found = Chatbot(settings)
    found._services = replace(services, settings=settings, models=Models({"openai": model}), workflow=workflow)
    return found
