"""All that can be said of where a message is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imd.contracts.rooms import LARGE_ROOM, Room
from imd.protocol.events import REACT, ROOM

MOST_INBOXES = 20
"""of a room's members that are looked into"""


@dataclass(slots=True)
class Device:
    """Of a recipient."""

    name: str
    acknowledged: int
    has_it: bool | None
    """None: the message is not in the inbox, so its number is not known"""
    live: bool | None = None
    """connected; None: not known"""


@dataclass(slots=True)
class Place:
    """A recipient's inbox. `seq`: the message's number there; None when it is not there (any more)."""

    user: str
    epoch: str | None = None
    head: int = 0
    seq: int | None = None
    devices: list[Device] = field(default_factory=list)


@dataclass(slots=True)
class Whereabouts:
    """All that can be said of a message. Times in milliseconds."""

    id: str
    made: int
    """by its id"""
    kind: str = ""
    """of an event; empty for a plain message, and if it is not known"""
    of: str = ""
    """the message that was edited, recalled or reacted to"""
    room: str = ""
    sender: str = ""
    recipients: list[str] = field(default_factory=list)
    """in a room at most MOST_INBOXES"""
    archived: bool = False
    archived_at: int | None = None
    waiting_at_desk: int | None = None
    """a visitor's message: its place in the line of what waits for an agent"""
    places: list[Place] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find_members(self, room: Room | None, version: int, change: Mapping[str, Any]) -> None:
        """Note the recipients in a room, as it is now: nothing tells who was a member before.

        `version`: the room's that it was placed under; 0 if that is not known. `change`: a change of the
        room, as its JSON says; the users whom it names may have left by it. Empty for anything else.
        """
        named = [user["userId"] for user in change.get("users", ())]
        if room is None:
            self.notes.append("the room is not there: name its members with --user")
            return
        # Later members get what is about earlier messages, if the room shows these to them.
        to_all = not version or (self.of and room.history == "all")
        there = [member.user for member in room.members if to_all or member.joined <= version]
        users = [user for user in dict.fromkeys([*named, *there]) if user != self.sender]
        self.recipients = users[:MOST_INBOXES]
        if len(users) > MOST_INBOXES:
            self.notes.append(
                f"{len(users)} members may have got it, of whom {MOST_INBOXES} are looked at: "
                "name others with --user"
            )
        if len(room.members) > LARGE_ROOM and self.kind in (REACT, ROOM):
            self.notes.append(f"in a room of more than {LARGE_ROOM} members not all of them get this")

    def add_sender(self, looked_at: Sequence[str], look: Callable[[str], Place]) -> None:
        """Add the sender's inbox if it has a copy, for another device of theirs (`sync`)."""
        if self.sender and self.sender not in looked_at:
            place = look(self.sender)
            if place.seq is not None:
                self.places.append(place)

    @property
    def found(self) -> bool:
        at_desk = self.waiting_at_desk is not None
        return self.archived or at_desk or any(place.seq is not None for place in self.places)
