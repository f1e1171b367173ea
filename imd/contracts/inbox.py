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

NEWCOMER_SECONDS = 3600
"""how long a visitor that has neither written nor got a message is known after it was last here"""
LATE_MS = 5000
"""a message that is not placed so long after its id was made is refused, so that nothing appears below an id
that somebody has read up to; events of rooms' changes are exempt"""


@dataclass(frozen=True)
class InboxOptions:
    """The rules of inboxes, which are the same for every backend."""

    keep_days: float = 30
    """a device that was unseen for longer keeps no messages in its inbox"""
    max_messages: int = 10000
    """in one inbox; past it the oldest are removed"""
    unopened_messages: int = 1000
    """the same for an inbox that no device has ever opened, about; no more than `max_messages`"""
    new_ids: int = 1000
    """inboxes that no device has ever opened, begun by one sender in an hour; 0: no limit"""
    dedup_seconds: float = 3600
    lease_seconds: float = 90
    devices: int = 16
    """of one user, other than the connecting one; the one unseen for longest is removed"""
    channels_per_user: int = 32
    desk_grace_seconds: float = 120
    """how long an agent may be gone before its visitors are given to another"""
    visitor_days: float = 30
    """how long an unused token of a visitor stays valid, once it has written or got a message"""


class RoomAim(msgspec.Struct, gc=False):
    """A room as a recipient: the store expands it to the members that it has when the message is placed.

    Everybody in the room but the sender gets it. The body is `head`, the room's version, `tail`.
    """

    room: str
    head: bytes
    tail: bytes
    of_version: int | None = None
    """only members who joined at or below this version get it, unless the room shows all its history"""
    posts: bool = True
    """the room's rule on posting applies"""
    when_closed: bool = False
    """it passes though the room is closed"""
    by_admins: bool = False
    """only owners and admins may send it"""
    to_nobody: bool = False
    """no inbox gets it"""
    size: int = 1
    """its members when they were counted last, which bound a batch"""

    def body(self, version: int) -> bytes:
        """The body as it is placed under a version of the room; without a `tail` it has none."""
        return b"%b%d%b" % (self.head, version, self.tail) if self.tail else self.head


class Submission(msgspec.Struct, gc=False):
    """One message or event for an inbox to place."""

    sender: str
    device: str
    client_msg_id: str | None
    checksum: str
    """of what was written: tells a resend from a reuse of its clientMsgId"""
    message_id: str
    send_time: int
    recipients: Sequence[str]
    """each once; empty for a visitor's message, in a room, and for a list's event that nobody else gets"""
    body: bytes
    """the message's JSON, as inboxes and the archive keep it"""
    visitor_to: str = ""
    """the agent that a visitor's message names; empty if it names none"""
    origin: Any = None
    """the connection that gets the answer; inboxes do not use it"""
    kind: str = ""
    """of an event, as in its JSON; empty for a plain message"""
    room: RoomAim | None = None
    """instead of recipients; `body` then is the one of no version yet"""
    mirror: bool = True
    """the sender's own inbox gets it, too, if another device of the sender has `sync`"""
    of_list: bool = False
    """it is an event about a message to several: blocks leave recipients out, even if one or none is left"""
    archived: bytes = b""
    """members of a JSON object, such as `"a":1,"b":2`, which the archive gets behind the body's own"""

    @property
    def for_desk(self) -> bool:
        """A visitor's: the desk finds its recipient."""
        return not (self.recipients or self.of_list or self.room is not None)


class Delivery(msgspec.Struct, gc=False):
    """A message got a number in an inbox. Hints may go to these channels."""

    user: str
    epoch: str
    seq: int
    channels: Sequence[str]
    body: bytes


class Placed(msgspec.Struct, gc=False):
    """The message is in every recipient's inbox (or waits at the desk)."""

    deliveries: Sequence[Delivery]
    agent: str
    """the agent who got a visitor's message; empty for other messages"""
    version: int = 0
    """of the room that it was placed in"""
    members: int = 0
    """of that room, which has only deliveries to users with live channels"""


class PlacedPartly(Placed, gc=False):
    """A message to a list is in the inboxes of those who and the sender do not block each other."""

    without: Sequence[str] = ()
    """the others, who do not find it in history either"""


class Duplicate(NamedTuple):
    """The same message was placed before, under this id."""

    message_id: str
    send_time: int
    agent: str = ""
    """the visitor's present agent"""
    version: int = 0
    """of the room that it was placed in"""
    without: Sequence[str] = ()
    """as in PlacedPartly"""


class Conflict(NamedTuple):
    """The clientMsgId was used for another message."""


class NotAllowed(NamedTuple):
    """The sender may not write to this recipient."""

    reason: str


class NoRoom(NamedTuple):
    """The store has no copy of the room that counts; it has to be loaded first."""


class NotMember(NamedTuple):
    """The sender is no member of the room."""


class Closed(NamedTuple):
    """The room is closed."""


class TooManyNew(NamedTuple):
    """The message would begin more inboxes that no device has ever opened than its sender may."""

    retry_after_ms: int | None
    """when it may be sent again; None if it alone would begin more than an hour allows"""


class Late(NamedTuple):
    """The message's id is more than LATE_MS old, so it was not placed."""


class Failed(NamedTuple):
    """This message could not be placed; others of its batch may have been."""

    reason: str


Outcome = (
    Placed | Duplicate | Conflict | NotAllowed | NoRoom | NotMember | Closed | TooManyNew | Late | Failed
)


class Sent(NamedTuple):
    """A clientMsgId was used within `dedup_seconds`, for the message or event with this id."""

    checksum: str
    message_id: str
    send_time: int
    version: int = 0
    """of the room that it was placed in"""
    without: Sequence[str] = ()
    """as in PlacedPartly"""


@dataclass(slots=True)
class ConnectRequest:
    """A device wants its channel registered and its inbox read from a cursor on."""

    user: str
    device: str
    channel: str
    attempt: int | None = None
    epoch: str | None = None
    """of the client's cursor; None: the inbox's own cursor of the device is used"""
    seq: int = 0
    ephemeral: bool = False
    answers_visitors: bool = False
    sync: bool = False
    """the user's inbox also gets what the user's other devices send"""
    flags: str = ""
    """letters: `s`, the device gets state, typing and signals; `h`, its user does not look online for it;
    `t`, its user is staff"""
    page: int = 100
    resume: bool = False
    """the channel was registered before: it does not replace a newer channel of the device"""


class Superseded(NamedTuple):
    """A newer attempt of the device has the channel."""


class TooManyChannels(NamedTuple):
    """The user has as many live channels as are allowed."""


class Page(NamedTuple):
    """Messages of an inbox in order. `head` is the last number that the inbox has given."""

    epoch: str
    head: int
    messages: Sequence[tuple[int, bytes]]


class Registered(NamedTuple):
    """The channel is registered. Its messages start at `seq + 1`; `page` has the first of them."""

    seq: int
    recovered: bool
    replaced: str
    """the live channel that had the device until now; empty if there was none"""
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
    """the device has read where it starts: its first acknowledgement after `recovered: false`"""


class Lease(NamedTuple):
    """A channel that is still connected."""

    user: str
    device: str
    channel: str
    answers_visitors: bool
    renew: bool
    """False: only the head is wanted"""


class Head(NamedTuple):
    """The state of a channel's inbox. `held` is False if the channel has lost its device."""

    held: bool
    epoch: str
    seq: int


class Leave(NamedTuple):
    """A channel goes. Its device acknowledged `epoch` and `seq` last.

    With an empty epoch the start position was never confirmed, and the device's cursor stays as it is.
    """

    user: str
    device: str
    channel: str
    epoch: str
    seq: int
    ephemeral: bool


class Inbox(Backend, Protocol):
    """Inboxes, cursors, the registry of channels and the desk."""

    def accept(self, batch: Sequence[Submission]) -> Deferred[list[Outcome]]:
        """Place a batch in order, each message atomically. Ids rise with the order of the batch.

        No batch is run twice. After Unavailable any of its messages may have been placed. Calls may overlap;
        they are done in order.
        """

    def sent_before(self, user: str, device: str, client_msg_id: str) -> Deferred[Sent | None]:
        """The use of a clientMsgId; None if it was not used within `dedup_seconds`. Changes nothing."""

    def probe(self) -> Deferred[int]:
        """Fires if a message would be placed now; else fails with Unavailable, which says why.

        The number is of the store's run: another one means that the store was lost or replaced meanwhile.
        """

    def connect(self, request: ConnectRequest) -> Deferred[ConnectOutcome]:
        """Register the channel, and find out where its device goes on.

        A device that was not recovered and has not confirmed its start is not recovered the next time either,
        unless it names a cursor that the inbox can go on from. The first device of a user is not recovered if
        messages were removed from the inbox before it came.
        """

    def pull(self, user: str, epoch: str, after: int, limit: int) -> Deferred[Page]:
        """Messages from `after + 1` on: at most `limit`, and at most about 256 KiB, but at least one if any.

        A page of another epoch is empty.
        """

    def ack(self, ack: Ack) -> Deferred[Head]:
        """Move the device's cursor and trim the inbox.

        Nothing is done unless the channel holds the device and the epoch is the inbox's.
        """

    def renew(self, lease: Lease) -> Deferred[Head]: ...

    def leave(self, leave: Leave) -> Deferred[None]:
        """Store a last acknowledgement and remove the channel, if it still holds its device."""

    def era(self) -> Deferred[str]:
        """A word, the same for all nodes, that changes when the store may have forgotten channels."""

    def serve_desk(self) -> Deferred[list[Delivery]]:
        """Give waiting visitors to agents online, in the order in which they came.

        Visitors of agents that have been gone for longer than the grace period wait again. Call again while
        it returns anything. A new agent gets the messages that the visitor wrote after its last agent's last
        message: the newest 50, or all that no agent has got if they are more, and none that it has got
        before.
        """

    def agent_of(self, visitor: str) -> Deferred[str]:
        """The visitor's present agent; empty if it has none."""

    def remember_visitor(self, visitor: str, token_hash: str) -> Deferred[None]: ...

    def knows_visitor(self, visitor: str, token_hash: str) -> Deferred[bool]:
        """True if the hash is the visitor's. It then counts as used now."""
