"""The private part of pika that imd uses: the broker's words when it closes a connection.

pika knows them for a moment only. The socket closes next, as it always does, and pika then reports that
instead. No public callback gets the words, so one is added to pika's own table of callbacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika
from pika.adapters.twisted_connection import TwistedProtocolConnection

_CONNECTION_CHANNEL = 0


def when_closed_by_broker(protocol: TwistedProtocolConnection, call: Callable[[int, str], None]) -> None:
    """`call(code, text)` when the broker closes the connection, before the socket is closed."""

    def closed(frame: Any) -> None:
        call(frame.method.reply_code, frame.method.reply_text)

    protocol._impl.callbacks.add(_CONNECTION_CHANNEL, pika.spec.Connection.Close, closed)


def missing_parts(protocol: TwistedProtocolConnection) -> list[str]:
    """Names of the parts above that the installed pika does not have."""
    callbacks = getattr(getattr(protocol, "_impl", None), "callbacks", None)
    parts = {
        "TwistedProtocolConnection._impl": hasattr(protocol, "_impl"),
        "Connection.callbacks": callbacks is not None,
        "CallbackManager.add": callable(getattr(callbacks, "add", None)),
    }
    return [name for name, is_there in parts.items() if not is_there]
