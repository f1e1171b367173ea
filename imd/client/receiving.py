"""What was received: each message once, and a cursor that moves past what the program has handled.

Numbers only mean something on one connection and in one epoch; what a message is known by is its id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from imd.client.events import Message
from imd.client.store import Saved, Store

KEPT_IDS = 20_000
"""in memory: more than can be under way, whatever a node's ack_window is"""


class Hole(Exception):
    """A number was left out. The node has a bug; starting again from the cursor gets round it."""


class Receiving:
    def __init__(self, store: Store, saved: Saved) -> None:
        self._store = store
        self.epoch = saved.epoch
        self.seq = saved.seq
        """the cursor: everything up to here has been handled"""
        self.gap = False
        """numbers were left out, and will not come: somebody has to be told"""
        self._hole: tuple[str | None, int] | None = None
        """the epoch and the number that a hole was seen after"""
        self._wire = 0
        """the last number that came on this connection"""
        self._pending: deque[tuple[int, str]] = deque()
        """what came and the cursor has not passed yet: number and id"""
        self._open: set[str] = set()
        """given to the program and not handled yet"""
        self._seen: dict[str, None] = dict.fromkeys(saved.seen)

    def start_at(self, epoch: str, seq: int) -> None:
        """What follows begins at `seq + 1`. What was not handled yet will come again, and be known."""
        self._pending.clear()
        self._wire = seq
        if (epoch, seq) != (self.epoch, self.seq):
            self.epoch, self.seq = epoch, seq
            self._store.put_cursor(epoch, seq, [])

    def take(self, frame: Mapping[str, Any]) -> Message | None:
        """A numbered frame: the message, or None if the program has it already or nobody could read it.

        Raises Hole; not at the same place again, where it sets `gap` and goes on.
        """
        seq = frame["seq"]
        if seq <= self._wire:
            return None
        here = (self.epoch, self._wire)
        if seq != self._wire + 1:
            if self._hole != here:
                self._hole = here
                raise Hole(f"{seq} came after {self._wire}")
            self.gap = True
        if self._hole == here:
            self._hole = None
        self._wire = seq
        kind, message_id = frame.get("kind"), frame.get("id")
        if kind is not None or not isinstance(message_id, str):
            # Of a later version: acknowledged, and skipped.
            self._pending.append((seq, ""))
            return None
        self._pending.append((seq, message_id))
        if message_id in self._open or message_id in self._seen:
            return None
        self._open.add(message_id)
        return Message.of(frame)

    def handled(self, message_id: str) -> int:
        """The program is done with it, and will not want it again. Gives by how far the cursor moved."""
        if message_id not in self._open:
            return 0
        self._open.discard(message_id)
        self._seen[message_id] = None
        while len(self._seen) > KEPT_IDS:
            del self._seen[next(iter(self._seen))]
        return self._move([message_id])

    def is_open(self, message_id: str) -> bool:
        return message_id in self._open

    def skip(self) -> int:
        """Move past what nobody has to handle. Gives by how far the cursor moved."""
        return self._move([])

    def _move(self, handled: list[str]) -> int:
        before = self.seq
        while self._pending and self._pending[0][1] not in self._open:
            self.seq, _ = self._pending.popleft()
        if self.epoch is not None and (handled or self.seq != before):
            self._store.put_cursor(self.epoch, self.seq, handled)
        return self.seq - before

    def forget(self) -> None:
        """Another user: another inbox."""
        self.epoch, self.seq = None, 0
        self._pending.clear()
        self._seen.clear()
