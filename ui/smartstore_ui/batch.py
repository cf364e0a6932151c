"""`smartstore ask --batch`: many questions from a file, their answers as JSON lines, each written as it is ready.

Where workers answer, the questions go into the queue that waits while anybody asks; else this process answers them.
"""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smartstore_indexing.errors import FaqError, InvalidRequest
from smartstore_indexing.opening import opened_queues
from smartstore_indexing.queues import BATCH_REQUESTED
from smartstore_indexing.settings import QUEUE, Settings, load_settings
from smartstore_ui.writing import check_target, write_whole
from smartstore_workflows import Chatbot, wire
from smartstore_workflows.answer_requests import asked
from smartstore_workflows.queued_answers import answer_of, opened_readers
from smartstore_workflows.redis_server import RedisServer
from smartstore_workflows.understanding import checked_question

HERE, QUEUED = 4, 100  # questions at once: one process answers few, and how many workers there are nobody knows here
WAIT_SECONDS = 24 * 3600.0
Result = dict[str, JsonValue]
Ask = Callable[[str], AsyncGenerator[wire.StreamEvent, None]]


class Item(BaseModel):
    """A question of the file; its id is by default the number of its line."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)

    id: str = Field("", max_length=200)
    question: str


def run_batch(questions: Path, output: Path | None, *, model: str | None) -> int:
    """Answer the questions of a file; return 1 when one of them could not be answered.

    What an earlier call wrote into `output` is kept, and only what failed or is missing there is asked.

    Raises:
        InvalidRequest: a file cannot be read or written.
    """
    items = read_items(questions)
    if output is not None:
        check_target(output, [questions])
    kept = _kept(output) if output is not None and output.exists() else {}
    missing = [item for item in items if kept.get(item.id) != item.question]
    failed = 0
    with _opened(output) as lines, _bar(len(items), len(items) - len(missing)) as advance:

        def keep(result: Result) -> None:
            nonlocal failed
            failed += "error" in result
            lines.write(json.dumps(result, ensure_ascii=False) + "\n")
            lines.flush()
            advance()

        asyncio.run(_answer(load_settings(), missing, model, keep))
    sys.stderr.write(f"질문 {len(items):,}건 가운데 {len(items) - failed:,}건에 답했습니다.\n")
    return 1 if failed else 0


def read_items(path: Path) -> list[Item]:
    """Return the questions of a file, each a line of text or of JSON; InvalidRequest when it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path}: 읽을 수 없습니다. 있는 파일인지, UTF-8 텍스트인지 확인해 주세요.") from error
    items = [_item(path, number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if len({item.id for item in items}) < len(items):
        raise InvalidRequest(f"{path}: 같은 id가 두 번 이상 있습니다.")
    return items


def _item(path: Path, number: int, line: str) -> Item:
    if not line.startswith("{"):
        return Item(id=str(number), question=line)
    try:
        item = Item.model_validate_json(line)
    except ValidationError as error:
        raise InvalidRequest(f'{path}: {number}번째 줄이 {{"question": "…"}} 형식의 JSON이 아닙니다.') from error
    return item if item.id else item.model_copy(update={"id": str(number)})


def _kept(output: Path) -> dict[str, str]:
    """Return the questions by their ids that a file holds answers to, and drop its other lines."""
    kept, answered = [], {}
    text = output.read_text(encoding="utf-8", errors="replace")
    for line in text.split("\n"):
        try:
            result = json.loads(line)
            if "answer" in result:
                answered[str(result["id"])] = str(result["question"])
                kept.append(line + "\n")
        except (ValueError, TypeError, KeyError):
            continue  # half a line, of a call that was killed
    if "".join(kept) != text:
        write_whole(output, "".join(kept), errors="replace")
    return answered


async def _answer(settings: Settings, items: Sequence[Item], model: str | None, keep: Callable[[Result], None]) -> None:
    """Hand each question's result to `keep`, as they are ready."""
    left = iter(items)
    async with _asking(settings, model) as (ask, at_once):

        async def some() -> None:
            for item in left:
                keep({"id": item.id, "question": item.question, **await _result(ask, item)})

        await asyncio.gather(*(some() for _ in range(at_once)))


@asynccontextmanager
async def _asking(settings: Settings, model: str | None) -> AsyncIterator[tuple[Ask, int]]:
    """Yield what answers a question, and how many it is given at once."""
    async with AsyncExitStack() as stack:
        if settings.answers != QUEUE:
            bot = await stack.enter_async_context(Chatbot(settings))
            await bot.warm_up()
            yield (lambda question: bot.stream(question, model=model, history=())), HERE
            return
        server = await RedisServer.open(settings.redis)
        stack.push_async_callback(server.close)
        queues = await stack.enter_async_context(opened_queues(settings))
        await queues.ping()
        readers = await stack.enter_async_context(opened_readers(settings, server))
        yield (
            lambda question: answer_of(
                asked(question, model=model, history=(), wait_seconds=WAIT_SECONDS),
                queues=queues,
                readers=readers,
                routing_key=BATCH_REQUESTED,
                wait_seconds=WAIT_SECONDS,
            ),
            QUEUED,
        )


async def _result(ask: Ask, item: Item) -> Result:
    whole = wire.Gathered()
    try:
        async with aclosing(ask(checked_question(item.question))) as events:
            async for event in events:
                whole.add(event)
        if whole.failure is None:
            return whole.reply().model_dump(mode="json", exclude={"session_id"})
        code, message = whole.failure.code, whole.failure.message
    except FaqError as error:
        code, message = error.code, error.message
    return {"error": {"code": code, "message": message}}


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    with output.open("a", encoding="utf-8", errors="backslashreplace") as lines:
        yield lines


@contextmanager
def _bar(total: int, done: int) -> Iterator[Callable[[], None]]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("답변", total=total, completed=done)
        yield lambda: bars.advance(task)
