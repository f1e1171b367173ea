"""The bound of unfinished input: handshakes, frames and messages that clients have begun to send, and whole
frames that wait for a login or a slow frame.

It holds for all connections of a node together. When it is reached, the connection with the oldest unfinished
input is closed, first among those that have not logged in. An honest frame takes a moment, so it is seldom
the oldest.
"""

from __future__ import annotations

from typing import Protocol

from prometheus_client import Counter, Gauge

HELD = Gauge(
    "imd_unfinished_bytes",
    "Of handshakes, frames and messages that are still coming, and of frames that wait"
    " (bound: [limits] unfinished_bytes).",
)
GAVE_WAY = Counter(
    "imd_unfinished_closed_total", "Connections closed (4100) because too much was unfinished on all of them."
)


class Sender(Protocol):
    """A connection with unfinished input."""

    def give_way(self) -> None:
        """Drop the unfinished input, and close."""


class Unfinished:
    """The unfinished input of all connections. `max_bytes` is its bound."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._total = 0
        # Both in the order in which their input began.
        self._strangers: dict[Sender, int] = {}
        self._known: dict[Sender, int] = {}

    @property
    def total(self) -> int:
        """the size in bytes"""
        return self._total

    def hold(self, sender: Sender, size: int, *, known: bool) -> None:
        """Set the size of this sender's unfinished input. `known`: it has logged in."""
        mine, others = (self._known, self._strangers) if known else (self._strangers, self._known)
        before = mine.get(sender, 0) + others.pop(sender, 0)
        if size:
            mine[sender] = size
        else:
            mine.pop(sender, None)
        self._total += size - before
        while self._total > self._max_bytes:
            self._make_room()
        HELD.set(self._total)

    def finished(self, sender: Sender) -> None:
        """The sender's input is whole, or its connection is gone."""
        self._total -= self._known.pop(sender, 0) + self._strangers.pop(sender, 0)
        HELD.set(self._total)

    def _make_room(self) -> None:
        waiting = self._strangers or self._known
        oldest = next(iter(waiting))
        self._total -= waiting.pop(oldest)
        GAVE_WAY.inc()
        oldest.give_way()
