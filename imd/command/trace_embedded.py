"""Where a message is in the embedded backend's file, read beside a node that may be running."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from imd.command.whereabouts import Device, Place, Whereabouts
from imd.config.settings import Settings
from imd.contracts.rooms import Room


def find(settings: Settings, found: Whereabouts, users: list[str], seconds: float) -> None:
    """Fill in what is found. Raises OSError if the file cannot be read."""
    path = Path(settings.node.data, "imd.db")
    if not path.exists():
        raise FileNotFoundError(f"{path.absolute()}: not there (data is relative to where a node starts)")
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=seconds)
        ) as file:
            _read(file, found, users)
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from None


def _read(file: sqlite3.Connection, found: Whereabouts, users: list[str]) -> None:
    # A change of a room may have a second row, with more about the room, for those whom it lets in.
    select = "SELECT number, body FROM message WHERE id = ? ORDER BY number"
    rows = file.execute(select, (found.id,)).fetchall()
    numbers = [number for number, _ in rows]
    if rows:
        number, body = rows[0]
        message: dict[str, Any] = json.loads(body)
        # Written in the same transaction as the inboxes, so there is no time of its own.
        found.archived = True
        found.sender = message["userId"]
        found.kind, found.of = message.get("kind", ""), message.get("of", "")
        found.room = message.get("room", "")
        to, group = message.get("to"), message.get("group")
        found.recipients = [to] if to else list(dict.fromkeys(group or ()))
        if found.room:
            version = message.get("roomVersion") or message.get("version") or message.get("ofVersion") or 0
            found.find_members(_room(file, found.room), version, message)
        if message.get("isVisitor"):
            found.recipients = _agents(file, number, found.sender)
            found.waiting_at_desk = _waiting(file, number, found.sender)
    wanted = list(dict.fromkeys([*found.recipients, *users]))
    found.places += [_place(file, user, numbers) for user in wanted]
    found.add_sender(wanted, lambda sender: _place(file, sender, numbers))


def _room(file: sqlite3.Connection, room: str) -> Room | None:
    row = file.execute("SELECT body FROM room WHERE id = ?", (room,)).fetchone()
    return None if row is None else msgspec.json.decode(row[0], type=Room)


def _agents(file: sqlite3.Connection, number: int, visitor: str) -> list[str]:
    names = file.execute(
        "SELECT name FROM participant JOIN user USING (uid) WHERE message = ? AND name <> ?",
        (number, visitor),
    )
    return [name for (name,) in names]


def _waiting(file: sqlite3.Connection, number: int, visitor: str) -> int | None:
    lines = file.execute(
        "SELECT message FROM waiting JOIN user USING (uid) WHERE name = ? ORDER BY position", (visitor,)
    )
    places = [message for (message,) in lines]
    return places.index(number) if number in places else None


def _place(file: sqlite3.Connection, name: str, numbers: Sequence[int]) -> Place:
    place = Place(name)
    user = file.execute("SELECT uid, epoch, seq FROM user WHERE name = ?", (name,)).fetchone()
    if user is None:
        return place
    uid, place.epoch, place.head = user
    for number in numbers:
        row = file.execute("SELECT seq FROM inbox WHERE uid = ? AND message = ?", (uid, number)).fetchone()
        if row is not None:
            (place.seq,) = row
    for device, epoch, seq in file.execute("SELECT name, epoch, seq FROM device WHERE uid = ?", (uid,)):
        acknowledged = seq if epoch == place.epoch else 0
        has_it = None if place.seq is None else acknowledged >= place.seq
        # Channels are in the node's memory only.
        place.devices.append(Device(device, acknowledged, has_it))
    return place
