"""A node's announcements: how often, what they tell it, and what they leave as it is."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.gateway.nodes import Row
from imd.gateway.table import BEAT_SECONDS, LEASE_SECONDS, Announced, Reading
from imd.ops.announcing import FAILURES, Announcer
from imd.protocol.errors import Unavailable
from tests.gateway.support import row


class Table:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.answers: list[Deferred[Announced]] = []
        self.left: list[Row] = []

    def announce(self, row: Row) -> Deferred[Announced]:
        self.rows.append(row)
        self.answers.append(Deferred())
        return self.answers[-1]

    def leave(self, row: Row) -> Deferred[None]:
        self.left.append(row)
        return succeed(None)


class AnnouncerTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.table = Table()
        self.row = row("n1")
        self.announcer = Announcer(self.clock, self.table, lambda: self.row)
        self.named = self.announcer.start()

    def answer(self, *rows: Row, taken: bool = False, age: float = LEASE_SECONDS) -> None:
        reading = Reading(age, {one.name: one for one in rows})
        self.table.answers[-1].callback(Announced(taken, "", reading))

    def beat(self) -> None:
        self.clock.advance(BEAT_SECONDS)

    def test_each_second(self) -> None:
        """At once and each second, never two at a time."""
        self.assertEqual(len(self.table.rows), 1)
        self.beat()
        self.assertEqual(len(self.table.rows), 1, "the first has no answer yet")
        self.answer(self.row)
        self.assertEqual(len(self.table.rows), 2, "the one that was due follows")
        self.answer(self.row)
        self.beat()
        self.assertEqual(len(self.table.rows), 3)

    def test_change(self) -> None:
        """A change is announced behind the announcement in flight."""
        self.row = msgspec.structs.replace(self.row, draining=True)
        self.announcer.announce()
        self.assertFalse(self.table.rows[-1].draining)
        self.answer(self.row)
        self.assertTrue(self.table.rows[-1].draining)

    def test_homes(self) -> None:
        """Slots follow a table that stands; a new or an empty one, and a failure, leave them."""
        self.answer(self.row, age=1)
        self.assertEqual(self.announcer.slots.names, frozenset())
        self.beat()
        self.answer(self.row, row("n2"), row("n3", draining=True))
        self.assertEqual(self.announcer.slots.names, {"n1", "n2"})
        slots = self.announcer.slots
        for age, rows in ((1.0, (self.row,)), (LEASE_SECONDS, ())):
            self.beat()
            self.answer(*rows, age=age)
            self.assertIs(self.announcer.slots, slots)
        self.beat()
        before = FAILURES._value.get()
        self.table.answers[-1].errback(Unavailable("redis: down"))
        self.assertEqual(FAILURES._value.get(), before + 1)
        self.assertIs(self.announcer.slots, slots)
        self.assertEqual(set(self.announcer.last.rows), {"n1", "n2", "n3"})
        self.beat()
        self.answer(self.row, row("n2", connections=9))
        self.assertIs(self.announcer.slots, slots, "the same members: nothing is computed anew")

    def test_name(self) -> None:
        """`start` fires when the name is this node's; it may be lost later, and come back."""
        self.answer(row("n1", bus="n1.2"), taken=True)
        self.assertTrue(self.announcer.taken)
        self.assertNoResult(self.named)
        self.beat()
        self.table.answers[-1].errback(Unavailable("redis: down"))
        self.assertNoResult(self.named)
        self.beat()
        self.answer(self.row)
        self.assertFalse(self.announcer.taken)
        self.successResultOf(self.named)
        self.beat()
        self.answer(row("n1", bus="n1.2"), taken=True)
        self.assertTrue(self.announcer.taken)

    def test_leave(self) -> None:
        """Nothing is announced behind it, whatever was due."""
        self.announcer.announce()
        self.successResultOf(self.announcer.leave())
        self.assertEqual(self.table.left, [self.row])
        self.answer(self.row)
        self.beat()
        self.assertEqual(len(self.table.rows), 1)
        self.successResultOf(self.announcer.leave())
        self.assertEqual(len(self.table.left), 1)
