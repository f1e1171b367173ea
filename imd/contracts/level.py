"""The feature level of a cluster: what its nodes may write, since the oldest of them has to understand it.

The level is a word in Redis and in MongoDB. The higher of both words counts.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

FIRST = 1
"""0.1: messages"""
EVENTS = 2
"""0.2: rooms, edits, recalls, reactions, one's own devices"""
NEWEST = EVENTS
"""the highest level that this version knows; new installations begin with it"""
NO_WORD = 0
"""read from a store that holds no word"""


class LevelStore(Protocol):
    """A store's word of the level. Deferreds fail with imd.protocol.errors.Unavailable, after a deadline."""

    def read(self) -> Deferred[int]:
        """The word, or NO_WORD."""

    def begin(self, level: int) -> Deferred[int]:
        """Write the word if there is none. Fires with the word that is there then."""

    def is_empty(self) -> Deferred[bool]:
        """True if the store holds nothing that nodes of any version keep there."""
