"""The wiring: the objects of one node, and which of them calls which."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed

from imd.chat.accept import Acceptor
from imd.chat.asks import Asks
from imd.chat.changes import Changes
from imd.chat.connection import Connection
from imd.chat.history import Historian
from imd.chat.homecoming import Homecoming
from imd.chat.live import Live
from imd.chat.presence import BLOCKS, Presence
from imd.chat.readers import Readers
from imd.chat.room_changes import RoomChanges
from imd.chat.room_sweep import RoomSweep
from imd.chat.router import Router
from imd.chat.services import Services
from imd.chat.session import Session
from imd.chat.sightings import Sightings
from imd.chat.signals import SIGNAL, TYPING, Signals
from imd.chat.state_feed import Feeds
from imd.chat.state_news import StateNews
from imd.chat.state_upkeep import StateUpkeep
from imd.chat.talks import TalkList
from imd.chat.targets import Targets
from imd.chat.typing import TypingPace
from imd.chat.upkeep import Upkeep
from imd.config.settings import Settings, node_name
from imd.contracts.archive import ArchiveRecord
from imd.contracts.inbox import Delivery
from imd.desk.handed_over import HandedOver
from imd.entry.admission import Door
from imd.entry.auth import Authenticator
from imd.entry.gate import Gate
from imd.entry.newcomers import Newcomers
from imd.entry.replacing import Replacing
from imd.node.backends import Backends
from imd.node.departures import Departures
from imd.node.goodbye import send_away, tell_to_go
from imd.observe.trace import TRACE
from imd.ops.complete import NOTHING, Completeness
from imd.ops.control import Switch
from imd.ops.level import ClusterLevel
from imd.ops.membership import Membership
from imd.ops.readiness import Readiness
from imd.protocol.ids import MessageIds, ServerClock
from imd.wire.listener import ChannelFactory


class Parts:
    """Made before anything starts. `own_problems`: the problems of node and backends, by name."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        clock: ServerClock,
        backends: Backends,
        own_problems: Callable[[], dict[str, str]],
        is_listening: Callable[[], bool],
        must_drain: Callable[[bool], None],
    ) -> None:
        self.backends = backends
        self._reactor = reactor
        self._settings = settings
        self._factory: ChannelFactory | None = None
        self._completeness: Completeness | None = None
        sessions: dict[str, Session] = {}
        probes = {"inbox": backends.inbox.probe}
        if id(backends.queue) != id(backends.inbox):
            probes["archive queue"] = backends.queue.probe
        self.level = ClusterLevel(reactor, backends.levels, self._level_changed)
        self.membership = self._make_membership(is_listening, must_drain)
        home = self.membership.home if settings.cluster.routing == "gateway" else None
        self.router = Router(sessions, backends.bus, reactor.seconds, reactor.callLater, home)
        self.readiness = Readiness(reactor, probes, own_problems, self.membership.looked)
        self.handed_over = HandedOver(backends.queue, reactor.callLater)
        self.departures = Departures(backends.inbox, reactor.seconds)
        self.acceptor = Acceptor(
            backends.inbox,
            backends.queue,
            self.router.deliver,
            clock,
            self._call_soon,
            self.handed_over.add,
            self.readiness.failed,
            backends.rooms.heard,
            backends.blocks.loaded,
        )
        self._completeness = self._make_completeness(clock)
        self.upkeep = self._make_upkeep(sessions)
        self._typing = TypingPace(reactor.seconds)
        self.feeds = Feeds(backends.states, reactor.callLater)
        self.live = Live(self.feeds.opened)
        self.live.when_ended(self._typing.ended, self.feeds.ended)
        self.signals = self._make_signals()
        has_others = backends.bus is not None
        news = StateNews(self.feeds, backends.aims, self.signals, has_others=has_others)
        backends.states.listen(news.changed)
        # A comparison asks MongoDB, which has more to do with each question than Redis.
        seconds = 4 * settings.inbox.reconcile_seconds
        self.state_upkeep = StateUpkeep(reactor, backends.states, self.feeds, backends.bus_problem, seconds)
        self.presence = self._make_presence()
        self.gate = Gate(reactor.seconds, reactor.callLater)
        self.ids = MessageIds(clock)
        self.trace_switch = Switch(reactor, TRACE)
        self.room_changes = RoomChanges(backends.rooms, backends.inbox, backends.queue, self.ids.next)
        self.room_sweep = RoomSweep(self.room_changes, reactor.callLater)
        backends.rooms.deliver_to(self._placed)
        self.homecoming = self._make_homecoming()
        self._services = self._make_services(clock, sessions)

    def _make_membership(
        self, is_listening: Callable[[], bool], must_drain: Callable[[bool], None]
    ) -> Membership:
        return Membership(
            self._reactor,
            self._settings,
            self.backends.nodes,
            self.backends.bus,
            is_listening,
            self._count_connections,
            must_drain,
            self.level,
            self._archived_ms,
        )

    def _make_upkeep(self, sessions: dict[str, Session]) -> Upkeep:
        return Upkeep(
            self._reactor,
            self.backends.inbox,
            sessions,
            self._desk_served,
            self.backends.bus_problem,
            reconcile_seconds=self._settings.inbox.reconcile_seconds,
            lease_seconds=self._settings.node.lease_seconds,
        )

    def _make_signals(self) -> Signals:
        """Typing and signals are frames for devices as they are."""
        signals = Signals(self.router, self.backends.bus, self._reactor.callLater)
        for kind in (TYPING, SIGNAL):
            signals.take(kind, self.live.send_all)
        return signals

    def _make_presence(self) -> Presence:
        bus, store = self.backends.bus, self.backends.presence
        address = bus.address if bus is not None else ""
        sightings = Sightings(self._reactor, store, self.backends.bus_problem, address)
        visible = self._settings.presence.visible
        presence = Presence(self._reactor, sightings, store, self.live.send, visible)
        store.listen_presence(lambda user, addresses: self.signals.look(addresses, user))
        self.signals.take_looks(sightings.look_again)
        self.signals.take(BLOCKS, presence.blocks_changed)
        self.live.when_ended(presence.ended)
        return presence

    def _make_services(self, clock: ServerClock, sessions: dict[str, Session]) -> Services:
        reactor, settings, backends = self._reactor, self._settings, self.backends
        per_address = settings.limits.visitors_per_address
        newcomers = Newcomers(per_address, reactor.seconds, self.membership.choose_name)
        authenticator = Authenticator(settings.auth, time.time)
        historian = Historian(backends.archive, self._make_readers(), self._complete)
        changes = Changes(
            backends.inbox,
            backends.queue,
            backends.archive,
            backends.rooms,
            Targets(backends.archive, self._call_soon),
            historian,
            clock,
            self.ids,
            settings.messages,
        )
        return Services(
            settings=settings,
            clock=clock,
            ids=self.ids,
            inbox=backends.inbox,
            acceptor=self.acceptor,
            router=self.router,
            historian=historian,
            changes=changes,
            authenticator=authenticator,
            door=Door(settings.auth, authenticator, newcomers),
            gate=self.gate,
            replacing=Replacing(reactor.seconds),
            sessions=sessions,
            call_later=reactor.callLater,
            unix_seconds=time.time,
            leave=self.departures.leave,
            desk_changed=self.upkeep.serve_desk,
            rooms=backends.rooms,
            room_changes=self.room_changes,
            level=self.level,
            live=self.live,
            asks=Asks(reactor.callLater),
            aims=backends.aims,
            signals=self.signals,
            typing=self._typing,
            states=backends.states,
            feeds=self.feeds,
            presence=self.presence,
            talks=TalkList(backends.archive.talks, backends.rooms, backends.states),
            blocks=backends.blocks,
            homecoming=self.homecoming,
        )

    def _make_readers(self) -> Readers:
        return Readers(self.backends.inbox, self.backends.rooms, self.backends.states)

    def _make_completeness(self, clock: ServerClock) -> Completeness | None:
        """None where the store itself knows up to which id it is complete."""
        progress = self.backends.progress
        if progress is None:
            return None
        oldest_event_ms = self.backends.rooms.oldest_event_ms
        return Completeness(
            clock,
            self.membership.rows,
            progress,
            lambda: self._unanswered_ms(clock.now_ms()),
            oldest_event_ms,
        )

    def _unanswered_ms(self, now_ms: int) -> int | None:
        """When the oldest message, event or change of a room was begun that is not answered."""
        oldest = (self.acceptor.oldest_ms(), self.room_changes.oldest_ms(now_ms))
        return min((one for one in oldest if one is not None), default=None)

    def _complete(self) -> Deferred[str]:
        if self.backends.complete is not None:
            return self.backends.complete()
        return succeed(NOTHING) if self._completeness is None else self._completeness.complete()

    def _archived_ms(self) -> int:
        return 0 if self._completeness is None else self._completeness.word()

    def _call_soon(self, function: Callable[[], None]) -> None:
        self._reactor.callLater(0, function)

    def make_factory(self, max_connections: int) -> ChannelFactory:
        """A factory for the WebSockets of this node. `max_connections`: how many connections there may be."""
        self._factory = ChannelFactory(
            self._reactor, self._settings, self.gate, partial(Connection, self._services), max_connections
        )
        return self._factory

    def _make_homecoming(self) -> Homecoming | None:
        """None where no gateway leads users to their homes."""
        membership = self.membership
        if self._settings.cluster.routing != "gateway" or membership.announcer is None:
            return None
        return Homecoming(
            self._reactor,
            node_name(self._settings),
            membership.announcer,
            lambda: not membership.draining,
            self._count_connections,
            tell_to_go,
        )

    def _count_connections(self) -> int:
        return len(self._factory.open) if self._factory is not None else 0

    def _level_changed(self, level: int) -> None:
        """Each connection has the features of the level that it began at: all of them begin anew."""
        for hear in self.backends.hear_level:
            hear(level)
        self.membership.changed()
        if self._factory is not None:
            seconds, clients = self._settings.node.stop_seconds, self._factory.open
            send_away(self._reactor, seconds, clients, "the cluster's level has changed")

    def _placed(self, deliveries: Sequence[Delivery]) -> None:
        """A store has put into inboxes what no connection here has just sent, such as changes of rooms."""
        if TRACE.on:
            TRACE.told(deliveries)
        self.router.deliver(deliveries)

    def _desk_served(self, deliveries: Sequence[Delivery]) -> None:
        """Agents got waiting messages of visitors: deliver them, and tell the archive of these agents."""
        self._placed(deliveries)
        self.handed_over.add(ArchiveRecord(delivery.body, delivery.user) for delivery in deliveries)
