"""Inboxes, the registry of channels and the desk: one store, as a message is placed in all of them at once.

"User" and "device" are as in the protocol. A channel is one live connection; `channel` is its id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec
from twisted.internet.defer import Deferred

from imd.contracts.backend import Backend


@dataclass(frozen=True)
class InboxOptions:
    """The rules that inboxes are kept by; the same for every backend."""

    keep_days: float = 30
    """a device unseen for so long no longer holds the trim back"""
    max_messages: int = 10000
    """per inbox; past it the oldest leave"""
    unopened_messages: int = 1000
    """the same for an inbox that no device has ever opened; no more than `max_messages`"""
    new_ids: int = 1000
    """inboxes that no device has ever opened, begun by one sender in an hour; 0: no limit"""
    dedup_seconds: float = 3600
    lease_seconds: float = 90
    devices: int = 16
    """others than the connecting one, per user; the one unseen longest gives way"""
    channels_per_user: int = 32
    desk_grace_seconds: float = 120
    """how long an agent may be gone before its visitors are given to another"""
    visitor_days: float = 30
    """how long a visitor's token is good for unused"""


class Submission(msgspec.Struct, gc=False):
    """One message on its way in."""

    sender: str
    device: str
    client_msg_id: str | None
    checksum: str
    """of what was written: tells a resend from a reuse of its clientMsgId"""
    message_id: str
    send_time: int
    recipients: Sequence[str]
    """each once; empty for a visitor's message, which the desk finds a recipient for"""
    body: bytes
    """the message's JSON, as inboxes and the archive keep it"""
    visitor_to: str = ""
    """for a visitor's message: the agent it names, if it names one"""
    origin: Any = None
    """who gets the answer; no business of an inbox"""


class Delivery(msgspec.Struct, gc=False):
    """A message got a number in an inbox, and these channels may be told."""

    user: str
    epoch: str
    seq: int
    channels: Sequence[str]
    body: bytes


class Placed(msgspec.Struct, gc=False):
    """The message is in every recipient's inbox (or waits at the desk)."""

    deliveries: Sequence[Delivery]
    agent: str
    """who got a visitor's message; empty otherwise"""


class Duplicate(NamedTuple):
    """The same message has been placed before, under this id."""

    message_id: str
    send_time: int
    agent: str = ""
    """who has the visitor's messages now"""


class Conflict(NamedTuple):
    """The clientMsgId has been used for another message."""


class NotAllowed(NamedTuple):
    """The sender may not write to this recipient."""

    reason: str


class TooManyNew(NamedTuple):
    """The message would begin inboxes that no device has ever opened, more than its sender may."""

    retry_after_ms: int | None
    """when it may be tried again; None if it alone would begin more than are allowed in an hour"""


class Failed(NamedTuple):
    """This message, and not its batch, could not be placed."""

    reason: str


Outcome = Placed | Duplicate | Conflict | NotAllowed | TooManyNew | Failed


@dataclass(slots=True)
class ConnectRequest:
    """A device wants its channel registered and its inbox read from a cursor on."""

    user: str
    device: str
    channel: str
    attempt: int | None = None
    epoch: str | None = None
    """of the client's cursor; None: the server's own cursor counts"""
    seq: int = 0
    ephemeral: bool = False
    answers_visitors: bool = False
    page: int = 100
    resume: bool = False
    """the channel was registered before: a newer one, or one with a newer attempt, keeps the device"""


class Superseded(NamedTuple):
    """A newer attempt of the device has the channel."""


class TooManyChannels(NamedTuple):
    """The user has as many live channels as one user may have."""


class Page(NamedTuple):
    """Messages of an inbox in order. `head` is the last number given out in it."""

    epoch: str
    head: int
    messages: Sequence[tuple[int, bytes]]


class Registered(NamedTuple):
    """The channel is registered. What follows starts at `seq + 1`; `page` holds the first of it."""

    seq: int
    recovered: bool
    replaced: str
    """the live channel that had the device until now; empty if none had"""
    page: Page


ConnectOutcome = Registered | Superseded | TooManyChannels


class Ack(NamedTuple):
    """A channel's device has everything up to `seq`."""

    user: str
    device: str
    channel: str
    epoch: str
    seq: int
    start_confirmed: bool = False
    """its first since it was told `recovered: false`: that has been read"""


class Lease(NamedTuple):
    """A channel that is still here."""

    user: str
    device: str
    channel: str
    answers_visitors: bool
    renew: bool
    """False: only the head is asked for"""


class Head(NamedTuple):
    """The state of a channel's inbox. `held` is False when the channel no longer has its device: another
    has it, or nobody has."""

    held: bool
    epoch: str
    seq: int


class Leave(NamedTuple):
    """A channel goes; `epoch` and `seq` are what its device acknowledged last. An empty epoch: it gave no
    sign that it has read where it starts, and its cursor stays as it is."""

    user: str
    device: str
    channel: str
    epoch: str
    seq: int
    ephemeral: bool


class Inbox(Backend, Protocol):
    """Inboxes, cursors, the channel registry and the desk: the state that a message is in or not in."""

    def accept(self, batch: Sequence[Submission]) -> Deferred[list[Outcome]]:
        """Place a batch, in order, each message atomically; never run twice.

        A lost answer is Unavailable: some may be placed. Calls may overlap; they are done in order.
        """

    def probe(self) -> Deferred[None]:
        """Fires if a message would be placed now; fails with Unavailable, which says why it would not."""

    def connect(self, request: ConnectRequest) -> Deferred[ConnectOutcome]:
        """Register the channel. Who was not recovered, and gave no sign since that it was told, is not
        recovered the next time either, unless it names a cursor that the inbox can go on from. The first
        device of all is not recovered if messages have left the inbox, which has kept less before it came."""

    def pull(self, user: str, epoch: str, after: int, limit: int) -> Deferred[Page]:
        """Messages from `after + 1` on: at most `limit`, and at most about 256 KiB, but one if there is one.

        A page of another epoch is empty.
        """

    def ack(self, ack: Ack) -> Deferred[Head]:
        """Move the device's cursor and trim the inbox. Done only if the channel holds the device and
        the epoch is the inbox's."""

    def renew(self, lease: Lease) -> Deferred[Head]: ...

    def leave(self, leave: Leave) -> Deferred[None]:
        """Remove the channel if it (and not a newer one) is registered, after a last acknowledgement."""

    def era(self) -> Deferred[str]:
        """A word that changes when the store may have forgotten channels; the same for all nodes."""

    def serve_desk(self) -> Deferred[list[Delivery]]:
        """Give waiting visitors to agents online, first come first served, and take visitors back from
        agents that have been gone for longer than the grace period. Call again while it gives anything.

        The next agent gets what the visitor has written since its agent's last message to it: the newest 50,
        or all that no agent has got if they are more; nothing that it has got before."""

    def agent_of(self, visitor: str) -> Deferred[str]:
        """The visitor's present agent; empty if it has none."""

    def remember_visitor(self, visitor: str, token_hash: str) -> Deferred[None]: ...

    def knows_visitor(self, visitor: str, token_hash: str) -> Deferred[bool]:
        """True if the hash is the visitor's; it then counts as used now."""
