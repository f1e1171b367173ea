"""Rooms: their data, the store that keeps them, and the answers that it gives.

A change of a room is decided by imd.contracts.room_rules, in the store and for every backend alike. It gives
an event, which the store puts into inboxes before any message that is sent under the new version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec
from twisted.internet.defer import Deferred

from imd.contracts.backend import Backend
from imd.contracts.inbox import Delivery
from imd.protocol.errors import Refused

OWNER, ADMIN, MEMBER = "owner", "admin", "member"
RANK = {MEMBER: 0, ADMIN: 1, OWNER: 2}

MAX_ROOMS_OF_USER = 1000
MAX_PAST = 256
"""changes that a room remembers for resends"""
MAX_REMOVED = 1000
"""removed users that a room remembers"""
LARGE_ROOM = 200
"""members; past it not every event of a room goes to every member"""


class Member(msgspec.Struct, frozen=True, rename={"user": "u", "role": "r", "joined": "v"}):
    """A user in a room. `joined`: the version that let the user in."""

    user: str
    role: str
    joined: int


class Past(msgspec.Struct, frozen=True):
    """A change that was made under a clientMsgId: it answers a resend. `time` in ms."""

    user: str
    device: str
    client_msg_id: str
    checksum: str
    id: str
    time: int
    version: int


class Room(msgspec.Struct, frozen=True):
    """A room. `data` is the JSON that it was set to, as it was written; empty for none."""

    id: str
    name: str
    posting: str
    history: str
    joining: str
    data: str
    closed: bool
    version: int
    members: tuple[Member, ...]
    made: Past
    """the change that created it, remembered for ever"""
    past: tuple[Past, ...] = ()
    removed: tuple[str, ...] = ()

    def member(self, user: str) -> Member | None:
        for member in self.members:
            if member.user == user:
                return member
        return None


class EventBody(msgspec.Struct, frozen=True):
    """One form of a room's event, and the users whose inboxes get it."""

    body: str
    users: tuple[str, ...]


class RoomEntry(msgspec.Struct, frozen=True):
    """The event of one change, until it is in inboxes and in the archive."""

    version: int
    at: int
    """when the change was made, ms"""
    actor: str
    device: str
    client_msg_id: str
    checksum: str
    id: str
    bodies: tuple[EventBody, ...]
    """the first is the one that the archive gets; the last goes to the actor's other devices"""


class Action(msgspec.Struct, frozen=True):
    """A change that somebody asks for, in good form. For `create`, `room` is the id of the room to be."""

    room: str
    action: str
    user: str
    device: str
    user_type: str
    client_msg_id: str
    checksum: str
    may_create: bool = True
    name: str | None = None
    posting: str | None = None
    history: str | None = None
    joining: str | None = None
    data: str | None = None
    users: tuple[tuple[str, str | None], ...] = ()
    """each user once, with the role that was named"""
    version: int | None = None


class Changed(NamedTuple):
    """The change is made, and its event is in the inboxes.

    `bodies` are to be archived before the change is answered. Then `RoomStore.settle` is called with
    `settle`, if that names versions.
    """

    room: str
    version: int
    event_id: str
    send_time: int
    bodies: Sequence[bytes] = ()
    settle: Sequence[int] = ()


class Unchanged(NamedTuple):
    """The room was as the action wants it."""

    room: str
    version: int


ChangeOutcome = Changed | Unchanged | Refused


def first_readable(history: str, joined: int) -> int:
    """The room version from which on a member may read whom the version `joined` let in; 0: everything."""
    return 0 if history == "all" else joined


class Membership(NamedTuple):
    """A member's role, the version of the room that let the user in, and the room's rule of history."""

    role: str
    joined: int
    history: str
    closed: bool = False
    members: int = 0

    @property
    def reads_from(self) -> int:
        """The room version from which on the member may read; 0: everything."""
        return first_readable(self.history, self.joined)


class RoomSummary(NamedTuple):
    """A room in a user's list of rooms."""

    room: str
    name: str
    role: str
    members: int
    version: int
    posting: str
    history: str
    joining: str
    data: str
    closed: bool


class RoomPart(NamedTuple):
    """A user's part in a room, as the list of conversations needs it."""

    room: str
    name: str
    version: int
    joined: int
    """the version that let the user in"""
    reads_from: int
    """as in Membership"""


class MembersPage(NamedTuple):
    """Some members by user id, in the order of their texts."""

    version: int
    members: Sequence[Member]
    more: bool


def page_of_members(room: Room, after: str, limit: int) -> MembersPage:
    """The members behind `after`, in the order of their ids."""
    later = sorted((member for member in room.members if member.user > after), key=lambda member: member.user)
    return MembersPage(room.version, later[:limit], len(later) > limit)


def part_of(room: Room, member: Member) -> RoomPart:
    """The member's part in the room."""
    reads_from = first_readable(room.history, member.joined)
    return RoomPart(room.id, room.name, room.version, member.joined, reads_from)


class Leftover(NamedTuple):
    """Events of a room whose maker did not finish with them, now in the inboxes. As in `Changed`."""

    room: str
    bodies: Sequence[bytes]
    settle: Sequence[int]


@dataclass(frozen=True)
class RoomOptions:
    """The rules of rooms, which are the same for every backend."""

    members: int = 1000
    dedup_seconds: float = 3600


class RoomStore(Backend, Protocol):
    """The rooms. Each Deferred fails with Unavailable, after 2 seconds at most."""

    def deliver_to(self, deliver: Callable[[Sequence[Delivery]], None]) -> None:
        """Have deliveries of events told by `deliver`; called once, before anything else."""

    def change(self, action: Action, stamp: Callable[[], tuple[str, int]]) -> Deferred[ChangeOutcome]:
        """Make a change that its user has a right to, once for each clientMsgId. Refusals are outcomes.

        `stamp` gives a new id and the time in ms, each time that it is called. After Unavailable the change
        may have been made; the same action finds out.
        """

    def settle(self, room: str, versions: Sequence[int]) -> Deferred[None]:
        """Note that the events of these versions are archived."""

    def leftovers(self) -> Deferred[list[Leftover]]:
        """Place events that are older than 10 seconds and not settled: those of some rooms."""

    def oldest_event_ms(self) -> Deferred[int | None]:
        """When the oldest event that is not settled was made; None if all are."""

    def is_warm(self, room: str) -> bool:
        """False: `warm` has to be called before a message is submitted to the room."""

    def warm(self, room: str) -> Deferred[bool]:
        """Make the room known to the inboxes; False if there is no such room.

        Calls for one room share a read.
        """

    def size(self, room: str) -> int:
        """The room's members as far as the node has heard; 1 if it has not."""

    def heard(self, room: str, members: int) -> None:
        """Note how many members the room has; 0: the inboxes do not know the room any more."""

    def membership(self, room: str, user: str) -> Deferred[Membership | None]:
        """The user's part in the room as of now; None for a user who is not in it."""

    def rooms_of(self, user: str, after: str, limit: int) -> Deferred[tuple[list[RoomSummary], bool]]:
        """The user's rooms behind the id `after`, by id, and whether there are more."""

    def parts(self, user: str) -> Deferred[list[RoomPart]]:
        """The user's parts in rooms, in any order. A change of the last seconds may be missing."""

    def members_of(self, room: str, viewer: str, after: str, limit: int) -> Deferred[MembersPage | None]:
        """The room's members behind the user id `after`; None for a viewer who is not in it."""
