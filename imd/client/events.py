"""The client's words: messages, what happens, and what can go wrong. No I/O."""

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
    """A message that was received, or that is in the archive (then without `seq`). Times in milliseconds."""

    id: str
    user_id: str
    """who sent it"""
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
        """From a frame's JSON. Fields that are not known are left out; raises KeyError without an id."""
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
    """A message in the outbox. `state`: waiting, sent (not answered yet), accepted or failed."""

    client_msg_id: str
    msg: str
    to: str = ""
    group: tuple[str, ...] = ()
    content_type: str | None = None
    queued_at: int = 0
    """milliseconds, by the client's clock"""
    sent_at: int | None = None
    """since when it may be in an inbox, though not accepted, by the node's clock; None: it cannot be"""
    state: str = "waiting"
    error: Refusal | None = None
    """why it failed"""
    id: str = ""
    """of the message, once it is accepted"""
    send_time: int = 0
    """milliseconds, by the servers' clock, once it is accepted"""

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
    """Of the archive, oldest first."""

    messages: list[Message]
    more: bool
    """there are older ones"""


# ---- what happens


@dataclass(frozen=True, slots=True)
class StateChanged:
    state: State
    code: int | None = None
    """the close code, if there was one"""
    reason: str = ""
    retry_seconds: float | None = None
    """waiting: until the next attempt"""
    permanent: bool = False
    """closed: coming back unchanged would be of no use"""


@dataclass(frozen=True, slots=True)
class Connected:
    user_id: str
    recovered: bool
    frame: Mapping[str, Any] = field(default_factory=dict)
    """all that the node said"""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The message is in every recipient's inbox, for good."""

    outgoing: Outgoing
    id: str
    send_time: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The node said no: an error code of the protocol, and words for people."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A message was refused for good. It stays in the outbox until it is cancelled or tried again."""

    outgoing: Outgoing
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Gap:
    """The inbox could not go on where this device stopped: the history has what may be missing."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """The node is about to stop; the client comes back by itself."""

    reconnect_seconds: float


Event = StateChanged | Connected | Accepted | Failed | Gap | Leaving | Refusal
"""a Refusal by itself answers nothing in particular"""


# ---- what can go wrong


class ClientError(Exception):
    """The base of what a client raises."""


class OutboxFull(ClientError):
    """There is no room for another message; wait for `drained`, or for some to be accepted."""


class Unanswered(ClientError):
    """No answer within the deadline."""


class Refused(ClientError):
    """The node refused it. `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code}: {refusal.reason}")
        self.refusal = refusal


class Ended(ClientError):
    """The client was stopped, or (`permanent`) is not to come back unchanged."""

    def __init__(self, code: int | None, reason: str, permanent: bool = False) -> None:
        super().__init__(f"{code}: {reason}" if code else reason)
        self.code = code
        self.reason = reason
        self.permanent = permanent
