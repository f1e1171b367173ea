"""A blocking connection to RabbitMQ for looking, with a deadline for each answer."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import unquote, urlsplit

import pika
from pika.exceptions import ChannelClosedByBroker

_NOT_FOUND = 404


def connect(url: str, seconds: float) -> Any:
    """`url` is as in [rabbitmq] url. Raises AMQPError or OSError, see `cause`."""
    parts = urlsplit(url)
    secure = parts.scheme == "amqps"
    host = parts.hostname or "127.0.0.1"
    parameters = pika.ConnectionParameters(
        host,
        parts.port or (5671 if secure else 5672),
        unquote(parts.path[1:]) or "/",
        pika.PlainCredentials(unquote(parts.username or "guest"), unquote(parts.password or "guest")),
        ssl_options=pika.SSLOptions(ssl.create_default_context(), host) if secure else None,
        socket_timeout=seconds,
        stack_timeout=seconds,
        blocked_connection_timeout=seconds,
        connection_attempts=1,
    )
    return pika.BlockingConnection(parameters)


def cause(error: BaseException) -> BaseException:
    """The error inside pika's, which the text of pika's leaves out."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    inner = getattr(error, "exception", None)
    return inner if isinstance(inner, BaseException) else error


def server_version(connection: Any) -> str:
    # pika's blocking connection keeps it in a private part.
    raw = (connection._impl.server_properties or {}).get("version", b"")
    return raw.decode() if isinstance(raw, bytes) else str(raw)


def length(connection: Any, queue: str) -> tuple[int, int] | None:
    """Messages that are ready, and consumers; None if there is no such queue."""
    channel = connection.channel()
    try:
        method = channel.queue_declare(queue, passive=True).method
    except ChannelClosedByBroker as closed:
        if closed.reply_code == _NOT_FOUND:
            return None
        raise
    channel.close()
    return int(method.message_count), int(method.consumer_count)
