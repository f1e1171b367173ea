"""Shows a room: its rules and members, its version, and the version that Redis places messages by.

In a cluster MongoDB has the room, and Redis a copy of it. A copy of an earlier version is brought up to date
with the next change; one of another run of Redis does not count, and is made anew with the next message.
Events that wait belong to changes that were not finished; a node finishes them within seconds. The exit code
is 1 if there is no such room.

example:
  imd room r-5f0c6b0f0c1d4d7a9c3b1e2f4a5d6c7b --config etc/cluster.ini"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pymongo
from pymongo.errors import PyMongoError

from imd.command.findings import say
from imd.command.output import Output
from imd.command.redis_client import RedisClient, RedisError
from imd.config.settings import Settings, load
from imd.contracts.rooms import Room
from imd.protocol.errors import ConfigurationError
from imd.store.mongo.archive import DATABASE
from imd.store.mongo.rooms import COLLECTION


@dataclass
class Found:
    """A room as it is kept, and as messages are placed by. `waiting`: events that are not finished."""

    room: Room | None = None
    waiting: int = 0
    copy: str = ""
    notes: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("room", metavar="ID", help="the room's id")
    parser.add_argument("--config", "-c", required=True, metavar="FILE", help="the nodes' configuration")
    parser.add_argument("--seconds", type=float, default=5.0, help="a server's deadline (5)")


def run(options: Any, output: Output) -> int:
    settings = load(options.config)
    found = Found()
    if settings.node.backend == "cluster":
        _in_mongodb(settings, options.room, options.seconds, found)
        _in_redis(settings, options.room, options.seconds, found)
    else:
        _in_file(settings, options.room, options.seconds, found)
    show(found, options.room, output)
    return int(found.room is None)


def show(found: Found, room_id: str, output: Output) -> None:
    room = found.room
    if output.as_json:
        output.value(
            {
                "room": room_id,
                "found": room is not None,
                **({} if room is None else _as_json(room)),
                "waiting": found.waiting,
                "copy": found.copy,
                "notes": found.notes,
            }
        )
        return
    if room is None:
        output.line(f"{room_id}: no such room", "yellow")
    else:
        state = ", closed" if room.closed else ""
        output.line(f"{room.name} ({room.id}): version {room.version}, {len(room.members)} members{state}")
        output.line(f"posting {room.posting}, history {room.history}, joining {room.joining}")
        if found.copy:
            output.line(f"Redis: {found.copy}")
        if found.waiting:
            output.line(f"{found.waiting} events are not finished", "yellow")
        members = sorted(room.members, key=lambda member: member.user)
        rows = [(member.user, member.role, member.joined) for member in members]
        output.table(("user", "role", "since version"), rows)
    for note in found.notes:
        output.line(note, "yellow")


def _as_json(room: Room) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(room)
    names = ("name", "version", "closed", "posting", "history", "joining", "data")
    members = [{"userId": m.user, "role": m.role, "joined": m.joined} for m in room.members]
    return {**{name: shown[name] for name in names}, "members": members}


def _in_mongodb(settings: Settings, room: str, seconds: float, found: Found) -> None:
    client: Any = pymongo.MongoClient(
        settings.mongodb.url, serverSelectionTimeoutMS=int(seconds * 1000), appname="imd room"
    )
    try:
        with pymongo.timeout(seconds):
            document = client.get_default_database(DATABASE)[COLLECTION].find_one({"_id": room})
    except PyMongoError as error:
        raise ConfigurationError(f"MongoDB does not answer: {say(error)}") from None
    finally:
        client.close()
    if document is not None:
        found.room = msgspec.convert({**document, "id": room}, Room)
        found.waiting = len(document.get("outbox", []))


def _in_redis(settings: Settings, room: str, seconds: float, found: Found) -> None:
    try:
        with RedisClient(settings.redis.url, seconds) as redis:
            copy = redis.pairs("HGETALL", f"imd:room:{room}")
            run = bytes(redis("GET", "imd:run") or b"").decode().partition(" ")[0]
    except (RedisError, OSError) as error:
        found.notes.append(f"Redis does not answer: {say(error)}")
        return
    if "version" not in copy:
        found.copy = "no copy"
    else:
        found.copy = f"a copy of version {copy['version']}"
        if copy.get("run") != run:
            found.copy += ", of another run: it does not count"


def _in_file(settings: Settings, room: str, seconds: float, found: Found) -> None:
    path = Path(settings.node.data, "imd.db")
    if not path.exists():
        raise ConfigurationError(f"{path.absolute()}: not there (data is relative to where a node starts)")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=seconds)) as file:
            row = file.execute("SELECT body FROM room WHERE id = ?", (room,)).fetchone()
    except sqlite3.Error as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if row is not None:
        found.room = msgspec.json.decode(row[0], type=Room)
