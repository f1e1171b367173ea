"""Announcing a node: its row in the table of nodes is renewed, and the newest table is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import Counter, Gauge
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.gateway.nodes import Row
from imd.gateway.slots import Slots
from imd.gateway.table import BEAT_SECONDS, Announced, LastTable, NodeTable
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable

NODES = Gauge("imd_nodes", "Live nodes in the table, as this node last saw it.", ["state"])
TABLE_AGE = Gauge("imd_nodes_table_age_seconds", "How long the table has existed in this run of Redis.")
HOME_SLOTS = Gauge("imd_home_slots", "Of 1,024 slots, those whose users are at home on this node.")
FAILURES = Counter("imd_nodes_announce_failures_total", "Announcements that Redis did not take in time.")


class Announcer:
    """Announces this node every BEAT_SECONDS. A call that is in flight is not doubled.

    When Redis does not answer, or has forgotten, `last` and `slots` stay as they are.
    """

    log = Logger()

    def __init__(
        self,
        clock: Any,
        table: NodeTable,
        make_row: Callable[[], Row],
        heard: Callable[[Announced], None] = lambda _: None,
    ) -> None:
        """`clock` is a reactor; `make_row` describes this node at the moment. `heard` gets each answer."""
        self.last = LastTable()
        """the last table that could be acted upon"""
        self.slots = Slots(())
        """the slots over its members"""
        self.taken = False
        """another live node has this node's name"""
        self._clock = clock
        self._table = table
        self._make_row = make_row
        self._tell = heard
        self._seldom = Seldom(self.log, clock.seconds)
        self._named: Deferred[None] = Deferred()
        self._asking: Deferred[None] | None = None
        self._again = False
        self._loop = LoopingCall(self.announce)
        self._loop.clock = clock

    def start(self) -> Deferred[None]:
        """Begin. Fires when the name is this node's, however long another has it or Redis is away."""
        self._loop.start(BEAT_SECONDS, now=True).addErrback(
            lambda failure: self.log.failure("this node is not announced any more", failure)
        )
        return self._named

    def announce(self) -> None:
        """Announce at once, or when the announcement in flight is over."""
        if self._asking is not None:
            self._again = True
            return
        self._again = False
        self._asking = asking = self._table.announce(self._make_row()).addCallbacks(self._heard, self._failed)
        asking.addErrback(lambda failure: self.log.failure("an announcement failed", failure))
        asking.addBoth(self._over)

    def leave(self) -> Deferred[None]:
        """Take the row away, and announce no more. Never fails."""
        if not self._loop.running:
            return succeed(None)
        self._loop.stop()
        self._again = False
        # On the same connection, so it comes after an announcement in flight.
        return self._table.leave(self._make_row()).addErrback(self._failed)

    def _over(self, _: object) -> None:
        self._asking = None
        if self._again and self._loop.running:
            self.announce()

    def _heard(self, heard: Announced) -> None:
        self._note_taken(heard.taken)
        self._tell(heard)
        if not heard.taken and not self._named.called:
            self._named.callback(None)
        rows = heard.reading.rows
        draining = sum(row.draining for row in rows.values())
        NODES.labels("draining").set(draining)
        NODES.labels("serving").set(len(rows) - draining)
        TABLE_AGE.set(heard.reading.age_seconds)
        if self.last.take(heard.reading, self._clock.seconds()) and self.last.members != self.slots.names:
            self.slots = Slots(self.last.members)
            HOME_SLOTS.set(self.slots.first.count(self._make_row().name))

    def _note_taken(self, taken: bool) -> None:
        if taken != self.taken:
            self.taken = taken
            name = self._make_row().name
            if taken:
                self._seldom.warn("another live node is called {name}: give each its own", name=name)
            else:
                self._seldom.info("no other node is called {name} any more", name=name)

    def _failed(self, failure: Failure) -> None:
        failure.trap(Unavailable)
        FAILURES.inc()
        reason = failure.getErrorMessage()
        self._seldom.warn("the table of nodes: {reason}", cause=reason, reason=reason)
