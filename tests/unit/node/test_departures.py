"""Channels that leave the registry."""

from __future__ import annotations

from twisted.trial import unittest

from imd.contracts.inbox import Leave
from imd.node.departures import Departures
from imd.protocol.errors import Unavailable
from tests.support.doubles import InboxDouble


class DeparturesTests(unittest.TestCase):
    def setUp(self) -> None:
        self.inbox = InboxDouble()
        self.departures = Departures(self.inbox, lambda: 0.0)

    def test_finished(self) -> None:
        """A stop waits for all removals that were begun."""
        for channel in ("c1", "c2"):
            self.departures.leave(Leave("bob", "phone", channel, "e1", 1, False))
        finished = self.departures.finished()
        self.assertNoResult(finished)
        self.inbox.settle()
        self.successResultOf(finished)

    def test_failures(self) -> None:
        """An inbox that is away is no error: the lease ends by itself. Anything else is logged."""
        for error, logged in ((Unavailable("away"), 0), (RuntimeError("bug"), 1)):
            self.departures.leave(Leave("bob", "phone", "c1", "e1", 1, False))
            finished = self.departures.finished()
            self.inbox.calls.popleft()[1].errback(error)
            self.successResultOf(finished)
            self.assertEqual(len(self.flushLoggedErrors(type(error))), logged)
