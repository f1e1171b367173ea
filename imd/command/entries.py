"""Messages and events in words, for `imd chat`."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from imd.client import Edit, Entry, Message, Reaction, Recall, RoomEvent, View
from imd.command.output import harmless

COLOURS = ("cyan", "magenta", "green", "yellow", "blue")
QUOTED = 40
"""characters of a message that another one is about"""


def clock(ms: int) -> str:
    """The local time of day, with the date unless it is today. `ms`: since the epoch."""
    at = time.localtime(ms / 1000)
    today = time.strftime("%F", at) == time.strftime("%F")
    return time.strftime("%H:%M" if today else "%F %H:%M", at)


def as_json(entry: Entry) -> dict[str, Any]:
    """All fields. `kind` is left out for a message, so that it looks as ever."""
    kinds = {Edit: "edit", Recall: "recall", Reaction: "react", RoomEvent: "room"}
    kind = kinds.get(type(entry))
    return asdict(entry) | ({} if kind is None else {"kind": kind})


def colour(entry: Entry, me: str | None) -> str:
    if entry.user_id == me:
        return "dim"
    return COLOURS[sum(entry.user_id.encode()) % len(COLOURS)]


def in_words(entry: Entry, view: View, where: str) -> str:
    """A line without its time, safe for a terminal. `view` knows the messages; `where`: behind the user."""
    who = harmless(entry.user_id + where)
    match entry:
        case Message():
            return f"{who}: {_quote(entry, view)}{_text(entry)}"
        case Edit():
            return f"{who} edited: {harmless(entry.msg)}"
        case Recall():
            return f"{who} recalled a message{_of(view.get(entry.of))}"
        case Reaction():
            done = "reacts" if entry.on else "no longer reacts"
            about = view.get(entry.of)
            said = f' to "{_short(about.msg)}"' if about is not None and about.msg else _of(about)
            return f"{who} {done} with {harmless(entry.reaction)}{said}"
        case RoomEvent():
            return f"{who} {_room_event(entry)}"


def _text(message: Message) -> str:
    if message.recalled is not None:
        return "(recalled)"
    edited = " (edited)" if message.edited is not None else ""
    reactions = " ".join(f"{each.reaction} {each.count}" for each in message.reactions)
    return harmless(message.msg) + edited + (f"  [{harmless(reactions)}]" if reactions else "")


def _quote(message: Message, view: View) -> str:
    about = view.get(message.reply_to) if message.reply_to else None
    return f'> {harmless(about.user_id)}: "{_short(about.msg)}" > ' if about is not None else ""


def _of(message: Message | None) -> str:
    return "" if message is None else f" of {clock(message.send_time)}"


def _short(text: str) -> str:
    return harmless(text if len(text) <= QUOTED else text[: QUOTED - 1] + "…")


def _room_event(event: RoomEvent) -> str:
    users = harmless(", ".join(user.user_id for user in event.users))
    members = f"{event.count} members"
    match event.action:
        case "create":
            return f'made the room "{harmless(event.name or "")}" ({event.room}) with {users}'
        case "add":
            return f"added {users} ({members})"
        case "remove":
            return f"removed {users} ({members})"
        case "role":
            return "gave roles: " + harmless(", ".join(f"{user.user_id} {user.role}" for user in event.users))
        case "set":
            rules = {"name": event.name, "posting": event.posting, "history": event.history}
            rules["joining"] = event.joining
            changed = ", ".join(f"{name} {value}" for name, value in rules.items() if value is not None)
            return f"changed the room: {harmless(changed) or 'data'}"
        case "join":
            return f"joined ({members})"
        case "leave":
            return f"left ({members})"
        case "close":
            return "closed the room"
        case other:
            return f"changed the room ({harmless(other)})"
