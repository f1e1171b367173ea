"""Moving users home: a client that came to another node than its user's home is told to connect again.

Only clients count whose URL named their user, since a gateway leads no others. A table of nodes that is out
of step with the gateway must make no loop: a device is moved once in ten minutes, and stays where it came
back to.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from typing import Any, Protocol

from prometheus_client import Counter, Gauge
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from imd.contracts.timer import Cancellable
from imd.gateway.slots import Slots
from imd.gateway.table import CURRENT_SECONDS, LEASE_SECONDS, LastTable
from imd.protocol.author import Author
from imd.protocol.errors import CLOSE_LEAVING

MOVED = Counter("imd_moved_total", "Connections that were sent to the home of their user.")
AWAY = Gauge("imd_away_from_home", "Connections that named their user, whose home is another node.")

TICK_SECONDS = 1.0
STEADY_SECONDS = 10.0
"""nobody is moved before the same nodes have had the slots for so long"""
ARRIVED_SECONDS = LEASE_SECONDS + CURRENT_SECONDS
"""nobody is moved who came later: the home may have died just before, and be in the table still"""
AGAIN_SECONDS = 600.0
"""a device is moved once in this time"""
MAX_REMEMBERED = 100_000
"""moved devices that are remembered; past this the one that was moved first is forgotten"""
ANSWER_SECONDS = 2.0
"""a client that was told to go is closed after this time, whatever it still waits for"""
SLICE = 256
"""connections that are looked at in one turn of the reactor"""
REASON = "the user's home is another node"


class Traveller(Protocol):
    """A connection, as the homecoming sees it."""

    @property
    def is_open(self) -> bool:
        """The login is through, and the connection has not ended."""

    def close(self, code: int, reason: str) -> None:
        """End the connection."""


class Homes(Protocol):
    """The nodes that have slots."""

    slots: Slots
    last: LastTable


class Homecoming:
    """The connections of a node that named their user, and those of them that are away from home."""

    log = Logger()

    def __init__(
        self,
        clock: Any,
        node: str,
        homes: Homes,
        may_move: Callable[[], bool],
        count_connections: Callable[[], int],
        tell_to_go: Callable[[Collection[Any], str], None],
    ) -> None:
        """`clock` is a reactor, `node` this node's name. `count_connections` counts all of the node's.

        `tell_to_go` gets the connections to be moved, and the reason.
        """
        self._clock = clock
        self._node = node
        self._homes = homes
        self._may_move = may_move
        self._count_connections = count_connections
        self._tell_to_go = tell_to_go
        self._changes = homes.last.changes
        """of the nodes, when all connections were last judged, or began to be"""
        self._here: dict[Traveller, Author] = {}
        self._unjudged: list[Traveller] = []
        """the connections that are still to be judged; some may have ended"""
        self._away: OrderedDict[Traveller, float] = OrderedDict()
        """to be moved, in this order, but each not before this time"""
        self._staying: set[Traveller] = set()
        """away from home, too, but they came back here"""
        self._moved: OrderedDict[tuple[str, str], float] = OrderedDict()
        """user and device → when it was moved, the oldest first"""
        self._told: deque[tuple[float, Traveller]] = deque()
        """when each was told to go, the oldest first"""
        self._judging: Cancellable | None = None
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock

    # from the node

    def start(self) -> None:
        self._loop.start(TICK_SECONDS, now=False).addErrback(
            lambda failure: self.log.failure("users are not moved home any more", failure)
        )

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        if self._judging is not None:
            self._judging.cancel()
            self._judging = None

    # from connections

    def arrived(self, traveller: Traveller, author: Author, hint: str | None) -> None:
        """A login is through. `hint` is the user that the URL named."""
        if hint != author.user:
            return
        self._here[traveller] = author
        if not self._is_away(author):
            return
        if (author.user, author.device) in self._moved:
            self._staying.add(traveller)
        else:
            self._away[traveller] = self._clock.seconds() + ARRIVED_SECONDS
        self._count()

    def left(self, traveller: Traveller) -> None:
        """The connection has ended."""
        if self._here.pop(traveller, None) is not None:
            self._forget_place(traveller)
            self._count()

    # from within

    def _tick(self) -> None:
        now = self._clock.seconds()
        while self._told and self._told[0][0] <= now - ANSWER_SECONDS:
            self._told.popleft()[1].close(CLOSE_LEAVING, REASON)
        while self._moved and next(iter(self._moved.values())) <= now - AGAIN_SECONDS:
            self._moved.popitem(last=False)
        if self._homes.last.changes != self._changes:
            self._changes = self._homes.last.changes
            self._unjudged = list(self._here)
            if self._judging is None:
                self._judge()
        if self._may_move() and self._homes.last.unchanged_seconds(now) >= STEADY_SECONDS:
            self._move(now)
        self._count()

    def _judge(self) -> None:
        """Look where users are at home now: in slices, for a node may have many."""
        now = self._clock.seconds()
        these = self._unjudged[-SLICE:]
        del self._unjudged[-SLICE:]
        for traveller in these:
            author = self._here.get(traveller)
            if author is not None:
                not_before = self._away.get(traveller, now)
                self._forget_place(traveller)
                if self._is_away(author):
                    self._away[traveller] = not_before
        self._count()
        self._judging = self._clock.callLater(0, self._judge) if self._unjudged else None

    def _move(self, now: float) -> None:
        """Tell one of a hundred connections, and at least one, to go."""
        most = max(1, self._count_connections() // 100)
        going: list[Traveller] = []
        for _ in range(min(len(self._away), most + SLICE)):
            traveller, not_before = self._away.popitem(last=False)
            author = self._here[traveller]
            if not self._is_away(author):
                continue
            if now < not_before or not traveller.is_open or not self._may_go(author):
                self._away[traveller] = not_before
                continue
            going.append(traveller)
            self._moved[author.user, author.device] = now
            if len(going) == most:
                break
        while len(self._moved) > MAX_REMEMBERED:
            self._moved.popitem(last=False)
        if going:
            MOVED.inc(len(going))
            self._told += ((now, traveller) for traveller in going)
            self._tell_to_go(going, REASON)

    def _may_go(self, author: Author) -> bool:
        if (author.user, author.device) in self._moved:
            return False
        row = self._homes.last.rows.get(self._homes.slots.home(author.user) or "")
        return row is not None and not row.draining

    def _is_away(self, author: Author) -> bool:
        return self._homes.slots.home(author.user) not in (None, self._node)

    def _forget_place(self, traveller: Traveller) -> None:
        self._away.pop(traveller, None)
        self._staying.discard(traveller)

    def _count(self) -> None:
        AWAY.set(len(self._away) + len(self._staying))
