"""The table of nodes over a node's own connection: deadlines, and answers that come too late."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial import unittest

from imd.protocol.errors import Unavailable
from imd.store.redis.node_table import ANSWER_SECONDS, RedisNodeTable
from tests.gateway.support import row


class NodeTableTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Deferred[Any]] = []
        self.table = RedisNodeTable(self.clock.callLater, self.command)

    def command(self, *words: object) -> Deferred[Any]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def test_answers(self) -> None:
        announced = self.table.announce(row("n1"))
        self.asked[-1].callback([b"ok", b"drain", 12_000, b"n1", row("n1").encode()])
        heard = self.successResultOf(announced)
        self.assertEqual((heard.taken, heard.wish, heard.reading.age_seconds), (False, "drain", 12))
        self.assertEqual(heard.reading.rows, {"n1": row("n1")})
        left = self.table.leave(row("n1"))
        self.asked[-1].callback(1)
        self.assertIsNone(self.successResultOf(left))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failures(self) -> None:
        """Unavailable, whatever comes."""
        announced = self.table.announce(row("n1"))
        self.asked[-1].errback(Failure(Unavailable("redis: down")))
        self.assertEqual(str(self.failureResultOf(announced, Unavailable).value), "redis: down")
        announced = self.table.announce(row("n1"))
        self.asked[-1].callback(b"nonsense")
        self.failureResultOf(announced, Unavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_late(self) -> None:
        """The driver's answer is left to come, and counts nothing then."""
        for late in (b"nonsense", Failure(Unavailable("redis: down"))):
            announced = self.table.announce(row("n1"))
            self.clock.advance(ANSWER_SECONDS)
            self.assertIn("slow", str(self.failureResultOf(announced, Unavailable).value))
            self.assertFalse(self.asked[-1].called)
            self.asked[-1].callback(late)
