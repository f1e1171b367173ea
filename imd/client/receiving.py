"""Receiving: each entry of the inbox once, and a cursor that moves past the handled ones. No I/O.

Numbers are only valid on one connection and in one epoch. An entry that comes again is known by its id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from imd.client.numbered import Entry, entry_of
from imd.client.store import Saved, Store

KEPT_IDS = 20_000
"""in memory; more than the largest `ack_window` of a node"""


class Hole(Exception):
    """A number was left out: a bug of the node. A new connection from the cursor gets round it."""


class Receiving:
    def __init__(self, store: Store, saved: Saved) -> None:
        self._store = store
        self.epoch = saved.epoch
        self.seq = saved.seq
        """the cursor: everything up to here has been handled"""
        self.gap = False
        """numbers were left out for good: the program is yet to be told"""
        self._hole: tuple[str | None, int] | None = None
        """the last hole: the epoch, and the number before it"""
        self._wire = 0
        """the last number on this connection"""
        self._pending: deque[tuple[int, str]] = deque()
        """number and id of each message that the cursor has not passed yet"""
        self._open: set[str] = set()
        """ids that the program has, and has not handled yet"""
        self._seen: dict[str, None] = dict.fromkeys(saved.seen)
        """ids that were handled, oldest first"""
        self._unstored: list[str] = []
        """ids of `_seen` that are stored with the next cursor"""
        self._replies: dict[str, int] = {}
        """how often each unhandled message was replied to, by id"""

    def start_at(self, epoch: str, seq: int) -> None:
        """The next number is `seq + 1`. Unhandled messages will come again, and are known by their ids."""
        self._pending.clear()
        self._wire = seq
        if (epoch, seq) != (self.epoch, self.seq):
            self.epoch, self.seq = epoch, seq
            self._store.put_cursor(epoch, seq, [])

    def take(self, frame: Mapping[str, Any], mine: bool, elsewhere: bool, events: bool) -> Entry | None:
        """The entry of a numbered frame; None if the program has it already, or is not to get it.

        `mine`: this device sent it. `elsewhere`: another device of the user did. `events`: kinds are known.
        Raises Hole the first time that a number is missing; the second time it sets `gap` and goes on.
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
        entry_id = frame.get("id")
        known = isinstance(entry_id, str) and (events or frame.get("kind") is None)
        entry = entry_of(frame, elsewhere) if known else None
        if entry is None:
            # A frame of a later version of the protocol: acknowledged and skipped.
            self._pending.append((seq, ""))
            return None
        self._pending.append((seq, entry.id))
        if entry.id in self._open or entry.id in self._seen:
            return None
        if mine:
            self._see(entry.id)
            self._unstored.append(entry.id)
            return None
        self._open.add(entry.id)
        return entry

    def offer(self, frame: Mapping[str, Any]) -> Entry | None:
        """The entry of a frame without a number; None for one that the program has or had."""
        entry = entry_of(frame)
        if entry is None or entry.id in self._open or entry.id in self._seen:
            return None
        self._open.add(entry.id)
        return entry

    def know(self, entry_id: str) -> None:
        """This device has sent it: a copy in the inbox is not for the program."""
        if entry_id not in self._seen:
            self._see(entry_id)
            self._unstored.append(entry_id)
        if self._unstored and self.epoch is not None:
            self._store.put_cursor(self.epoch, self.seq, self._unstored)
            self._unstored.clear()

    def handled(self, message_id: str) -> int:
        """The program is done with a message. Gives by how far the cursor moved."""
        self._replies.pop(message_id, None)
        if message_id not in self._open:
            return 0
        self._open.discard(message_id)
        self._see(message_id)
        return self._move([message_id])

    def next_reply(self, message_id: str) -> str | None:
        """A clientMsgId that the same reply would get again after a restart; None for a handled message."""
        if message_id not in self._open:
            return None
        count = self._replies[message_id] = self._replies.get(message_id, 0) + 1
        return f"re-{message_id}-{count}"[:64]

    def skip(self) -> int:
        """Move past frames that the program need not handle. Gives by how far the cursor moved."""
        return self._move([])

    def _move(self, handled: list[str]) -> int:
        before = self.seq
        while self._pending and self._pending[0][1] not in self._open:
            self.seq, _ = self._pending.popleft()
        if self.epoch is not None and (handled or self.seq != before):
            self._store.put_cursor(self.epoch, self.seq, self._unstored + handled)
            self._unstored.clear()
        return self.seq - before

    def _see(self, entry_id: str) -> None:
        self._seen[entry_id] = None
        while len(self._seen) > KEPT_IDS:
            del self._seen[next(iter(self._seen))]

    def forget(self) -> None:
        """Another user: another inbox."""
        self.epoch, self.seq = None, 0
        self._pending.clear()
        self._seen.clear()
