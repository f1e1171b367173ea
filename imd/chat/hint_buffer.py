"""Messages that are pushed while a session reads its inbox: kept here, and delivered behind the page.

Without this buffer a session that is behind stays behind while messages arrive faster than pages do.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

AHEAD_BYTES = Gauge("imd_ahead_bytes", "Messages held by sessions that read their inbox (bound: 64 MiB).")
REPLAYED = Counter("imd_replayed_messages_total", "Messages that came during a read, delivered after it.")

MAX_MESSAGES = 100
MAX_BYTES = 64 << 20


class HintBuffer:
    """Messages of one session, without a hole. A message that finds no room is read from the inbox later."""

    __slots__ = ("_messages", "_size")

    total_bytes = 0
    """held by all sessions together, at most MAX_BYTES"""

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
