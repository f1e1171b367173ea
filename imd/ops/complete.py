"""The id up to which everything that was accepted is archived, on all nodes.

Each node tells in its row of the table of nodes up to when it vouches for all that it took: until an id of
its own is answered, and its batch is written by the ledger. The lowest word of all counts, and the oldest
event of a room that is in MongoDB but not known to be archived.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, succeed

from imd.contracts.archive import Progress
from imd.gateway.nodes import Row
from imd.protocol.ids import ServerClock

MARGIN_MS = 3_000
"""for a node that takes messages before it is in the table, and for clocks that differ"""
HOLD_SECONDS = 10.0
"""the word of a node that is gone counts for so long, at least"""
FORGET_SECONDS = 3_600.0

NOTHING = "0" * 28


class Completeness:
    """`unanswered`: when the id of this node's oldest unanswered message was made, ms; None if all are."""

    def __init__(
        self,
        clock: ServerClock,
        rows: Callable[[], Mapping[str, Row]],
        progress: Progress,
        unanswered: Callable[[], int | None],
        oldest_event_ms: Callable[[], Deferred[int | None]],
    ) -> None:
        """`rows`: the last table that could be acted upon; `oldest_event_ms`: that of RoomStore."""
        self._clock = clock
        self._rows = rows
        self._progress = progress
        self._unanswered = unanswered
        self._oldest_event_ms = oldest_event_ms
        self._words: dict[str, int] = {}
        """node → its last word; nodes by the names that `progress` gives"""
        self._gone: dict[str, float] = {}
        """node that has left the table → since when"""

    # from the membership

    def word(self) -> int:
        """Up to when this node vouches for what it took, and for nodes that are gone; ms."""
        present = self._look()
        waiting = [self._words.get(name, 0) for name in self._progress.waiting() if name not in present]
        unfinished = (self._progress.oldest_ms(), self._unanswered())
        own = [made_ms for made_ms in unfinished if made_ms is not None]
        return min([self._clock.now_ms(), *waiting, *own])

    # from the historian

    def complete(self) -> Deferred[str]:
        """The id; NOTHING while nothing is known. Fails with Unavailable."""
        present = self._look()
        now = self._clock.monotonic()
        words = list(present.values())
        words += [self._words[name] for name, since in self._gone.items() if now - since < HOLD_SECONDS]
        if not present or (lowest := min(words) - MARGIN_MS) <= 0:
            return succeed(NOTHING)
        # Asked after the words are known: an event that no node vouches against any more is there by then.
        return self._oldest_event_ms().addCallback(_id_below, lowest)

    def _look(self) -> dict[str, int]:
        """The words of the nodes in the table. The words of those that leave it are remembered."""
        now = self._clock.monotonic()
        present = {self._progress.name_of(row.bus): row.archived for row in self._rows().values()}
        for name in self._words.keys() - present.keys() - self._gone.keys():
            self._gone[name] = now
        self._words |= present
        for name in [name for name, since in self._gone.items() if now - since > FORGET_SECONDS]:
            del self._gone[name], self._words[name]
        return present


def _id_below(oldest_event: int | None, lowest: int) -> str:
    if oldest_event is not None:
        lowest = min(lowest, oldest_event)
    return f"{lowest:012x}{'0' * 16}"
