"""`smartstore queue dead`: the messages that were given up, and why; one of them can be given back to its queue."""

import asyncio
import json
import sys
from datetime import UTC, datetime

from smartstore_indexing.errors import Misconfigured, UnknownResource
from smartstore_indexing.messages import MAX_BODY_BYTES
from smartstore_indexing.opening import has_broker, opened_queues
from smartstore_indexing.queues import ANSWERS, BATCH, INDEX, DeadLetter
from smartstore_indexing.settings import Settings, load_settings

QUEUES = (INDEX, ANSWERS, BATCH)
SHOWN = 100  # of a queue, the oldest


def run_dead(queue: str | None, *, as_json: bool, requeue: str | None) -> int:
    """Print the dead letters, of all queues unless one is named, or give one back.

    Raises:
        Misconfigured: no broker is set, or it refuses us.
        UnknownResource: there is no dead letter of that id.
        StoreUnavailable: the broker does not answer.
    """
    settings = load_settings()
    if not has_broker(settings):
        raise Misconfigured("RabbitMQ가 설정되어 있지 않습니다. SMARTSTORE_RABBITMQ__URL을 설정해 주세요.")
    named = (queue,) if queue else QUEUES
    if requeue is not None:
        where = asyncio.run(_requeued(settings, named, requeue))
        sys.stdout.write(f"{requeue}을(를) {where} 큐로 돌려보냈습니다. 처음부터 다시 처리합니다.\n")
        return 0
    letters = asyncio.run(_dead_letters(settings, named))
    for name, letter in letters:
        sys.stdout.write(f"{_as_json(name, letter) if as_json else _line(name, letter)}\n")
    if not letters and not as_json:
        sys.stdout.write("포기한 메시지가 없습니다.\n")
    return 0


async def _dead_letters(settings: Settings, named: tuple[str, ...]) -> list[tuple[str, DeadLetter]]:
    async with opened_queues(settings) as queues:
        return [(name, letter) for name in named for letter in await queues.dead_letters(name, limit=SHOWN)]


async def _requeued(settings: Settings, named: tuple[str, ...], message_id: str) -> str:
    async with opened_queues(settings) as queues:
        for name in named:
            if await queues.requeue(name, message_id):
                return name
    raise UnknownResource(f"ID가 {message_id}인 메시지가 없습니다. `smartstore queue dead`로 확인해 주세요.")


def _line(queue: str, letter: DeadLetter) -> str:
    when = datetime.fromtimestamp(letter.died_at).astimezone()
    line = f"{queue}  {letter.message_id}  {when:%Y-%m-%d %H:%M:%S}  시도 {letter.attempts}번  {letter.reason}"
    # Strangers may have made its parts: they must not steer the terminal.
    return "".join(character if character.isprintable() else "?" for character in line)


def _as_json(queue: str, letter: DeadLetter) -> str:
    found = {
        "queue": queue,
        "id": letter.message_id,
        "reason": letter.reason,
        "died_at": datetime.fromtimestamp(letter.died_at, UTC).isoformat(timespec="seconds"),
        "attempts": letter.attempts,
    }
    if queue == INDEX:  # a question may hold personal data
        found["body"] = letter.body[:MAX_BODY_BYTES].decode("utf-8", "replace")
    return json.dumps(found, ensure_ascii=False)
