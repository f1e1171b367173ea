"""Presence: who has a live channel, and which nodes want to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

WATCH_SECONDS = 120
"""a node's interest in a user ends by itself after so long"""


class Seen(NamedTuple):
    """A user, as the registry has it."""

    until_ms: int = 0
    """when the last lease of a channel that may be seen ends; 0 if there is none"""
    is_staff: bool = False

    def is_online(self, now_ms: int) -> bool:
        return self.until_ms > now_ms


class PresenceStore(Protocol):
    """Reads the registry of channels. A Deferred fails with Unavailable.

    Nobody is told that a user is online or offline, but only to look again. So no word that is lost, late or
    overtaken by another leaves a wrong value for long.
    """

    def listen_presence(self, changed: Callable[[str, Sequence[str]], None]) -> None:
        """`changed(user, addresses)`: this node has registered or removed a channel of the user, or renewed a
        lease that had ended. The nodes at these addresses watch the user; '' is this node."""

    def look(self, users: Sequence[str], address: str) -> Deferred[list[Seen]]:
        """See each of these users, and note for WATCH_SECONDS that the node at `address` watches them."""

    def registry_run(self) -> int:
        """Another number: the registry has forgotten channels, which register again by themselves."""
