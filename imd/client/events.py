"""Events, answers and errors, as programs see them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from imd.client.numbered import Edit, Member, Message, Reaction, Recall, RoomEvent
from imd.client.outgoing import Outgoing, Refusal


class State(StrEnum):
    IDLE = "idle"
    """not started"""
    CONNECTING = "connecting"
    OPEN = "open"
    """the node has said `connected`"""
    WAITING = "waiting"
    """between two attempts"""
    CLOSED = "closed"
    """stopped, or told not to come back"""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the archive, oldest first."""

    entries: list[Message | RoomEvent]
    """messages, and in a room also its changes"""
    more: bool
    """there are older entries"""
    more_after: bool = False
    """there are newer entries"""

    @property
    def messages(self) -> list[Message]:
        return [entry for entry in self.entries if isinstance(entry, Message)]


@dataclass(frozen=True, slots=True)
class Changes:
    """Events of the archive, oldest first: all but messages."""

    events: list[Edit | Recall | Reaction | RoomEvent]
    more: bool
    """there are later ones, after the last of these"""
    complete: str
    """everything up to this id is archived"""


@dataclass(frozen=True, slots=True)
class RoomInfo:
    """A room of one's own."""

    room: str
    name: str
    role: str
    count: int
    version: int
    posting: str = "all"
    history: str = "joined"
    joining: str = "invite"
    data: Mapping[str, Any] | None = None
    closed: bool = False


@dataclass(frozen=True, slots=True)
class RoomPage:
    """Rooms of one's own, by id."""

    rooms: list[RoomInfo]
    more: bool


@dataclass(frozen=True, slots=True)
class MemberPage:
    """Members of a room, by user id."""

    room: str
    version: int
    users: list[Member]
    more: bool


# ---- events


@dataclass(frozen=True, slots=True)
class StateChanged:
    state: State
    code: int | None = None
    """the close code, if there was one"""
    reason: str = ""
    retry_seconds: float | None = None
    """in the state `waiting`: time until the next attempt"""
    permanent: bool = False
    """in the state `closed`: the client must not come back unchanged"""


@dataclass(frozen=True, slots=True)
class Connected:
    user_id: str
    recovered: bool
    frame: Mapping[str, Any] = field(default_factory=dict)
    """the whole `connected` frame"""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The event is in every recipient's inbox and in the archive queue: it cannot be lost any more.

    `outgoing` has the `room` and `version` of a room's action. If its `changed` is False, nothing had to be
    done, and there is no id.
    """

    outgoing: Outgoing
    id: str
    send_time: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A message was refused for good. It stays in the outbox until it is cancelled or retried."""

    outgoing: Outgoing
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Gap:
    """The inbox could not be continued where this device stopped. Read the history for missing messages."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """The node is about to stop; the client comes back by itself."""

    reconnect_seconds: float


Event = StateChanged | Connected | Accepted | Failed | Gap | Leaving | Refusal
"""A Refusal as an event is an error that answers no message and no request."""


# ---- errors


class ClientError(Exception):
    """The base of the errors that a client raises."""


class OutboxFull(ClientError):
    """There is no room for another message. Wait for `drained`, or until some are accepted."""


class Unanswered(ClientError):
    """No answer within the deadline."""


class Refused(ClientError):
    """The node refused a message or a request; `refusal` has the reason."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code}: {refusal.reason}")
        self.refusal = refusal


class Ended(ClientError):
    """The client was stopped, or must not come back unchanged (`permanent`)."""

    def __init__(self, code: int | None, reason: str, permanent: bool = False) -> None:
        super().__init__(f"{code}: {reason}" if code else reason)
        self.code = code
        self.reason = reason
        self.permanent = permanent
