"""Blocked users: who wants to hear nothing of whom. Between the two nothing passes, in either direction.

The inbox obeys the lists when it places a message or an event. Rooms are not affected.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from imd.contracts.backend import Backend
from imd.protocol.errors import TOO_LARGE, Refused

MAX_BLOCKED = 1000
"""by one user"""
BETWEEN_THE_TWO = "one of the two blocks the other"
"""why a message is not allowed. It does not tell which of the two does"""


def too_many() -> Refused:
    """The answer to a user who blocks MAX_BLOCKED others already."""
    return Refused(TOO_LARGE, f"userId: at most {MAX_BLOCKED} users are blocked")


class BlockStore(Backend, Protocol):
    """The lists. Each Deferred fails with Unavailable, after 2 seconds at most."""

    def block(self, user: str, other: str, on: bool) -> Deferred[bool | Refused]:
        """Block another user, or no longer; True if that changed anything.

        Once it fires, the list is stored and obeyed: everything that is submitted later. After Unavailable it
        may be; the same call finds out. Refused (`too_large`) past MAX_BLOCKED.
        """

    def of(self, user: str) -> Deferred[Sequence[str]]:
        """The users whom the user blocks, by their ids."""

    def among(self, user: str, others: Collection[str]) -> Deferred[set[str]]:
        """Of these others, those who block the user."""

    def loaded(self) -> bool:
        """False while the inbox may not know all lists, as it lost its memory. It lets messages in then."""
