"""The ordered start: the operator's ports, then the backends, and the clients' port last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.config.settings import Settings, node_name
from imd.node.parts import Parts
from imd.node.ports import Ports
from imd.observe.seldom import Seldom
from imd.observe.trace import TRACE
from imd.ops.control import clear_stale, make_control
from imd.ops.http import make_site
from imd.ops.pages import client_settings, read_files
from imd.ops.process import (
    RESERVED_FILES,
    SPARE_SOCKETS,
    connection_bound,
    raise_file_limit,
    settle_garbage_collector,
)
from imd.wire.listener import ChannelFactory
from imd.wire.twisted_internals import Listener

# The start waits this long for the archive's newest id.
NEWEST_ID_SECONDS = 2.0


class Start:
    """One start of a node. `factory` is there as soon as it is known how many clients may come."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        parts: Parts,
        ports: Ports,
        problems: Callable[[], dict[str, str]],
        failed: Callable[[Failure], None],
    ) -> None:
        """`problems`: for /readyz. `failed` is told of a worker that cannot start."""
        self.factory: ChannelFactory | None = None
        self._reactor = reactor
        self._settings = settings
        self._parts = parts
        self._ports = ports
        self._problems = problems
        self._failed = failed
        self._seldom = Seldom(self.log, reactor.seconds)
        self._in_background: list[Deferred[None]] = []
        self._max_connections = 0
        self._max_sockets = 0

    async def run(self) -> None:
        """Start, for as long as the backends take. Raises ConfigurationError for what can never work."""
        limit = raise_file_limit()
        self._max_connections = max_connections = connection_bound(limit, self._settings.limits.connections)
        self._max_sockets = max(1, limit - RESERVED_FILES + SPARE_SOCKETS)
        self.log.info(
            "room for {room} connections, with {limit} open files", room=max_connections, limit=limit
        )
        self.factory = self._parts.make_factory(max_connections)
        await self._open_operators_ports()
        await self._start_backends()
        # Before anything is written that would make a new cluster look like an old one.
        await self._parts.level.start()
        self.factory.heartbeat.start()
        self._parts.upkeep.start()
        self._parts.state_upkeep.start()
        self._parts.room_sweep.start()
        self._parts.presence.start()
        self._parts.readiness.start()
        await self._parts.membership.start()
        await self.listen()
        self._parts.membership.changed()
        if self._parts.homecoming is not None:
            self._parts.homecoming.start()
        settle_garbage_collector()

    async def listen(self) -> None:
        """Open the clients' port, also once more after it was closed. Raises ConfigurationError."""
        ports = self._ports
        ports.websocket = await ports.open(self._settings.websocket.listen, self.factory)
        self._parts.gate.guard(Listener(ports.websocket), self._max_connections, self._max_sockets)
        self.log.info("clients are welcome at {where}, path /ws", where=ports.websocket.getHost())

    async def _open_operators_ports(self) -> None:
        ports = self._ports
        ports.http = await ports.open(self._settings.http.listen, self._site())
        TRACE.node = node_name(self._settings)
        if self._settings.node.control:
            endpoint = clear_stale(self._settings.node.control)
            site = make_control(self._parts.trace_switch)
            ports.control = await ports.open(endpoint, site, "[node] control")
        self.log.info("pages, health and metrics at {where}", where=ports.http.getHost())

    async def _start_backends(self) -> None:
        """Start all of them. Clients are let in without the archive: the queue keeps its batches."""
        waits = []
        for name, backend in self._parts.backends.named().items():
            started = backend.start()
            if name == "archive":
                waits.append(self._learn_newest_id(started))
            if name in ("inbox", "archive queue", "bus"):
                waits.append(started)
            else:
                self._in_background.append(started.addErrback(self._failed))
        for started in waits:
            await started

    def _learn_newest_id(self, archive_started: Deferred[None]) -> Deferred[None]:
        """Make new ids higher than the archive's newest one, even if a clock was set back.

        Fires after NEWEST_ID_SECONDS at the latest, with or without an answer. Never fails.
        """
        learned: Deferred[None] = Deferred()
        learned.addTimeout(NEWEST_ID_SECONDS, self._reactor, onTimeoutCancel=lambda *_: None)

        def done(_: object) -> None:
            if not learned.called:
                learned.callback(None)

        def ask(_: None) -> None:
            asked = self._parts.backends.archive.newest_id().addCallback(self._parts.ids.continue_after)
            text = "the archive's newest id is not known: {why}"
            asked.addErrback(lambda failure: self._seldom.warn(text, why=failure.value))
            asked.addBoth(done)

        archive_started.addCallback(ask)
        return learned

    def _site(self) -> Any:
        reason_not_to_serve = self._parts.membership.reason_not_to_serve
        if not self._settings.http.pages:
            return make_site(self._problems, None, None, reason_not_to_serve)
        return make_site(self._problems, read_files(), self._client_settings, reason_not_to_serve)

    def _client_settings(self, headers: Mapping[str, str]) -> bytes | None:
        """The settings of the pages; None until the clients' port is open, for only then it is known."""
        if self._ports.websocket is None:
            return None
        port = getattr(self._ports.websocket.getHost(), "port", None)
        return client_settings(self._settings, port, headers)
