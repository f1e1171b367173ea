"""The list of conversations: where each stands in a user's list, its last message, and what is unread.

A conversation's place is the id of the newest message in it that the user may see; of a room without such a
message, the id of the event that let the user in. Unread messages are counted when they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from imd.contracts.rooms import RoomPart

MOST_UNREAD = 100
"""more are not counted"""
MOST_READ = 1000
"""messages that are read to count the unread ones of one conversation"""


@dataclass(slots=True)
class PlacesQuery:
    """A part of a user's list, newest first. `rooms` are all that the user is in."""

    viewer: str
    rooms: Sequence[RoomPart] = ()
    before: str | None = None
    """an id: only places below it"""
    limit: int = 30
    only: Sequence[str] | None = None
    """ids of conversations; None: all"""


class Place(NamedTuple):
    """A conversation in a user's list."""

    at: str
    """the id that it stands at"""
    conversation: str
    """its id"""
    others: tuple[str, ...] = ()
    """sorted; empty for a room, and for what a user wrote to itself"""
    room: RoomPart | None = None
    is_empty: bool = False
    """the user may see no message of it: `at` is an event's id"""


class Places(NamedTuple):
    """Places, and whether there are more of them below."""

    found: list[Place]
    more: bool


class Wanted(NamedTuple):
    """A conversation to show, whose user may see messages up to `at`."""

    conversation: str
    at: str
    read: str = ""
    """the user's mark; empty: none"""
    cleared: str = ""
    """nothing up to it is shown"""
    from_version: int = 0
    """only messages of a room that were placed under this version or a later one"""


@dataclass(slots=True)
class TalksQuery:
    viewer: str
    wanted: Sequence[Wanted]


class Talk(NamedTuple):
    """The last message, as history shows it, None if it is cleared or gone; and how many are unread."""

    last: bytes | None
    unread: int


class TalkStore(Protocol):
    """Reads the list. Each Deferred fails with Unavailable."""

    def places(self, query: PlacesQuery) -> Deferred[Places]: ...

    def talks(self, query: TalksQuery) -> Deferred[list[Talk]]:
        """As many as were wanted, in their order."""
