"""Twisted's private part is where it was."""

from __future__ import annotations

from typing import Any

from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial import unittest

from imd.store.twisted_internals import QuietClientService, missing_parts


class Refusing:
    """An endpoint at which nobody listens."""

    tries = 0

    def connect(self, factory: object) -> Deferred[Any]:
        self.tries += 1
        return fail(ConnectionRefusedError())


class TwistedInternalsTests(unittest.TestCase):
    def test_nothing_is_missing(self) -> None:
        """The installed Twisted has all parts; a failure names those that a new version has lost."""
        self.assertEqual(missing_parts(), [])

    def lines_of(self, kind: type[ClientService]) -> list[LogEvent]:
        """The events that a service logs while it tries three times."""
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        clock, endpoint = Clock(), Refusing()
        service = kind(endpoint, Factory(), retryPolicy=lambda _: 1.0, clock=clock)  # type: ignore[arg-type]
        service.startService()
        clock.pump([1.0, 1.0])
        service.stopService()
        self.assertEqual(endpoint.tries, 3)
        return [event for event in events if event.get("log_namespace", "").startswith("twisted.application")]

    def test_quiet(self) -> None:
        """A ClientService logs each try to connect; the quiet one does not."""
        self.assertGreaterEqual(len(self.lines_of(ClientService)), 3)
        self.assertEqual(self.lines_of(QuietClientService), [])
