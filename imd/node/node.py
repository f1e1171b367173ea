"""A node from start to stop: stores, bus and registry first, the listener last; and all of it back again."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.accept import Acceptor
from imd.chat.connection import Connection
from imd.chat.history import Historian
from imd.chat.router import Router
from imd.chat.services import Services
from imd.chat.session import Session
from imd.chat.upkeep import Upkeep
from imd.config.endpoints import Certificates
from imd.config.endpoints import make as make_endpoint
from imd.config.settings import Settings, node_name
from imd.contracts.archive import Archive, ArchiveQueue, ArchiveRecord
from imd.contracts.backend import Backend
from imd.contracts.bus import Bus
from imd.contracts.inbox import Delivery, Inbox, Leave
from imd.desk.handed_over import HandedOver
from imd.entry.auth import Authenticator
from imd.entry.gate import Gate
from imd.entry.replacing import Replacing
from imd.observe.seldom import Seldom
from imd.observe.trace import TRACE
from imd.ops.control import Switch, clear_stale, make_control
from imd.ops.http import make_site
from imd.ops.pages import client_settings, read_files
from imd.ops.process import (
    RESERVED_FILES,
    SPARE_SOCKETS,
    connection_room,
    raise_file_limit,
    reopen_log,
    settle_garbage_collector,
)
from imd.ops.readiness import Readiness
from imd.protocol.errors import CLOSE_LEAVING, ConfigurationError, Unavailable
from imd.protocol.ids import MessageIds, ServerClock
from imd.wire.listener import ChannelFactory

# A planned stop spreads its clients' return: two milliseconds for each, five seconds at most.
SPREAD_MS_PER_CLIENT = 2
MAX_SPREAD_MS = 5000
# So long a start waits for the archive, to learn the newest id.
NEWEST_ID_SECONDS = 2.0


@dataclass(frozen=True)
class Backends:
    """`workers` are what else has to run; nobody waits for them before clients are let in."""

    inbox: Inbox
    queue: ArchiveQueue
    archive: Archive
    bus: Bus | None
    workers: Sequence[Backend] = ()

    def named(self) -> dict[str, Backend]:
        """All of them by the names that /readyz uses, in the order of starting."""
        named: dict[str, Backend] = {"inbox": self.inbox, "archive queue": self.queue}
        if self.bus is not None:
            named["bus"] = self.bus
        named["archive"] = self.archive
        for worker in self.workers:
            named[type(worker).__name__] = worker
        return named


class NodeService(Service):
    """Makes a node when twistd starts services: it has daemonised by then, the process is the node's.

    `hangup` is told which function SIGHUP is to call.
    """

    def __init__(
        self, make_node: Callable[[], Node], hangup: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        self._make_node = make_node
        if hangup is not None:
            hangup(self._reload)
        self._node: Node | None = None

    def startService(self) -> None:
        super().startService()
        self._node = self._make_node()
        self._node.start()

    def _reload(self) -> None:
        reopen_log()
        if self._node is not None:
            self._node.reload()

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        return self._node.stop() if self._node is not None else None


class Node:
    """One imd node. Its backends may come and go; it stays."""

    log = Logger()

    def __init__(self, reactor: Any, settings: Settings, clock: ServerClock, backends: Backends) -> None:
        self._reactor = reactor
        self._settings = settings
        self._clock = clock
        self._backends = backends
        self._sessions: dict[str, Session] = {}
        self._leaves: set[Deferred[None]] = set()
        self._starting: Deferred[None] | None = None
        self._workers_starting: list[Deferred[None]] = []
        self._http_port: Any = None
        self._control_port: Any = None
        self._trace_switch = Switch(reactor, TRACE)
        self._port: Any = None
        self._certificates: dict[str, Certificates] = {}
        self._failed = False
        self._router = Router(self._sessions, backends.bus, reactor.seconds, reactor.callLater)
        probes = {"inbox": backends.inbox.probe}
        if id(backends.queue) != id(backends.inbox):
            probes["archive queue"] = backends.queue.probe
        self._readiness = Readiness(reactor, probes, self._own_problems)
        self._seldom = Seldom(self.log, reactor.seconds)
        self._handed_over = HandedOver(backends.queue, reactor.callLater)
        self._acceptor = Acceptor(
            backends.inbox,
            backends.queue,
            self._router.deliver,
            clock,
            lambda function: reactor.callLater(0, function),
            self._handed_over.add,
            self._readiness.failed,
        )
        self._upkeep = Upkeep(
            reactor,
            backends.inbox,
            self._sessions,
            self._desk_served,
            self._bus_problem,
            reconcile_seconds=settings.inbox.reconcile_seconds,
            lease_seconds=settings.node.lease_seconds,
        )
        self._gate = Gate(reactor.seconds, reactor.callLater)
        self._ids = MessageIds(clock)
        self._services = Services(
            settings=settings,
            clock=clock,
            ids=self._ids,
            inbox=backends.inbox,
            acceptor=self._acceptor,
            router=self._router,
            historian=Historian(backends.archive, backends.inbox),
            authenticator=Authenticator(settings.auth, time.time),
            gate=self._gate,
            replacing=Replacing(reactor.seconds),
            sessions=self._sessions,
            call_later=reactor.callLater,
            unix_seconds=time.time,
            leave=self._leave,
            desk_changed=self._upkeep.serve_desk,
        )
        self._factory: ChannelFactory | None = None

    # from its service

    def start(self) -> None:
        """Start, for as long as the backends take. What can never work ends the process."""
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._start_failed)

    def stop(self) -> Deferred[None]:
        """Fires when all is let go of, `stop_seconds` later at most."""
        return Deferred.fromCoroutine(self._stop())

    # from the operator's port

    def problems(self) -> dict[str, str]:
        """What keeps this node from being ready, by name; empty when it is."""
        return self._readiness.problems()

    def _own_problems(self) -> dict[str, str]:
        """What the node and its backends say of themselves."""
        problems = {}
        for name, backend in self._backends.named().items():
            problem = backend.problem()
            if problem is not None:
                problems[name] = problem
        if self._port is None:
            problems["listener"] = "stopping" if self._starting is None else "not listening yet"
        return problems

    # starting

    async def _start(self) -> None:
        limit = raise_file_limit()
        room = connection_room(limit, self._settings.limits.connections)
        self.log.info("room for {room} connections, with {limit} open files", room=room, limit=limit)
        self._factory = self.make_factory(room)
        self._http_port = await self._listen(self._settings.http.listen, self._site())
        TRACE.node = node_name(self._settings)
        if self._settings.node.control:
            endpoint = clear_stale(self._settings.node.control)
            site = make_control(self._trace_switch)
            self._control_port = await self._listen(endpoint, site, "[node] control")
        self.log.info("pages, health and metrics at {where}", where=self._http_port.getHost())
        waits = []
        for name, backend in self._backends.named().items():
            started = backend.start()
            if name == "archive":
                newest = self._learn_newest_id(started)
            if name in ("inbox", "archive queue", "bus"):
                waits.append(started)
            else:
                self._workers_starting.append(started.addErrback(self._start_failed))
        for started in waits:
            await started
        await newest
        self._factory.heartbeat.start()
        self._upkeep.start()
        self._readiness.start()
        self._port = await self._listen(self._settings.websocket.listen, self._factory)
        self._gate.guard(self._port, room, max(1, limit - RESERVED_FILES + SPARE_SOCKETS))
        settle_garbage_collector()
        self.log.info("clients are welcome at {where}, path /ws", where=self._port.getHost())

    def make_factory(self, room: int) -> ChannelFactory:
        """A factory for the WebSockets of this node. `room`: how many connections there may be."""
        return ChannelFactory(
            self._reactor, self._settings, self._gate, partial(Connection, self._services), room
        )

    def _learn_newest_id(self, started: Deferred[None]) -> Deferred[None]:
        """Have ids go on above those of the archive, however clocks were set since. Fires in any case."""
        learned: Deferred[None] = Deferred()
        learned.addTimeout(NEWEST_ID_SECONDS, self._reactor, onTimeoutCancel=lambda *_: None)

        def done(_: object) -> None:
            if not learned.called:
                learned.callback(None)

        def ask(_: None) -> None:
            asked = self._backends.archive.newest_id().addCallback(self._ids.continue_after)
            asked.addErrback(lambda failure: self._seldom.warn("the newest id: {why}", why=failure.value))
            asked.addBoth(done)

        started.addCallback(ask)
        return learned

    def _site(self) -> Any:
        if not self._settings.http.pages:
            return make_site(self.problems)
        return make_site(self.problems, read_files(), self._client_settings)

    def _client_settings(self, headers: Mapping[str, str]) -> bytes | None:
        """What a page must know; None until this node listens, for only then its port is known."""
        if self._port is None:
            return None
        port = getattr(self._port.getHost(), "port", None)
        return client_settings(self._settings, port, headers)

    async def _listen(self, description: str, factory: Any, key: str = "listen") -> Any:
        try:
            endpoint, certificates = make_endpoint(self._reactor, description)
            port = await endpoint.listen(factory)
        except (CannotListenError, OSError, ValueError, LookupError) as error:
            raise ConfigurationError(f"{key} = {description}: {_why(error)}") from None
        if certificates is not None:
            self._certificates[description] = certificates
        return port

    def reload(self) -> None:
        """Read the certificates of `ssl:` endpoints anew, for connections to come."""
        for description, certificates in self._certificates.items():
            try:
                certificates.reload()
            except ValueError as error:
                self.log.error("certificates not reloaded, the old ones stay: {reason}", reason=str(error))
            else:
                self.log.info("certificates reloaded: {where}", where=description)

    def _start_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if failure.check(ConfigurationError):
            self.log.critical("cannot start: {reason}", reason=failure.getErrorMessage())
        else:
            self.log.failure("cannot start", failure)
        if not self._failed:
            self._failed = True
            # twistd's own exit code would be 0, and a supervisor would think that all is well.
            self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
            self._reactor.callWhenRunning(self._reactor.stop)

    # stopping

    async def _stop(self) -> None:
        """Everything within `stop_seconds`: each step has what the ones before it left."""
        until = self._reactor.seconds() + self._settings.node.stop_seconds
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
        port, self._port = self._port, None
        if port is not None:
            await self._step("stop listening", maybeDeferred(port.stopListening), until)
        if self._factory is not None:
            await self._let_clients_go(self._factory, until)
            self._factory.heartbeat.stop()
        self._gate.stop()
        self._upkeep.stop()
        self._readiness.stop()
        left = until - self._reactor.seconds()
        told = self._handed_over.drained()
        await self._step("tell the archive who got visitors' messages", told, until - left / 2)
        self._handed_over.stop()
        self._router.stop()
        await self._step("leave the registry", DeferredList(list(self._leaves)), until)
        for name, backend in reversed(self._backends.named().items()):
            await self._step(f"stop the {name}", backend.stop(), until)
        self._trace_switch.off()
        if self._control_port is not None:
            closed = maybeDeferred(self._control_port.stopListening)
            await self._step("close the control socket", closed, until)
        if self._http_port is not None:
            await self._step("close the http port", maybeDeferred(self._http_port.stopListening), until)

    async def _let_clients_go(self, factory: ChannelFactory, until: float) -> None:
        """Tell them, answer what is under way, close, and see them gone."""
        protocols = list(factory.open)
        spread = min(MAX_SPREAD_MS, SPREAD_MS_PER_CLIENT * len(protocols))
        for protocol in protocols:
            if protocol.handler is not None:
                protocol.handler.leaving(random.randint(0, spread))
        left = until - self._reactor.seconds()
        await self._step("answer what is under way", self._acceptor.drained(), until - left / 2)
        for protocol in list(factory.open):
            if protocol.handler is not None:
                protocol.handler.close(CLOSE_LEAVING, "the node is leaving")
            else:
                protocol.close(CLOSE_LEAVING, "the node is leaving")
        left = until - self._reactor.seconds()
        await self._step("see the clients gone", factory.emptied(), until - left / 2)
        for protocol in list(factory.open):
            protocol.transport.abortConnection()
        await self._step("drop the clients left", factory.emptied(), until)

    async def _step(self, what: str, done: Deferred[Any], until: float) -> None:
        done.addTimeout(max(0.05, until - self._reactor.seconds()), self._reactor)
        try:
            await done
        except TimeoutError:
            self.log.warn("stopping: no time left to {what}", what=what)
        except Exception:
            self.log.failure("stopping: {what}", what=what)

    # for connections

    def _leave(self, leave: Leave) -> None:
        left = self._backends.inbox.leave(leave)
        self._leaves.add(left)
        left.addErrback(self._leave_failed).addBoth(lambda _: self._leaves.discard(left))

    def _leave_failed(self, failure: Failure) -> None:
        # The lease ends by itself.
        if failure.check(Unavailable) is None:
            self._seldom.failure("a channel could not leave", failure)

    def _desk_served(self, deliveries: Sequence[Delivery]) -> None:
        """Agents got what visitors had waiting: tell them, and let the archive know who takes part now."""
        self._router.deliver(deliveries)
        self._handed_over.add(ArchiveRecord(delivery.body, delivery.user) for delivery in deliveries)

    def _bus_problem(self) -> str | None:
        return self._backends.bus.problem() if self._backends.bus is not None else None


def _why(error: Exception) -> str:
    """Of an endpoint of systemd's, nothing but the index or the name is in the error."""
    return f"systemd has not handed over a socket {error}" if isinstance(error, LookupError) else str(error)
