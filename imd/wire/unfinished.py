"""What clients have begun to send and not finished, bounded for all connections of a node together.

When there is no room, a connection gives way that has not logged in; if there is none, another: the one whose
frame has been coming for longest. An honest frame takes a moment, so it is seldom the oldest.
"""

from __future__ import annotations

from typing import Protocol

from prometheus_client import Counter, Gauge

HELD = Gauge(
    "imd_unfinished_bytes",
    "Of handshakes, frames and messages that are still coming (bound: [limits] unfinished_bytes).",
)
GAVE_WAY = Counter(
    "imd_unfinished_closed_total", "Connections closed (4100) because too much was unfinished on all of them."
)


class Sender(Protocol):
    """A connection that something unfinished came on."""

    def give_way(self) -> None:
        """Let go of what is unfinished, and end."""


class Unfinished:
    """All of it. `max_bytes`: how much may be held at the same time."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._total = 0
        # In the order in which they began.
        self._strangers: dict[Sender, int] = {}
        self._known: dict[Sender, int] = {}

    @property
    def total(self) -> int:
        """Bytes held at present."""
        return self._total

    def hold(self, sender: Sender, size: int, *, known: bool) -> None:
        """`size` bytes are held for this sender now. `known`: it has logged in."""
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
        """Its frame is whole, or it is gone: what comes next begins anew."""
        self._total -= self._known.pop(sender, 0) + self._strangers.pop(sender, 0)
        HELD.set(self._total)

    def _make_room(self) -> None:
        waiting = self._strangers or self._known
        oldest = next(iter(waiting))
        self._total -= waiting.pop(oldest)
        GAVE_WAY.inc()
        oldest.give_way()
