"""Messages that come while a session reads its inbox: they follow what it reads, and are not read once more.

Without them a session that fell behind once stays there for as long as messages come faster than pages do.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

AHEAD_BYTES = Gauge("imd_ahead_bytes", "Messages held by sessions that read their inbox (bound: 64 MiB).")
REPLAYED = Counter("imd_replayed_messages_total", "Messages that came during a read, delivered after it.")

MAX_MESSAGES = 100
MAX_BYTES = 64 << 20


class HintBuffer:
    """Messages of one session, without a hole. Messages without room are in the inbox all the same."""

    __slots__ = ("_messages", "_size")

    total_bytes = 0
    """of all of them, at most MAX_BYTES"""

    def __init__(self) -> None:
        self._messages: list[tuple[int, bytes]] = []
        self._size = 0

    def keep(self, seq: int, body: bytes) -> None:
        """Keep a message if it is the first one, or the next, and there is room."""
        messages = self._messages
        if messages and seq != messages[-1][0] + 1:
            return
        if len(messages) < MAX_MESSAGES and HintBuffer.total_bytes + len(body) <= MAX_BYTES:
            messages.append((seq, body))
            self._add(len(body))

    def take(self) -> list[tuple[int, bytes]]:
        """All of them, in order; none is left."""
        messages, self._messages = self._messages, []
        self._add(-self._size)
        return messages

    def _add(self, size: int) -> None:
        self._size += size
        HintBuffer.total_bytes += size
        AHEAD_BYTES.set(HintBuffer.total_bytes)
