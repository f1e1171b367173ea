"""Up to which id everything is archived."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.config.settings import Settings
from imd.gateway.nodes import Row
from imd.gateway.own_row import own_row
from imd.ops.complete import FORGET_SECONDS, HOLD_SECONDS, MARGIN_MS, NOTHING, Completeness
from imd.protocol.ids import ServerClock

START = 1_800_000_000.0


class CompletenessTests(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.time = Clock()
        self.oldest: int | None = None
        self.unanswered: int | None = None
        self.strangers: set[str] = set()
        self.rows: dict[str, Row] = {}
        clock = ServerClock(lambda: START + self.time.seconds(), self.time.seconds)
        self.event: int | None = None
        self.completeness = Completeness(
            clock, lambda: self.rows, self, lambda: self.unanswered, lambda: succeed(self.event)
        )

    # Progress

    def oldest_ms(self) -> int | None:
        return self.oldest

    def waiting(self) -> set[str]:
        return self.strangers

    def name_of(self, bus: str) -> str:
        return bus.replace(":", "_")

    # words

    def now_ms(self) -> int:
        return int((START + self.time.seconds()) * 1000)

    def announce(self, **words: int) -> None:
        row = own_row(Settings(), "", 0)
        for bus, word in words.items():
            self.rows[bus] = msgspec.structs.replace(row, name=bus, bus=f"{bus}:1", archived=word)

    def complete(self) -> str:
        return self.successResultOf(self.completeness.complete())

    def complete_ms(self) -> int:
        found = self.complete()
        self.assertEqual((len(found), found[12:]), (28, "0" * 16))
        return int(found[:12], 16)

    # tests

    def test_word(self) -> None:
        """A node vouches for everything, or up to its oldest message that is not answered or archived."""
        self.assertEqual(self.completeness.word(), self.now_ms())
        for self.oldest, self.unanswered in ((5, None), (None, 5), (7, 5), (5, 7)):
            self.assertEqual(self.completeness.word(), 5)

    def test_lowest_word_counts(self) -> None:
        """Less a margin; a node that does not say, as one of an older version, keeps everything open."""
        self.assertEqual(self.complete(), NOTHING)
        self.announce(a=1_000_000, b=900_000)
        self.assertEqual(self.complete_ms(), 900_000 - MARGIN_MS)
        self.announce(c=0)
        self.assertEqual(self.complete(), NOTHING)

    def test_event_in_an_outbox(self) -> None:
        """A room's event that waits in MongoDB counts, whoever made it."""
        self.announce(a=1_000_000)
        self.event = 900_000
        self.assertEqual(self.complete_ms(), 900_000)
        self.event = 999_999
        self.assertEqual(self.complete_ms(), 1_000_000 - MARGIN_MS)

    def test_node_that_is_gone(self) -> None:
        """Its word counts for a while, and longer if batches of it are not archived: by the others' words."""
        self.announce(a=1_000_000, b=900_000)
        self.complete()
        del self.rows["b"]
        self.assertEqual(self.complete_ms(), 900_000 - MARGIN_MS)
        self.strangers = {"b_1"}
        self.assertEqual(self.completeness.word(), 900_000)
        self.time.advance(HOLD_SECONDS + 1)
        self.assertEqual(self.complete_ms(), 1_000_000 - MARGIN_MS)
        self.assertEqual(self.completeness.word(), 900_000)
        self.strangers = set()
        self.assertEqual(self.completeness.word(), self.now_ms())
        self.time.advance(FORGET_SECONDS)
        self.completeness.word()
        self.assertEqual(list(self.completeness._words), ["a_1"])

    def test_unknown_node(self) -> None:
        """Batches of a node that this one has never seen keep everything open; those of a live one do not."""
        self.announce(a=1_000_000)
        self.strangers = {"a_1"}
        self.assertEqual(self.completeness.word(), self.now_ms())
        self.strangers = {"z_1"}
        self.assertEqual(self.completeness.word(), 0)
