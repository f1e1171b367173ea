"""The events of a run as the clients saw them; the checker judges them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Frame = Mapping[str, Any]
NO_FRAME: Frame = {}
EXTRAS = ("data", "mentions", "replyTo")


def extras_of(frame: Frame) -> str:
    """The fields beside the text, in one form; empty if a message has none."""
    found = {name: frame[name] for name in EXTRAS if frame.get(name)}
    return json.dumps(found, sort_keys=True) if found else ""


# Times are seconds on one monotonic clock.

Span = tuple[float, float]
"""first and last moment"""


def overlapping(spans: Iterable[Span], begin: float, end: float) -> list[Span]:
    """All spans that share a moment with the time from begin to end."""
    return [(first, last) for first, last in spans if first <= end and last >= begin]


class Send(NamedTuple):
    """A message frame was written."""

    at: float
    key: str


class Answer(NamedTuple):
    """`accepted` (then `message_id` is set) or `error` (then `code` is; UNCHANGED for `changed: false`).

    `room` and `version` are those of a changed room.
    """

    at: float
    key: str
    message_id: str = ""
    send_time: int = 0
    code: str = ""
    room: str = ""
    version: int = 0


UNCHANGED = "unchanged"


class Got(NamedTuple):
    """A delivered message or event; `frame` is that of an event, or of a message in a room."""

    at: float
    seq: int
    message_id: str
    key: str
    sender: str
    text: str
    frame: Frame = NO_FRAME
    extras: str = ""


def got_of(at: float, frame: Frame) -> Got:
    """A frame that was delivered at this time."""
    text = frame.get("msg", "")
    more = frame if "kind" in frame else NO_FRAME
    extras = extras_of(frame) if text else ""
    return Got(
        at, frame["seq"], frame["id"], frame.get("clientMsgId", ""), frame["userId"], text, more, extras
    )


class Reset(NamedTuple):
    """The device was told that its inbox begins anew."""

    at: float
    epoch: str
    seq: int


Event = Send | Answer | Got | Reset


class StateGot(NamedTuple):
    """A frame of state. `ref`: of the device's own frame that it answers; empty if it came by itself.

    `entries`: by conversation (see key_of), the values that are not at their default.
    """

    at: float
    version: int
    entries: Mapping[str, Frame]
    all: bool = False
    ref: str = ""


SELECTORS = ("with", "group", "room")


def key_of(selector: Frame) -> str:
    """A conversation from its user's side, as one word; `selector` may have more fields."""
    if selector.get("group"):
        return "group " + ",".join(selector["group"])
    return next((f"{name} {selector[name]}" for name in SELECTORS if selector.get(name)), "")


def values_of(entry: Frame) -> Frame:
    """A conversation's marks and settings, without those at their default."""
    return {name: value for name, value in entry.items() if name not in SELECTORS and value}


@dataclass(slots=True)
class StateChange:
    """A frame by which a device marks, mutes or pins. `ref` is unique in the whole run."""

    ref: str
    user: str
    device: str
    frame: Frame
    sent: list[float] = field(default_factory=list)
    """each time that it was written"""
    answered_at: float | None = None
    code: str = ""
    """of its refusal, for good"""

    @property
    def marks(self) -> Mapping[str, str]:
        """By conversation: up to which message it has been read."""
        named = self.frame.get("marks") or [self.frame]
        return {key_of(mark): mark["upTo"] for mark in named if "upTo" in mark}


class StateDocument(NamedTuple):
    """A user's state in MongoDB; entries by conversation. `moved` are those that have left the document."""

    version: int
    entries: Mapping[str, Frame]
    moved: Mapping[str, Frame] = NO_FRAME


@dataclass(slots=True)
class Message:
    """A message or a change that a device sends. `key` is its clientMsgId, and unique in the whole run."""

    key: str
    sender: str
    device: str
    recipients: frozenset[str] = frozenset()
    """for a visitor's message: the agents; in rooms the model knows them"""
    desk: bool = False
    """a visitor's, to whichever agent the desk finds"""
    kind: str = ""
    """as events have it: message (in a room), edit, recall, react, room; empty for a private message"""
    frame: Frame = field(default_factory=dict)
    """as it was sent; of events and messages in rooms only"""
    given_up: bool = False
    """its client sends it no more, and never will know"""
    extras: str = ""
    """see extras_of"""

    @property
    def text(self) -> str:
        return "" if self.kind in ("recall", "react", "room") else f"text of {self.key}"

    @property
    def room(self) -> str:
        return str(self.frame.get("room") or "")

    @property
    def of(self) -> str:
        """The id of the message that is edited, recalled or reacted to."""
        return str(self.frame.get("id") or "")


@dataclass(slots=True)
class Connection:
    """One connection of a device, from its connect frame on."""

    user: str
    device: str
    node: str
    attempt: int
    acks: bool
    asked: tuple[str, int] | None
    """the cursor that it named"""
    opened_at: float
    epoch: str = ""
    """empty until it is connected"""
    seq: int = 0
    recovered: bool = True
    connected_at: float = 0.0
    events: list[Event] = field(default_factory=list)
    closed_at: float | None = None
    close_code: int | None = None
    live: bool = False
    """it lived until the run was over, and had all the time it needed"""
    has_state: bool = False
    """the device has the feature `state`"""
    state_asked: int | None = None
    """the version of its user's state that it named"""
    states: list[StateGot] = field(default_factory=list)


class Document(NamedTuple):
    """One message in the archive."""

    message_id: str
    key: str
    user: str
    recipients: frozenset[str]
    participants: frozenset[str]
    text: str
    kind: str = ""
    room: str = ""
    version: int = 0
    """of the room, under which it was placed"""
    edited: str = ""
    """the id of the edit that it shows"""
    is_recalled: bool = False
    extras: str = ""


class EventDocument(NamedTuple):
    """One event in the archive: its fields, and its body as `changes` gives it."""

    event_id: str
    key: str
    user: str
    kind: str
    of: str
    room: str
    version: int
    """of the room that it made, or under which its message was placed"""
    body: Frame


@dataclass(slots=True)
class Room:
    """A room as it was asked for at the end: by one of its members, or in MongoDB."""

    version: int
    members: dict[str, str]
    """user: role"""
    rules: dict[str, str]
    past: Sequence[tuple[int, str]] = ()
    """version and key of each change that the document remembers"""


@dataclass
class ReadBack:
    """All that a user reads at the end. Keys are rooms; an empty one is for all that is in no room."""

    pages: dict[str, list[Frame]] = field(default_factory=dict)
    """entries of history, oldest first"""
    changes: dict[str, list[Frame]] = field(default_factory=dict)
    rooms: dict[str, Room] = field(default_factory=dict)
    talks: list[Frame] | None = None
    """the list of conversations, newest first"""


@dataclass
class History:
    """A whole run."""

    messages: dict[str, Message] = field(default_factory=dict)
    connections: list[Connection] = field(default_factory=list)
    losses: list[Span] = field(default_factory=list)
    """when Redis lost data"""
    splits: list[Span] = field(default_factory=list)
    """when two primaries of Redis took writes, until all nodes were at the one that stayed"""
    synced: frozenset[str] = frozenset()
    """users whose devices all get what the others send"""
    archive: list[Document] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    """the keys of what is among the dead letters; poison is not listed"""
    read: dict[str, list[str]] = field(default_factory=dict)
    """per user: message ids that `history` with `all` gave, oldest first"""
    read_back: dict[str, ReadBack] = field(default_factory=dict)
    """per user who takes part in events"""
    events: list[EventDocument] = field(default_factory=list)
    rooms: dict[str, Room] = field(default_factory=dict)
    """as MongoDB has them"""
    state_changes: dict[str, StateChange] = field(default_factory=dict)
    """marks and settings, by `ref`"""
    states: dict[str, StateDocument] = field(default_factory=dict)
    """by user, as MongoDB has them"""
    is_archived: bool = True
    """all that was accepted was in the archive before users read"""
    had_time_for_state: bool = True
    """hints of state may be lost: by now the nodes must have found all of these"""
