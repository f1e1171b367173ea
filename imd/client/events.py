"""Events, answers and errors, as programs see them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from imd.client.conversation import Conversation
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


@dataclass(frozen=True, slots=True)
class ListedConversation(Conversation):
    """A conversation in the list."""

    at: str = ""
    """its place: the id of its last message, or of the event that brought the user into a room"""
    last: Message | None = None
    """the last message that the user may see"""
    unread: int = 0
    """messages of others above the effective mark; 100 means 100 or more"""
    name: str = ""
    """of a room"""
    version: int = 0
    """of a room"""


@dataclass(frozen=True, slots=True)
class ConversationPage:
    """Conversations of one's own, newest first."""

    conversations: list[ListedConversation]
    more: bool
    """there are older ones"""


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


@dataclass(frozen=True, slots=True)
class ConversationsChanged:
    """Marks or settings have changed, here or on another device."""

    conversations: tuple[Conversation, ...]
    """those that look different, as they are now"""
    all: bool = False
    """the node has sent everything anew: a conversation that is not here is neither muted nor pinned"""
    receipts: bool = True
    """others see up to where the user has read, and the user sees theirs"""


@dataclass(frozen=True, slots=True)
class Presence:
    """Watched users are online, or not."""

    users: Mapping[str, bool]
    all: bool = False
    """these are all watched users; else they are those that have changed"""


@dataclass(frozen=True, slots=True)
class Typing:
    """A user has begun to write, or has stopped (`on` is False)."""

    user_id: str
    with_: str = ""
    """the conversation, as in Conversation"""
    group: tuple[str, ...] = ()
    room: str = ""
    on: bool = True


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal of another program, or of another device of the user."""

    user_id: str
    name: str
    data: Mapping[str, Any] | None = None
    with_: str = ""
    """the conversation, as in Conversation"""
    group: tuple[str, ...] = ()
    room: str = ""


@dataclass(frozen=True, slots=True)
class FrameRefused:
    """A mark, a setting, a list of watched users or a signal was refused for good. It is not sent again."""

    frame: Mapping[str, Any]
    """as it was sent"""
    refusal: Refusal


Event = (
    StateChanged
    | Connected
    | Accepted
    | Failed
    | Gap
    | Leaving
    | Refusal
    | ConversationsChanged
    | Presence
    | Typing
    | Signal
    | FrameRefused
)
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
