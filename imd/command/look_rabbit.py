"""RabbitMQ, as the doctor sees it: does the archive's queue hold, and does somebody empty it?"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from imd.command.look import certificate, note, ok, problem, say, version_of, warning
from imd.command.output import Finding
from imd.config.settings import Settings
from imd.store.rabbit.archive_queue import (
    ARCHIVE_QUEUE,
    DEAD_QUEUE,
    archive_arguments,
    dead_arguments,
    without_dead_letters,
)

PART = "rabbitmq"
LEAST_VERSION = (3, 10)
_NOT_FOUND, _PRECONDITION_FAILED = 404, 406


def look(settings: Settings, seconds: float, management: str | None = None) -> Iterator[Finding]:
    """`management`: the management API, http[s]://user:password@host:port, if it is to be asked."""
    parts = urlsplit(settings.rabbitmq.url)
    secure = parts.scheme == "amqps"
    host, port = parts.hostname or "127.0.0.1", parts.port or (5671 if secure else 5672)
    if secure:
        yield certificate(PART, host, port, seconds)
    parameters = pika.ConnectionParameters(
        host,
        port,
        unquote(parts.path[1:]) or "/",
        pika.PlainCredentials(unquote(parts.username or "guest"), unquote(parts.password or "guest")),
        ssl_options=pika.SSLOptions(ssl.create_default_context(), host) if secure else None,
        socket_timeout=seconds,
        stack_timeout=seconds,
        blocked_connection_timeout=seconds,
        connection_attempts=1,
    )
    try:
        connection = pika.BlockingConnection(parameters)
    except (AMQPError, OSError) as error:
        advice = "Without it no new message is accepted; what is in the inboxes still arrives."
        yield problem(PART, f"{host}:{port} cannot be used: {say(_cause(error))}", advice)
        return
    try:
        yield from _broker(connection, f"{host}:{port}", settings)
    finally:
        if connection.is_open:
            connection.close()
    if management:
        yield from _management(management, parameters.virtual_host, seconds)


def _cause(error: BaseException) -> BaseException:
    """What pika wraps, and keeps to itself in `str`."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    inner = getattr(error, "exception", None)
    return inner if isinstance(inner, BaseException) else error


def _broker(connection: Any, where: str, settings: Settings) -> Iterator[Finding]:
    properties = connection._impl.server_properties or {}
    raw = properties.get("version", b"")
    version = raw.decode() if isinstance(raw, bytes) else str(raw)
    if version_of(version) < LEAST_VERSION:
        yield problem(PART, f"{where}: version {version}; 3.10 is the oldest with what is needed")
    else:
        yield ok(PART, f"{where}: version {version}")
    arguments = archive_arguments(version_of(version), settings.archive.queue_bytes)
    waiting = _length(connection, ARCHIVE_QUEUE)
    if waiting is None:
        yield note(PART, f"{ARCHIVE_QUEUE} is not there yet: the first node that starts makes it")
    else:
        batches, consumers = waiting
        yield from _arguments(connection, ARCHIVE_QUEUE, arguments, without_dead_letters(arguments))
        if not consumers and batches:
            advice = "A node with [archive] consume = yes has to run, and MongoDB has to answer."
            yield warning(PART, f"{batches:,} batches wait in {ARCHIVE_QUEUE}, and nobody takes them", advice)
        else:
            yield ok(PART, f"{batches:,} batches wait in {ARCHIVE_QUEUE}, {consumers} consumers")
    dead = _length(connection, DEAD_QUEUE)
    if dead is not None:
        yield from _arguments(connection, DEAD_QUEUE, dead_arguments())
        if dead[0]:
            advice = "MongoDB refused them. How to look and to replay them: docs/operations.md, Dead letters."
            yield warning(PART, f"{dead[0]:,} messages lie in {DEAD_QUEUE}: the archive lacks them", advice)
        else:
            yield ok(PART, f"{DEAD_QUEUE} is empty")


def _length(connection: Any, queue: str) -> tuple[int, int] | None:
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


def _arguments(
    connection: Any, queue: str, arguments: dict[str, Any], older: dict[str, Any] | None = None
) -> Iterator[Finding]:
    """The queue exists, so declaring it the way nodes do changes nothing, and the broker compares.

    `older`: how older versions made it, which will do.
    """
    refused = _refused(connection, queue, arguments)
    if refused is None:
        yield ok(PART, f"{queue} is a durable {arguments['x-queue-type']} queue, as nodes make it")
    elif refused.reply_code != _PRECONDITION_FAILED:
        yield warning(PART, f"{queue}: {refused.reply_text}")
    elif older is not None and _refused(connection, queue, older) is None:
        advice = "To have them: delete it while it is empty and no node runs."
        yield note(PART, f"{queue} has no dead-letter arguments: what a policy takes out is gone", advice)
    else:
        _, _, words = refused.reply_text.partition(" - ")
        advice = (
            "It is used as it is. To change it: a policy, or delete it while it is empty and no node runs."
        )
        yield warning(PART, f"{queue} is not as nodes would make it: {words or refused.reply_text}", advice)


def _refused(connection: Any, queue: str, arguments: dict[str, Any]) -> ChannelClosedByBroker | None:
    channel = connection.channel()
    try:
        channel.queue_declare(queue, durable=True, arguments=arguments)
    except ChannelClosedByBroker as closed:
        return closed
    channel.close()
    return None


def _management(url: str, vhost: str, seconds: float) -> Iterator[Finding]:
    """Alarms, and who holds the archive's queue. Nothing else tells before it is too late."""
    parts = urlsplit(url)
    base = f"{parts.scheme}://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 15672)}"
    login = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}".encode()

    def ask(path: str) -> Any:
        request = urllib.request.Request(base + path)
        request.add_header("Authorization", f"Basic {base64.b64encode(login).decode()}")
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return json.load(answer)

    try:
        nodes = ask("/api/nodes")
        queue = ask(f"/api/queues/{quote(vhost, safe='')}/{ARCHIVE_QUEUE}")
        dead = ask(f"/api/queues/{quote(vhost, safe='')}?name={DEAD_QUEUE}")
    except (OSError, ValueError) as error:
        yield warning(PART, f"the management API at {base}: {say(error)}")
        return
    for one in [queue, *(one for one in _listed(dead) if one.get("name") == DEAD_QUEUE)]:
        yield from _policy(one)
    for node in nodes:
        for alarm in ("mem_alarm", "disk_free_alarm"):
            if node.get(alarm):
                yield problem(PART, f"{node.get('name')}: {alarm}; messages are refused until it is over")
        if node.get("partitions"):
            yield problem(PART, f"{node.get('name')}: cut off from {', '.join(node['partitions'])}")
        if not node.get("running", True):
            yield warning(PART, f"{node.get('name')} is not running")
    members, online = queue.get("members", []), queue.get("online", [])
    if len(members) == 1:
        yield note(PART, f"{ARCHIVE_QUEUE} is on one broker only", "Three brokers survive the loss of one.")
    elif len(online) < len(members):
        yield warning(PART, f"{ARCHIVE_QUEUE}: {len(online)} of {len(members)} members are online")
    else:
        yield ok(PART, f"{ARCHIVE_QUEUE} is on {len(members)} brokers, all online")


def _listed(answer: Any) -> list[Any]:
    """Queues, as the API lists them: in pages or not."""
    found = answer.get("items", []) if isinstance(answer, dict) else answer
    return [one for one in found if isinstance(one, dict)]


def _policy(queue: dict[str, Any]) -> Iterator[Finding]:
    """What a policy says of one of imd's queues that takes messages out of it."""
    name = queue.get("name")
    said = queue.get("effective_policy_definition") or {}
    if not isinstance(said, dict):
        # RabbitMQ shows no policy as an empty list.
        return
    harmful = {key for key in ("message-ttl", "expires", "delivery-limit") if key in said}
    lengths = {key for key in ("max-length", "max-length-bytes") if key in said}
    # A policy's word on overflow beats the queue's; the dead queue has none, and drops the oldest.
    overflow = said.get("overflow", "reject-publish" if name == ARCHIVE_QUEUE else "drop-head")
    if lengths and overflow == "drop-head":
        harmful |= lengths
    names = queue.get("policy"), queue.get("operator_policy")
    policies = " and ".join(policy for policy in names if policy)
    if harmful:
        advice = "Make its pattern narrower: what it takes out is missing in the archive."
        keys = ", ".join(f"{key} = {said[key]}" for key in sorted(harmful))
        yield problem(PART, f"the policy {policies} takes messages out of {name}: {keys}", advice)
