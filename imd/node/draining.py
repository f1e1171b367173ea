"""Draining: the node sends its clients to others, while it runs or because it stops.

The order: load balancers and other nodes are told; `drain_seconds` later the port is closed; then the clients
are told. A node that was drained stays so until it is stopped, or is to serve again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.config.settings import Settings
from imd.entry.gate import Gate
from imd.node.goodbye import Goodbye
from imd.node.ports import Ports
from imd.observe.seldom import Seldom
from imd.ops.membership import Membership
from imd.protocol.errors import ConfigurationError

CLOSE_SECONDS = 2.0
"""the port has so long to close"""
AGAIN_SECONDS = 1.0
"""between two attempts to listen again"""


class Draining:
    """`want` says where to; one coroutine at a time goes there, and looks again when it has arrived."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        membership: Membership,
        gate: Gate,
        ports: Ports,
        listen: Callable[[], Awaitable[None]],
        clients: Callable[[], Collection[Any]],
    ) -> None:
        """`listen` opens the clients' port, or raises ConfigurationError; `clients`: open WebSockets."""
        self._reactor = reactor
        self._drain_seconds = settings.node.drain_seconds
        self._membership = membership
        self._gate = gate
        self._ports = ports
        self._listen = listen
        self._goodbye = Goodbye(reactor, settings.node.stop_seconds, clients)
        self._seldom = Seldom(self.log, reactor.seconds)
        self._wanted = False
        self._is_drained = False
        self._has_begun = False
        self._is_ending = False
        self._moving: Deferred[None] | None = None
        self._pausing: Deferred[None] | None = None

    # from the node

    def begin(self) -> None:
        """The node serves now, and may be drained."""
        self._has_begun = True
        self._move()

    def end(self) -> Deferred[None]:
        """The node stops: drain it for good. Fires when the port is closed. Never fails."""
        self._is_ending = self._has_begun = True
        self._goodbye.stop()
        self._want(True)
        if self._moving is None:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._moving.addBoth(lambda _: done.callback(None))
        return done

    # from the membership

    def want(self, drain: bool) -> None:
        """Drain, or serve again. May be said again and again; nothing is undone once the node stops."""
        if not self._is_ending:
            self._want(drain)

    # from within

    def _want(self, drain: bool) -> None:
        if drain != self._wanted:
            self._wanted = drain
            if self._pausing is not None:
                pausing, self._pausing = self._pausing, None
                pausing.callback(None)
        self._move()

    def _move(self) -> None:
        if self._moving is None and self._has_begun and self._wanted != self._is_drained:
            moving = self._moving = Deferred.fromCoroutine(self._go())
            moving.addCallbacks(self._arrived, self._failed)

    def _arrived(self, _: object) -> None:
        self._moving = None
        self._move()

    def _failed(self, failure: Failure) -> None:
        # The membership says again what is wanted.
        self._moving = None
        self._seldom.failure("draining failed", failure)

    async def _go(self) -> None:
        while self._wanted != self._is_drained:
            await (self._drain() if self._wanted else self._serve())
        self._membership.drains(self._is_drained)

    async def _drain(self) -> None:
        self._membership.drains(True)
        if self._ports.websocket is not None:
            self.log.info("draining: newcomers are served for {seconds:g} s", seconds=self._drain_seconds)
            await self._pause(self._drain_seconds)
            if not self._wanted:
                return
            await self._close()
        self._is_drained = True
        if not self._is_ending:
            self._goodbye.start()

    async def _close(self) -> None:
        self._gate.unguard()
        port, self._ports.websocket = self._ports.websocket, None
        closed = maybeDeferred(port.stopListening)
        try:
            await closed.addTimeout(CLOSE_SECONDS, self._reactor)
        except Exception:
            self.log.failure("the clients' port did not close")

    async def _serve(self) -> None:
        self._goodbye.stop()
        try:
            await self._listen()
        except ConfigurationError as error:
            reason = str(error)
            self._seldom.error("cannot serve again: {reason}", cause=reason, reason=reason)
            await self._pause(AGAIN_SECONDS)
        else:
            self._is_drained = False

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until another state is wanted."""
        if not seconds:
            return
        pausing: Deferred[None] = Deferred()
        self._pausing = pausing
        call = self._reactor.callLater(seconds, pausing.callback, None)
        await pausing
        self._pausing = None
        if call.active():
            call.cancel()
