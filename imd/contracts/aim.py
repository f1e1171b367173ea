"""The channels that typing, signals and news of state may go to, if any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from imd.contracts.inbox import Closed, NoRoom, NotAllowed, NotMember
from imd.protocol.selector import Target


class Aim(NamedTuple):
    """A user has something for the others of a conversation, if they may be written to there now."""

    sender: str
    channel: str
    """the sender's own, which gets nothing"""
    target: Target
    most: int
    """in a list or a room of more, nobody gets it"""


class Aimed(NamedTuple):
    """Channels of devices that have the feature `state`. Nobody is there if either blocks the other."""

    others: Mapping[str, Sequence[str]]
    """by user"""
    own: Sequence[str] = ()
    """the sender's other channels"""


class TooMany(NamedTuple):
    """The list or the room has more than `most` members."""


AimOutcome = Aimed | NotAllowed | NotMember | NoRoom | Closed | TooMany


class AimStore(Protocol):
    """Reads the registry of channels. A Deferred fails with Unavailable. Answers may be a moment old."""

    def aim(self, aim: Aim) -> Deferred[AimOutcome]:
        """The channels that get what an aim is about."""

    def channels(self, users: Sequence[str]) -> Deferred[Mapping[str, Sequence[str]]]:
        """The live channels of these users whose devices have the feature `state`; users without any are
        left out."""
