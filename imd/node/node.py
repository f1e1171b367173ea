"""A node and its life: one start, one stop, and why it is not ready in between."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.config.settings import Settings
from imd.node.backends import Backends
from imd.node.draining import Draining
from imd.node.parts import Parts
from imd.node.ports import Ports
from imd.node.start import Start
from imd.node.stop import Stop
from imd.protocol.errors import ConfigurationError
from imd.protocol.ids import ServerClock


class Node:
    """One imd node. Its backends may come and go; it stays."""

    log = Logger()

    def __init__(self, reactor: Any, settings: Settings, clock: ServerClock, backends: Backends) -> None:
        self._reactor = reactor
        self._settings = settings
        self._ports = Ports(reactor, settings.websocket.trusted_proxies)
        self.parts = Parts(
            reactor,
            settings,
            clock,
            backends,
            self._own_problems,
            lambda: self._ports.websocket is not None,
            lambda drain: self._draining.want(drain),
        )
        self._start = Start(reactor, settings, self.parts, self._ports, self.problems, self._start_failed)
        self._draining = Draining(
            reactor,
            settings,
            self.parts.membership,
            self.parts.gate,
            self._ports,
            self._start.listen,
            lambda: self._start.factory.open if self._start.factory is not None else (),
        )
        self._starting: Deferred[None] | None = None
        self._failed = False

    # from its service

    def start(self) -> None:
        """Start, for as long as the backends take. A mistake in the configuration ends the process."""
        self._starting = Deferred.fromCoroutine(self._start.run())
        self._starting.addCallback(lambda _: self._draining.begin())
        self._starting.addErrback(self._start_failed)

    def stop(self) -> Deferred[None]:
        """Fires when all is let go of, `drain_seconds` and `stop_seconds` later at most."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
        seconds = self._settings.node.stop_seconds
        stop = Stop(self._reactor, seconds, self.parts, self._ports, self._draining)
        return Deferred.fromCoroutine(stop.run(self._start.factory))

    def reload(self) -> None:
        """Read the certificates of `ssl:` endpoints anew, for connections to come."""
        self._ports.reload()

    # from the operator's port

    def problems(self) -> dict[str, str]:
        """The reasons why this node is not ready, by name; empty when it is."""
        return self.parts.readiness.problems()

    def _own_problems(self) -> dict[str, str]:
        """The problems that the node and its backends know of without a probe."""
        problems = {}
        for name, backend in self.parts.backends.named().items():
            problem = backend.problem()
            if problem is not None:
                problems[name] = problem
        if self._ports.websocket is None:
            problems["listener"] = "stopping" if self._starting is None else "not listening yet"
        level = self.parts.level.problem()
        if level is not None:
            problems["level"] = level
        return problems | self.parts.membership.problems()

    # from its start

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
