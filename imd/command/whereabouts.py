"""All that can be said of where a message is."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    archived: bool = False
    archived_at: int | None = None
    waiting_at_desk: int | None = None
    """a visitor's message: its place in the line of what waits for an agent"""
    places: list[Place] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def found(self) -> bool:
        at_desk = self.waiting_at_desk is not None
        return self.archived or at_desk or any(place.seq is not None for place in self.places)
