"""Presence: who has a live channel, and which nodes want to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

WATCH_SECONDS = 120
"""a node's interest in a user ends by itself after so long"""


class Seen(NamedTuple):
    """A user, as the registry has it."""

    lasts_ms: int = 0
    """how long the last lease of a channel that may be seen still lasts; 0: the user looks offline"""
    is_staff: bool = False


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

    def hidden(self, watcher: str, users: Sequence[str]) -> Deferred[Sequence[str]]:
        """Of these users, those who block the watcher or whom the watcher blocks."""

    def registry_run(self) -> int:
        """Another number: the registry has forgotten channels, which register again by themselves."""
