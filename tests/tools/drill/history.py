"""The events of a run as the clients saw them; the checker judges them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

# Times are seconds on one monotonic clock.


class Send(NamedTuple):
    """A message frame was written."""

    at: float
    key: str


class Answer(NamedTuple):
    """`accepted` (then `message_id` is set) or `error` (then `code` is)."""

    at: float
    key: str
    message_id: str = ""
    send_time: int = 0
    code: str = ""


class Got(NamedTuple):
    """A delivered message."""

    at: float
    seq: int
    message_id: str
    key: str
    sender: str
    text: str


class Reset(NamedTuple):
    """The device was told that its inbox begins anew."""

    at: float
    epoch: str
    seq: int


Event = Send | Answer | Got | Reset


@dataclass(slots=True)
class Message:
    """A message that a device sends. `key` is its clientMsgId, and unique in the whole run."""

    key: str
    sender: str
    device: str
    recipients: frozenset[str]
    """for a visitor's message: the agents"""
    desk: bool = False
    """a visitor's, to whichever agent the desk finds"""

    @property
    def text(self) -> str:
        return f"text of {self.key}"


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


class Document(NamedTuple):
    """One message in the archive."""

    message_id: str
    key: str
    user: str
    recipients: frozenset[str]
    participants: frozenset[str]
    text: str


@dataclass
class History:
    """A whole run."""

    messages: dict[str, Message] = field(default_factory=dict)
    connections: list[Connection] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)
    """when Redis lost data, first and last moment"""
    archive: list[Document] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    """the keys of what is among the dead letters; poison is not listed"""
    read: dict[str, list[str]] = field(default_factory=dict)
    """per user: message ids that `history` with `all` gave, oldest first"""
