"""A node among the others: it is announced to them, and knows whether clients are better off elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from prometheus_client import Gauge
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from imd.config.settings import Settings
from imd.contracts.bus import Bus
from imd.gateway.nodes import Row
from imd.gateway.own_row import own_row
from imd.gateway.slots import name_at_home
from imd.gateway.table import Announced, NodeTable
from imd.observe.seldom import Seldom
from imd.ops.announcing import Announcer
from imd.ops.serving import RedisTrouble, reason_not_to_serve

DRAINING = Gauge("imd_draining", "1 while the node drains or has been drained, else 0.")


class Membership:
    """`table` and `bus` are None where there are no other nodes."""

    log = Logger()

    def __init__(
        self,
        clock: Any,
        settings: Settings,
        table: NodeTable | None,
        bus: Bus | None,
        is_listening: Callable[[], bool],
        count_connections: Callable[[], int],
        must_drain: Callable[[bool], None],
        level: Callable[[], int],
        archived_ms: Callable[[], int],
    ) -> None:
        """`clock` is a reactor. `must_drain` is told, again and again, whether the node is to be drained.

        `level`: the feature level that the node works at; `archived_ms`: up to when it vouches for archived
        messages.
        """
        self.draining = False
        """clients are to go elsewhere: for a stop, a drain, or since the name is taken"""
        self.announcer: Announcer | None = None
        self._clock = clock
        self._settings = settings
        self._bus = bus
        self._is_listening = is_listening
        self._count_connections = count_connections
        self._must_drain = must_drain
        self._level = level
        self._archived_ms = archived_ms
        self._is_drain_wished = False
        self._seldom = Seldom(self.log, clock.seconds)
        self._alone = False
        self._trouble: RedisTrouble | None = None
        if table is not None and bus is not None:
            self._row = own_row(settings, bus.address, int(time.time() * 1000))
            self.announcer = Announcer(clock, table, self._present_row, self._heard)
            self._trouble = RedisTrouble(clock.seconds)
            bus.listen_health(self._asked, self._trouble.heard)

    # from the node

    def start(self) -> Deferred[None]:
        """Be announced, without slots yet. Fires when this node may listen: behind a gateway, when its name
        is its own."""
        if self.announcer is None:
            return succeed(None)
        named = self.announcer.start()
        return named if self._settings.cluster.routing == "gateway" else succeed(None)

    def changed(self) -> None:
        """This node listens now, or drains, or does not any more: the others are told at once."""
        if self.announcer is not None:
            self.announcer.announce()

    def drains(self, draining: bool) -> None:
        """Say, to load balancers and to other nodes, that clients are to go elsewhere, or may come again."""
        self.draining = draining
        DRAINING.set(draining)
        self.changed()

    def leave(self) -> Deferred[None]:
        """Take this node out of the table. Never fails."""
        return self.announcer.leave() if self.announcer is not None else succeed(None)

    # from the router

    def home(self, user: str) -> str | None:
        """Address on the bus of the node where a user is at home; None if that is this one, or not known."""
        if self.announcer is None:
            return None
        row = self.announcer.last.rows.get(self.announcer.slots.home(user) or "")
        return row.bus if row is not None and row.bus != self._row.bus else None

    # from those who look at the archive

    def rows(self) -> Mapping[str, Row]:
        """The rows of the last table that could be acted upon, by name."""
        return {} if self.announcer is None else self.announcer.last.rows

    # from the door

    def choose_name(self, draw: Callable[[], str]) -> str:
        """An id by `draw` whose home is this node, if there are other nodes."""
        if self.announcer is None:
            return draw()
        return name_at_home(self.announcer.slots, self._row.name, draw)

    # from readiness

    def looked(self, part: str, failing_since: float | None) -> None:
        """A look at a part has ended, or takes too long. `failing_since` is None if it found all well."""
        if part != "inbox" or self._trouble is None or self._bus is None:
            return
        if failing_since is None:
            self._trouble.passed()
        else:
            self._trouble.failed(failing_since)
            if self._trouble.others_are_to_be_asked():
                self._bus.ask_who_is_well(self._others())
        self._tell()

    # from the http port

    def problems(self) -> dict[str, str]:
        """The reasons of the membership why this node is not ready, by name."""
        if self._is_name_taken():
            return {"name": f"another live node is called {self._row.name}"}
        return {"listener": "draining"} if self.draining else {}

    def reason_not_to_serve(self) -> str | None:
        """Why load balancers are to send clients elsewhere; None if they are not."""
        return reason_not_to_serve(
            self._is_listening(), self.draining, self._is_name_taken(), self._trouble, self._others()
        )

    # from within

    def _is_name_taken(self) -> bool:
        """Without a gateway a name twice does no harm: addresses on the bus differ all the same."""
        taken = self.announcer is not None and self.announcer.taken
        return taken and self._settings.cluster.routing == "gateway"

    def _others(self) -> list[str]:
        """Addresses of the other live nodes on the bus."""
        if self.announcer is None:
            return []
        return [row.bus for row in self.announcer.last.rows.values() if row.bus != self._row.bus]

    def _present_row(self) -> Row:
        return msgspec.structs.replace(
            self._row,
            connections=self._count_connections(),
            draining=self.draining or not self._is_listening(),
            level=self._level(),
            archived=self._archived_ms(),
        )

    def _heard(self, heard: Announced) -> None:
        # The wish comes with each answer, until Redis forgets it; that changes nothing.
        if heard.wish:
            self._is_drain_wished = heard.wish == "drain"
        self._must_drain(self._is_drain_wished or self._is_name_taken())

    def _asked(self, address: str) -> None:
        if self._bus is not None and self._trouble is not None and self._trouble.may_answer():
            self._bus.say_well(address)

    def _tell(self) -> None:
        alone = self._trouble is not None and self._trouble.is_ours_alone(self._others())
        if alone != self._alone:
            self._alone = alone
            if alone:
                self._seldom.warn("Redis answers others and not this node: /serving says 503", cause="alone")
            else:
                self._seldom.info("Redis no longer fails for this node alone", cause="not alone")
