"""State: the marks and settings of a user's conversations, and the store that keeps them.

State is no event: it has no number in inboxes, and only the latest value counts. A change is decided by
imd.contracts.state_rules, in the store and for every backend alike. Each change of a user's state raises the
user's version by 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec
from twisted.internet.defer import Deferred

from imd.contracts.backend import Backend
from imd.protocol.errors import Refused
from imd.protocol.selector import Selector

MAX_PINNED = 50
KEPT = 1000
"""entries that the state of a user holds for certain: those that were changed last"""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One conversation in a user's state. Marks are message ids; empty: none."""

    conversation: str
    """its id"""
    selector: Selector
    v: int = 0
    """the user's version that changed it last"""
    read: str = ""
    peer: str = ""
    """the other's mark, as far as it was shown"""
    muted: bool | int = False
    """an int: the time, in ms, until which"""
    pinned: bool = False
    hidden: str = ""
    cleared: str = ""
    marked: bool = False
    by: str = ""
    """the user whose mark `peer` is, where the selector names nobody: a visitor's agent"""


class UserState(msgspec.Struct, frozen=True):
    """A user's state, or a part of it: `pins` and `weight` are those of all entries."""

    user: str
    version: int = 0
    floor: int = 0
    """a device with a version below this one has to get everything anew"""
    receipts: bool = True
    receipts_v: int = 0
    """the version that changed `receipts` last"""
    pins: int = 0
    weight: int = 0
    entries: Mapping[str, Entry] = {}
    """by conversation"""


class Mark(NamedTuple):
    """A conversation has been read up to a message. `peer` is who may see that; empty: nobody."""

    conversation: str
    selector: Selector
    up_to: str
    peer: str = ""


class Setting(NamedTuple):
    """Settings of a conversation, or, with an empty `conversation`, the user's own. None: not named."""

    conversation: str = ""
    selector: Selector = Selector()
    muted: bool | int | None = None
    pinned: bool | None = None
    hidden: str | None = None
    """empty: not hidden any more"""
    cleared: str | None = None
    marked: bool | None = None
    receipts: bool | None = None


class Changes(msgspec.Struct, frozen=True):
    """The changes in a user's state after the version `base`, as they are at `version`."""

    user: str
    base: int
    version: int
    entries: tuple[Entry, ...] = ()
    receipts: bool | None = None
    """None: not changed"""
    all: bool = False
    """`entries` are all there are"""


class StateStore(Backend, Protocol):
    """The states of users. Each Deferred fails with Unavailable, after 2 seconds at most."""

    def listen(self, changed: Callable[[Sequence[Changes]], None]) -> None:
        """Have changes told that this node has made, of the users themselves and of their peers."""

    def change(
        self, user: str, marks: Sequence[Mark], setting: Setting | None, since: int | None
    ) -> Deferred[Changes | Refused]:
        """Raise marks and apply a setting. Gives what has changed after the version `since`.

        With None for `since` it gives the entries that were named. A setting may be refused (`too_large`).
        A visitor's state is only kept if the visitor has an agent.
        """

    def since(self, user: str, version: int | None) -> Deferred[Changes]:
        """All that has changed after a version that a device has; everything if that cannot be told.

        Without a version, or with one above the present, it is everything.
        """

    def versions(self, users: Sequence[str]) -> Deferred[dict[str, int]]:
        """The versions of these users; 0 for one without state."""

    def entries(self, user: str, conversations: Sequence[str]) -> Deferred[dict[str, Entry]]:
        """The user's entries of these conversations, with the marks of peers as they may be shown now."""

    def cleared(self, user: str) -> Deferred[dict[str, str]]:
        """The conversations of which the user has cleared messages: id → the mark."""

    def touch(self, pairs: Sequence[tuple[str, str]]) -> Deferred[None]:
        """Both users of these pairs may see each other's marks again: their devices get them anew."""
