"""What clients have begun to send and not finished, bounded for all connections of a node together.

When there is no room, a connection gives way that has not logged in; if there is none, another: the one whose
frame has been coming for longest. An honest frame takes a moment, so it is seldom the oldest.
"""

from __future__ import annotations

from typing import Any, Protocol

from prometheus_client import Counter, Gauge

HELD = Gauge(
    "imd_unfinished_bytes",
    "Of handshakes, frames and messages that are still coming (bound: [limits] unfinished_bytes).",
)
GAVE_WAY = Counter(
    "imd_unfinished_closed_total", "Connections closed (4100) because too much was unfinished on all of them."
)

# A message may come in any number of pieces: small ones are joined until they have this size.
PIECE_BYTES = 4096


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


# ---- what Autobahn's protocol gathers


def gathered_bytes(protocol: Any) -> int:
    """Size of what a connection has of a handshake, a frame or a message that is not whole."""
    size = len(protocol.data)
    if protocol.inside_message and protocol.state == protocol.STATE_OPEN:
        size += protocol.message_data_total_length
        frame = protocol.current_frame
        if frame is not None and frame.opcode < 8:
            # The total has frames at their full length, once their header is there.
            size -= frame.length - protocol.current_frame_masker.pointer()
    return size


def forget_pieces(protocol: Any) -> None:
    """Drop what was gathered of a message whose end nobody waits for."""
    if protocol.inside_message:
        protocol.message_data = []
        if protocol.current_frame is not None:
            protocol.frame_data = []


def join_small(pieces: list[bytes]) -> None:
    """Keep a list of pieces short: an object for each byte would take forty times its size."""
    if len(pieces) > 1 and len(pieces[-2]) < PIECE_BYTES:
        pieces[-2:] = [pieces[-2] + pieces[-1]]
