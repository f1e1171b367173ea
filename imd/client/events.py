"""Messages, events and errors, as programs see them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


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
class Message:
    """A received message, or one of the archive (without `seq`). Times are milliseconds since the epoch."""

    id: str
    user_id: str
    """the sender"""
    msg: str
    send_time: int
    to: str = ""
    group: tuple[str, ...] = ()
    from_user_type: str = ""
    content_type: str | None = None
    client_msg_id: str | None = None
    is_visitor: bool = False
    seq: int | None = None

    @classmethod
    def of(cls, frame: Mapping[str, Any]) -> Message:
        """From a decoded frame. Unknown fields are left out. Raises KeyError without an id."""
        return cls(
            id=frame["id"],
            user_id=frame.get("userId") or "",
            msg=frame.get("msg") or "",
            send_time=frame.get("sendTime") or 0,
            to=frame.get("to") or "",
            group=tuple(frame.get("group") or ()),
            from_user_type=frame.get("fromUserType") or "",
            content_type=frame.get("contentType"),
            client_msg_id=frame.get("clientMsgId"),
            is_visitor=bool(frame.get("isVisitor")),
            seq=frame.get("seq"),
        )


@dataclass(slots=True)
class Outgoing:
    """A message of the outbox. `state`: waiting, sent (without an answer yet), accepted or failed."""

    client_msg_id: str
    msg: str
    to: str = ""
    group: tuple[str, ...] = ()
    content_type: str | None = None
    queued_at: int = 0
    """milliseconds since the epoch, by the client's clock"""
    sent_at: int | None = None
    """the first time that it was sent and not refused unseen, in milliseconds of the node's clock"""
    state: str = "waiting"
    error: Refusal | None = None
    """why it failed"""
    id: str = ""
    """the message's id, once it is accepted"""
    send_time: int = 0
    """milliseconds since the epoch, by the servers' clock, once it is accepted"""

    def frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = {"clientMsgId": self.client_msg_id, "msg": self.msg}
        if self.to:
            frame["to"] = self.to
        elif self.group:
            frame["group"] = list(self.group)
        if self.content_type is not None:
            frame["contentType"] = self.content_type
        return frame


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the archive, oldest message first."""

    messages: list[Message]
    more: bool
    """there are older messages"""


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
    """The message is in every recipient's inbox and in the archive queue: it cannot be lost any more."""

    outgoing: Outgoing
    id: str
    send_time: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error of the protocol: its code, and words for people."""

    code: str
    reason: str


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
