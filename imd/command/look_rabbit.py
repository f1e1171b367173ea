"""RabbitMQ, as the doctor sees it: does the archive's queue hold, and who empties it?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import pymongo
from pika.exceptions import AMQPError, ChannelClosedByBroker
from pymongo.errors import PyMongoError

from imd.command.findings import Finding, note, ok, problem, say, warning
from imd.command.judge import certificate, version_of
from imd.command.look_rabbit_management import look_management
from imd.command.rabbit_client import cause, connect, length, server_version
from imd.config.settings import Mongodb, Settings
from imd.contracts.level import FIRST
from imd.store.mongo.archive import COLLECTION, DATABASE
from imd.store.mongo.ledger import count_writers
from imd.store.mongo.level import read_level
from imd.store.rabbit.archive_queue import (
    ARCHIVE_QUEUE,
    DEAD_QUEUE,
    archive_arguments,
    dead_arguments,
    without_dead_letters,
)

PART = "rabbitmq"
LEAST_VERSION = (3, 10)
PATIENCE_SECONDS = 7.0
"""for a node that has just begun to consume: it lists what it holds every three seconds"""
_PAUSE_SECONDS = 0.5
_PRECONDITION_FAILED = 406


def look(settings: Settings, seconds: float, management: str | None = None) -> Iterator[Finding]:
    """`management`: the management API, http[s]://user:password@host:port, if it is to be asked."""
    parts = urlsplit(settings.rabbitmq.url)
    secure = parts.scheme == "amqps"
    host, port = parts.hostname or "127.0.0.1", parts.port or (5671 if secure else 5672)
    if secure:
        yield certificate(PART, host, port, seconds)
    try:
        connection = connect(settings.rabbitmq.url, seconds)
    except (AMQPError, OSError) as error:
        advice = "Without it no new message is accepted; what is in the inboxes still arrives."
        yield problem(PART, f"{host}:{port} cannot be used: {say(cause(error))}", advice)
        return
    try:
        yield from _broker(connection, f"{host}:{port}", settings)
        yield from _strangers(connection, settings.mongodb, min(seconds, PATIENCE_SECONDS))
    finally:
        if connection.is_open:
            connection.close()
    if management:
        yield from look_management(management, unquote(parts.path[1:]) or "/", seconds)


def _broker(connection: Any, where: str, settings: Settings) -> Iterator[Finding]:
    version = server_version(connection)
    if version_of(version) < LEAST_VERSION:
        yield problem(PART, f"{where}: version {version}; 3.10 is the oldest with what is needed")
    else:
        yield ok(PART, f"{where}: version {version}")
    arguments = archive_arguments(version_of(version), settings.archive.queue_bytes)
    waiting = length(connection, ARCHIVE_QUEUE)
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
    dead = length(connection, DEAD_QUEUE)
    if dead is None and waiting is not None:
        advice = (
            "Its letters are lost; the next one makes it again. Is there a policy with expires? "
            "docs/how-to/dead-letters.md."
        )
        yield warning(PART, f"{DEAD_QUEUE} is gone: somebody or something deleted it", advice)
    elif dead is not None:
        yield from _arguments(connection, DEAD_QUEUE, dead_arguments())
        if dead[0]:
            advice = "MongoDB refused them. How to look and to replay them: docs/how-to/dead-letters.md."
            yield warning(PART, f"{dead[0]:,} messages lie in {DEAD_QUEUE}: the archive lacks them", advice)
        else:
            yield ok(PART, f"{DEAD_QUEUE} is empty")


def _strangers(connection: Any, mongodb: Mongodb, seconds: float) -> Iterator[Finding]:
    """Consumers of the archive queue that do not list in MongoDB what they hold, as nodes do."""
    if not _count_consumers(connection):
        return
    milliseconds = int(seconds * 1000)
    try:
        client: Any = pymongo.MongoClient(
            mongodb.url, serverSelectionTimeoutMS=milliseconds, tz_aware=True, appname="imd doctor"
        )
        with client, pymongo.timeout(2 * seconds):
            strangers, consumers = _count_strangers(
                connection, client.get_default_database(DATABASE), time.monotonic() + seconds
            )
    except (PyMongoError, ValueError):
        # The look at MongoDB tells of it.
        return
    if strangers > 0:
        what = (
            f"{strangers} of {consumers} consumers of {ARCHIVE_QUEUE} do not list in MongoDB what they hold: "
            "nodes that hang or do not reach MongoDB, or another program"
        )
        advice = "The archive lacks whatever a program takes. To find it: docs/how-to/missing-batches.md."
        yield warning(PART, what, advice)


def _count_strangers(connection: Any, database: Any, give_up_at: float) -> tuple[int, int]:
    """Strangers, and all consumers. A node may be new, so it looks until there are none, or time is up."""
    while True:
        consumers = _count_consumers(connection)
        if read_level(database[COLLECTION]) <= FIRST:
            # Nodes of 0.1 list nothing.
            return 0, consumers
        strangers = consumers - count_writers(database)
        if strangers <= 0 or time.monotonic() >= give_up_at:
            return strangers, consumers
        time.sleep(_PAUSE_SECONDS)


def _count_consumers(connection: Any) -> int:
    found = length(connection, ARCHIVE_QUEUE)
    return 0 if found is None else found[1]


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
