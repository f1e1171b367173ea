"""Pings for all connections from one timer, not one for each connection."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

LATE_TICKS = 2
"""a tick that comes after more than so many of them: this process stood still"""


class Peer(Protocol):
    """A connection as the heartbeat sees it."""

    pong_due: float
    """when its pong is due, in monotonic seconds; 0: no ping is unanswered"""

    def ping(self) -> None: ...

    def pong_overdue(self) -> bool:
        """Its pong did not come. Return True to give it as much time again, as this node was not reading."""


class Heartbeat:
    """Pings each peer every `ping_seconds`, spread evenly, and calls peers whose pong is overdue."""

    log = Logger()

    def __init__(self, clock: Any, ping_seconds: float, pong_seconds: float) -> None:
        self._seconds: Callable[[], float] = clock.seconds
        self._pong_seconds = pong_seconds
        self._tick_seconds = min(1.0, ping_seconds / 2, pong_seconds / 2)
        count = max(1, math.ceil(ping_seconds / self._tick_seconds))
        self._slots: list[set[Peer]] = [set() for _ in range(count)]
        self._now = 0
        self._last_slot = 0
        self._due: deque[tuple[float, Peer]] = deque()
        self._ticked_at = 0.0
        self._was_late = False
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock

    def start(self) -> None:
        self._ticked_at = self._seconds()
        self._loop.start(self._tick_seconds, now=False).addErrback(
            lambda failure: self.log.failure("the heartbeat has stopped", failure)
        )

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def add(self, peer: Peer) -> int:
        """Add a peer. Returns the slot that `remove` takes."""
        self._last_slot = (self._last_slot + 1) % len(self._slots)
        self._slots[self._last_slot].add(peer)
        return self._last_slot

    def remove(self, peer: Peer, slot: int) -> None:
        self._slots[slot].discard(peer)
        peer.pong_due = 0.0

    def _tick(self) -> None:
        now = self._seconds()
        # After a standstill of the whole process pongs may have come that are not read yet. Not twice in
        # succession: between two ticks the node has read.
        is_late = now - self._ticked_at > LATE_TICKS * self._tick_seconds
        unread = is_late and not self._was_late
        self._ticked_at, self._was_late = now, is_late
        while self._due and self._due[0][0] <= now:
            due, peer = self._due.popleft()
            if peer.pong_due == due and (unread or self._asks_for_time(peer)):
                self._expect(peer, now)
        self._now = (self._now + 1) % len(self._slots)
        for peer in list(self._slots[self._now]):
            if not peer.pong_due:
                self._ping(peer)
                self._expect(peer, now)

    # A peer that raises must not stop the heartbeat of others.

    def _ping(self, peer: Peer) -> None:
        try:
            peer.ping()
        except Exception:
            self.log.failure("a ping has failed")

    def _asks_for_time(self, peer: Peer) -> bool:
        try:
            return peer.pong_overdue()
        except Exception:
            self.log.failure("closing a connection with an overdue pong has failed")
            return False

    def _expect(self, peer: Peer, now: float) -> None:
        peer.pong_due = now + self._pong_seconds
        self._due.append((peer.pong_due, peer))
