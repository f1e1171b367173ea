"""MongoDB at the end of a run: messages, events and rooms."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.tools.drill.history import (
    Document,
    EventDocument,
    Frame,
    History,
    Room,
    StateDocument,
    extras_of,
    key_of,
    values_of,
)

MESSAGES, EVENTS, ROOMS = "im_message", "im_event", "im_room"
STATES, OLD_MARKS = "im_state", "im_mark"
RULES = ("name", "posting", "history", "joining")
# A conversation's fields in a document, as frames name them.
STATE_FIELDS = {
    "w": "with",
    "g": "group",
    "o": "room",
    "r": "read",
    "p": "peerRead",
    "m": "muted",
    "pin": "pinned",
    "h": "hidden",
    "cl": "cleared",
    "u": "marked",
}


def ids(database: Any) -> set[str]:
    """Of messages and events."""
    return {one["_id"] for name in (MESSAGES, EVENTS) for one in database[name].find({}, {"_id": 1})}


def state_versions(database: Any) -> dict[str, int]:
    """Of all users who have a state."""
    return {one["_id"]: int(one["v"]) for one in database[STATES].find({}, {"v": 1})}


def read(database: Any, history: History) -> None:
    """Put all of it into the history."""
    moved: dict[str, list[Any]] = {}
    for one in database[OLD_MARKS].find():
        moved.setdefault(one["_id"]["u"], []).append(one)
    history.states = {
        one["_id"]: StateDocument(
            int(one["v"]), _entries(one.get("c", {}).values()), _entries(moved.get(one["_id"], ()))
        )
        for one in database[STATES].find()
    }
    history.archive = [_message(one) for one in database[MESSAGES].find() if one.get("kind") != "room"]
    history.events = [_event(one) for one in database[EVENTS].find()]
    history.rooms = {one["_id"]: _room(one) for one in database[ROOMS].find()}


def _entries(documents: Iterable[Any]) -> dict[str, Frame]:
    named = [{STATE_FIELDS[name]: one[name] for name in STATE_FIELDS if name in one} for one in documents]
    return {key_of(entry): values_of(entry) for entry in named}


def _message(one: dict[str, Any]) -> Document:
    return Document(
        one["_id"],
        one.get("clientMsgId") or "",
        one.get("userId") or one["sender"],
        frozenset(one.get("group") or ([one["to"]] if one.get("to") else [])),
        frozenset(one.get("participants", ())),
        one["msg"],
        one.get("kind", ""),
        one.get("room", ""),
        one.get("roomVersion", 0),
        (one.get("edited") or {}).get("id", ""),
        bool(one.get("recalled")),
        extras_of({**one, "data": json.loads(one.get("data") or "null")}),
    )


def _event(one: dict[str, Any]) -> EventDocument:
    body = json.loads(one.get("full") or one["body"])
    return EventDocument(
        one["_id"],
        body["clientMsgId"],
        one["sender"],
        one["kind"],
        one.get("of", ""),
        one.get("room", ""),
        one.get("roomVersion", 0),
        body,
    )


def _room(one: dict[str, Any]) -> Room:
    return Room(
        one["version"],
        {member["u"]: member["r"] for member in one["members"]},
        {name: one[name] for name in RULES},
        [(past["version"], past["client_msg_id"]) for past in one["past"]],
    )
