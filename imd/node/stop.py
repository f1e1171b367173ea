"""The ordered stop: no new clients, answers to what was sent, goodbye, and the backends last."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.logger import Logger

from imd.node.draining import Draining
from imd.node.goodbye import REASON, say_goodbye
from imd.node.parts import Parts
from imd.node.ports import Ports
from imd.protocol.errors import CLOSE_LEAVING
from imd.wire.listener import ChannelFactory

# A step has this long when no time is left.
LEAST_STEP_SECONDS = 0.05


class Stop:
    """One stop of a node. A step that takes too long is given up, and the next one begins."""

    log = Logger()

    def __init__(self, reactor: Any, seconds: float, parts: Parts, ports: Ports, draining: Draining) -> None:
        """All steps behind the first, which ends the draining, take `seconds` at most."""
        self._reactor = reactor
        self._seconds = seconds
        self._until = 0.0
        self._parts = parts
        self._ports = ports
        self._draining = draining

    async def run(self, factory: ChannelFactory | None) -> None:
        """`factory`: of the clients; None if the start did not get that far. Never fails."""
        await self._draining.end()
        self._until = self._reactor.seconds() + self._seconds
        await self._step("leave the table of nodes", self._parts.membership.leave(), self._until)
        if factory is not None:
            await self._let_clients_go(factory)
            factory.heartbeat.stop()
        parts = self._parts
        parts.gate.stop()
        parts.level.stop()
        parts.upkeep.stop()
        parts.state_upkeep.stop()
        if parts.homecoming is not None:
            parts.homecoming.stop()
        parts.room_sweep.stop()
        parts.presence.stop()
        parts.readiness.stop()
        archived = parts.handed_over.drained()
        await self._step("tell the archive who got visitors' messages", archived, self._half())
        parts.handed_over.stop()
        parts.router.stop()
        await self._step("leave the registry", parts.departures.finished(), self._until)
        parts.signals.stop()
        for name, backend in reversed(parts.backends.named().items()):
            await self._step(f"stop the {name}", backend.stop(), self._until)
        parts.trace_switch.off()
        if self._ports.control is not None:
            closed = maybeDeferred(self._ports.control.stopListening)
            await self._step("close the control socket", closed, self._until)
        if self._ports.http is not None:
            closed = maybeDeferred(self._ports.http.stopListening)
            await self._step("close the http port", closed, self._until)

    async def _let_clients_go(self, factory: ChannelFactory) -> None:
        """Announce the end, answer the messages in flight, close, and drop connections that stay."""
        say_goodbye(list(factory.open))
        await self._step("answer what is under way", self._parts.acceptor.drained(), self._half())
        for protocol in list(factory.open):
            if protocol.handler is not None:
                protocol.handler.close(CLOSE_LEAVING, REASON)
            else:
                protocol.close(CLOSE_LEAVING, REASON)
        await self._step("see the clients gone", factory.emptied(), self._half())
        for protocol in list(factory.open):
            protocol.transport.abortConnection()
        await self._step("drop the clients left", factory.emptied(), self._until)

    def _half(self) -> float:
        """The deadline of a step that may take half of the time that is left."""
        return (self._reactor.seconds() + self._until) / 2

    async def _step(self, what: str, done: Deferred[Any], until: float) -> None:
        done.addTimeout(max(LEAST_STEP_SECONDS, until - self._reactor.seconds()), self._reactor)
        try:
            await done
        except TimeoutError:
            self.log.warn("stopping: no time left to {what}", what=what)
        except Exception:
            self.log.failure("stopping: failed to {what}", what=what)
