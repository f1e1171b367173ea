"""News for the archive of agents that got messages which visitors had written before.

The messages are in the archive already, or on their way, and in the agents' inboxes. Published once more,
with the name of the agent, they say that it takes part in them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import Counter, Gauge
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.archive import ArchiveQueue, ArchiveRecord
from imd.protocol.errors import Unavailable

MAX_MESSAGES = 20_000
MAX_BYTES = 32 << 20
PIECE_MESSAGES = 1_000
PIECE_BYTES = 1 << 20
MIN_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 30.0

WAITING = Gauge(
    "imd_desk_handed_over_messages",
    f"Messages of which the archive has still to be told that an agent got them (bound: {MAX_MESSAGES:,}).",
)
DROPPED = Counter(
    "imd_desk_handed_over_dropped_total", "Of these, those that it will not be told of: too many waited."
)


class HandedOver:
    """Publishes in pieces, one at a time, and each again until that succeeds, with growing pauses."""

    _log = Logger()

    def __init__(self, queue: ArchiveQueue, call_later: Callable[..., Any]) -> None:
        self._queue = queue
        self._call_later = call_later
        self._waiting: deque[ArchiveRecord] = deque()
        self._bytes = 0
        self._under_way: list[ArchiveRecord] = []
        self._pause = MIN_PAUSE_SECONDS
        self._timer: Any = None
        self._publishing = False
        self._dropping = False
        self._stopped = False
        self._idle: list[Deferred[None]] = []

    # from the node and from accept

    def add(self, records: Iterable[ArchiveRecord]) -> None:
        """These have been given to their agents."""
        dropped = 0
        for record in records:
            if len(self._waiting) >= MAX_MESSAGES or self._bytes + len(record.body) > MAX_BYTES:
                dropped += 1
            else:
                self._waiting.append(record)
                self._bytes += len(record.body)
        if dropped:
            DROPPED.inc(dropped)
            if not self._dropping:
                self._log.error("the archive is not told of all agents: too many messages wait for it")
        self._dropping = bool(dropped)
        if self._timer is None:
            self._publish()

    def drained(self) -> Deferred[None]:
        """Fires when nothing waits any more."""
        if not self._waiting and not self._under_way:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._idle.append(done)
        return done

    def stop(self) -> None:
        """Publish nothing more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left = len(self._waiting) + len(self._under_way)
        if left:
            self._log.error("the archive was not told which agents got {count} messages", count=left)

    # from within

    def _publish(self) -> None:
        """Publish a piece, and further ones for as long as each is confirmed at once."""
        self._timer = None
        if self._publishing:
            return
        self._publishing = True
        while not self._stopped and self._timer is None and (self._under_way or self._take()):
            confirmed = self._queue.publish(self._under_way)
            confirmed.addCallbacks(self._confirmed, self._failed)
            if not confirmed.called:
                confirmed.addBoth(self._go_on)
                break
        else:
            self._publishing = False
        WAITING.set(len(self._waiting) + len(self._under_way))
        if not self._waiting and not self._under_way:
            idle, self._idle = self._idle, []
            for done in idle:
                done.callback(None)

    def _go_on(self, _: None) -> None:
        self._publishing = False
        if self._timer is None:
            self._publish()

    def _take(self) -> bool:
        size = 0
        piece = self._under_way
        while self._waiting and len(piece) < PIECE_MESSAGES and size < PIECE_BYTES:
            record = self._waiting.popleft()
            size += len(record.body)
            piece.append(record)
        self._bytes -= size
        return bool(piece)

    def _confirmed(self, _: None) -> None:
        self._under_way = []
        self._pause = MIN_PAUSE_SECONDS

    def _failed(self, failure: Failure) -> None:
        if failure.check(Unavailable) is None:
            # Waiting would not help.
            self._log.failure("the archive cannot be told of agents", failure)
            DROPPED.inc(len(self._under_way))
            self._under_way = []
            return
        if self._stopped:
            return
        self._log.warn(
            "the archive cannot be told of agents yet: {reason}; trying again in {pause:g} s",
            reason=failure.getErrorMessage(),
            pause=self._pause,
        )
        self._timer = self._call_later(self._pause, self._publish)
        self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)
