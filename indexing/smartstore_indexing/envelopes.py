"""What RabbitMQ carries around a message's body: its id, how often it was tried, and why it was given up."""

import hashlib
from datetime import datetime

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, HeadersType

from smartstore_indexing.queues import ABANDONED, MAX_REASON, DeadLetter, Delivery

RETRIES, REASON, DIED_AT = "x-retry", "x-reason", "x-died-at"
UNKNOWN = "까닭이 적혀 있지 않습니다."
ID_DIGITS = 32
MAX_RETRIES = 1_000


def enveloped(body: bytes, message_id: str, headers: HeadersType | None = None) -> Message:
    """Return a message that outlives the broker's restart."""
    return Message(
        body,
        message_id=message_id,
        headers=headers,
        content_type="application/json",
        delivery_mode=DeliveryMode.PERSISTENT,
    )


async def send(channel: AbstractChannel, queue: str, message: Message) -> None:
    """Put a message straight into a queue, and return when it is there."""
    await channel.default_exchange.publish(message, queue, mandatory=True)


def delivery(message: AbstractIncomingMessage) -> Delivery:
    """Return a message as its handler gets it."""
    return Delivery(id_of(message), message.body, _retries(message) + 1, redelivered=bool(message.redelivered))


def dead_letter(message: AbstractIncomingMessage) -> DeadLetter:
    """Return a message of a dead-letter queue."""
    reason, died_at = message.headers.get(REASON), message.headers.get(DIED_AT)
    if not isinstance(reason, str):
        reason = ABANDONED if message.headers.get("x-first-death-reason") == "delivery_limit" else UNKNOWN
    if not isinstance(died_at, int):
        died_at = _first_death(message)
    return DeadLetter(id_of(message), reason[:MAX_REASON], float(died_at), _retries(message) + 1, message.body)


def id_of(message: AbstractIncomingMessage) -> str:
    """Return a message's id, for one without any a hash of its body."""
    return message.message_id or hashlib.sha256(message.body).hexdigest()[:ID_DIGITS]


def _retries(message: AbstractIncomingMessage) -> int:
    count = message.headers.get(RETRIES)
    return min(max(0, count), MAX_RETRIES) if isinstance(count, int) else 0  # others may have published it


def _first_death(message: AbstractIncomingMessage) -> float:
    deaths = message.headers.get("x-death")
    first = deaths[-1] if isinstance(deaths, list) and deaths else None
    when = first.get("time") if isinstance(first, dict) else None
    return when.timestamp() if isinstance(when, datetime) else 0.0
