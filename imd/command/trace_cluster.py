"""Where a message is in a cluster: MongoDB says who took part, Redis where it is in their inboxes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pymongo
from pika.exceptions import AMQPError
from pymongo.errors import PyMongoError

from imd.command.findings import say
from imd.command.rabbit_client import cause, connect, length
from imd.command.redis_client import RedisClient, RedisError
from imd.command.whereabouts import Device, Place, Whereabouts
from imd.config.settings import Settings
from imd.contracts.rooms import Room
from imd.protocol.events import ROOM
from imd.protocol.ids import id_in
from imd.store.mongo.apply import EVENTS
from imd.store.mongo.archive import COLLECTION, DATABASE
from imd.store.mongo.rooms import COLLECTION as ROOMS
from imd.store.rabbit.archive_queue import ARCHIVE_QUEUE, DEAD_QUEUE
from imd.store.redis.accept import encode_id

PAGE = 500


def find(settings: Settings, found: Whereabouts, users: list[str], seconds: float) -> None:
    """Fill in what is found. Raises OSError for a server that does not answer."""
    _in_archive(settings, found, seconds)
    if not found.archived:
        _on_the_way(settings, found, seconds)
    try:
        with RedisClient(settings.redis.url, seconds) as redis:
            if found.sender.startswith("visitor-"):
                _at_desk(redis, found, found.sender)
            wanted = list(dict.fromkeys([*found.recipients, *users]))
            for user in wanted:
                if user.startswith("visitor-") and found.waiting_at_desk is None:
                    _at_desk(redis, found, user)
                found.places.append(_place(redis, user, found.id))
            found.add_sender(wanted, lambda sender: _place(redis, sender, found.id))
    except RedisError as error:
        raise OSError(f"redis: {say(error)}") from None
    except OSError as error:
        raise OSError(f"redis: {say(error)}") from None


def _in_archive(settings: Settings, found: Whereabouts, seconds: float) -> None:
    milliseconds = int(seconds * 1000)
    client: Any = pymongo.MongoClient(
        settings.mongodb.url, serverSelectionTimeoutMS=milliseconds, tz_aware=True, appname="imd trace"
    )
    try:
        with pymongo.timeout(seconds):
            database = client.get_default_database(DATABASE)
            document = database[COLLECTION].find_one({"_id": found.id})
            if document is None:
                document = database[EVENTS].find_one({"_id": found.id})
            in_room = document is not None and document.get("room")
            room = database[ROOMS].find_one({"_id": in_room}) if in_room else None
    except PyMongoError as error:
        found.notes.append(f"MongoDB does not answer: {say(error)}")
        return
    finally:
        client.close()
    if document is None:
        return
    found.archived = True
    found.archived_at = int(document["createTime"].timestamp() * 1000)
    found.kind, found.of = document.get("kind", ""), document.get("of", "")
    found.room = document.get("room", "")
    if found.kind:
        found.sender = document["sender"]
        found.recipients = [one for one in document.get("participants", ()) if one != found.sender]
        if found.room:
            known = None if room is None else msgspec.convert({**room, "id": found.room}, Room)
            change = json.loads(document["body"]) if found.kind == ROOM else {}
            found.find_members(known, document.get("roomVersion", 0), change)
        return
    found.sender = document["userId"]
    to, group, agent = document.get("to"), document.get("group"), document.get("agent")
    found.recipients = [agent] if agent else [to] if to else list(dict.fromkeys(group or ()))


def _on_the_way(settings: Settings, found: Whereabouts, seconds: float) -> None:
    """How much waits to be archived, and how much was refused: the message may be among it."""
    try:
        connection = connect(settings.rabbitmq.url, seconds)
        try:
            for queue, what in ((ARCHIVE_QUEUE, "batches wait"), (DEAD_QUEUE, "refused messages lie")):
                count, _ = length(connection, queue) or (0, 0)
                if count:
                    found.notes.append(f"{count:,} {what} in {queue}: it may be among them")
        finally:
            if connection.is_open:
                connection.close()
    except (AMQPError, OSError) as error:
        found.notes.append(f"RabbitMQ cannot be asked: {say(cause(error))}")


def _at_desk(redis: RedisClient, found: Whereabouts, visitor: str) -> None:
    for number, body in enumerate(redis("LRANGE", f"imd:{{{encode_id(visitor)}}}:waiting", 0, -1)):
        if _is(body, found.id):
            found.waiting_at_desk = number
            found.sender = visitor


def _is(body: bytes, message_id: str) -> bool:
    """`id` is the first key of a message, and the second of an event."""
    whole = bytes(body)
    return id_in(whole) == message_id and whole.startswith((b'{"id":', b'{"kind":'))


def _place(redis: RedisClient, user: str, message_id: str) -> Place:
    def key(name: str) -> str:
        return f"imd:{{{encode_id(user)}}}:{name}"

    head = redis.pairs("HGETALL", key("head"))
    place = Place(user)
    if not head:
        return place
    place.epoch, place.head = head.get("epoch"), int(head.get("seq", 0))
    after = "-inf"
    while place.seq is None:
        page = redis("ZRANGEBYSCORE", key("inbox"), after, "+inf", "WITHSCORES", "LIMIT", 0, PAGE)
        for body, score in zip(page[::2], page[1::2], strict=True):
            # A message to many is named, not held.
            if bytes(body) == b"@%b" % message_id.encode() or _is(body, message_id):
                place.seq = int(float(score))
        if len(page) < 2 * PAGE:
            break
        after = f"({int(float(page[-1]))}"
    now = int(redis("TIME")[0])
    channels = redis.pairs("HGETALL", key("channels"))
    for name, cursor in redis.pairs("HGETALL", key("cursors")).items():
        ends = int(channels.get(name, "- 0").rpartition(" ")[2])
        has_it = None if place.seq is None else int(cursor) >= place.seq
        place.devices.append(Device(name, int(cursor), has_it, ends > now))
    return place
