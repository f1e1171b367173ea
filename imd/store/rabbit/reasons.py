"""Why RabbitMQ refuses, in words."""

from __future__ import annotations

from twisted.python.failure import Failure

from imd.store.reasons import one_line

MAX_TEXT = 300


def reason_of(error: object) -> str:
    """An error, a Failure or a text in a line. pika's errors hold the broker's words, never credentials."""
    if isinstance(error, Failure):
        error = error.value
    return one_line(error, MAX_TEXT) if isinstance(error, BaseException) else str(error)[:MAX_TEXT]


def plain_reason(reason: str) -> str:
    """Why there is no connection, behind a word for it."""
    return reason if reason.startswith("tls, ") else f"down ({reason})"
