"""Batches that are not known to be archived."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.store import unwritten
from imd.store.batch_numbers import BLOCK, publisher_name
from imd.store.rabbit.archive_queue import first_id
from imd.store.unwritten import FORGET_FAILED_SECONDS, Unwritten


def id_of(ms: int) -> str:
    return f"{ms:012x}" + "0" * 16


class UnwrittenTests(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.unwritten = Unwritten(self.clock.seconds)

    def test_oldest(self) -> None:
        """The oldest batch counts until it is noted, in whatever order others are."""
        self.assertEqual((self.unwritten.oldest_ms(), list(self.unwritten.blocks())), (None, []))
        for number in (1, 2, 3):
            self.unwritten.published(number, id_of(100 * number))
        self.unwritten.noted({0: 1 << 2})
        self.assertEqual(self.unwritten.oldest_ms(), 100)
        self.unwritten.noted({0: 1 << 1 | 1 << 2})
        self.assertEqual(self.unwritten.oldest_ms(), 300)
        self.unwritten.noted({0: 1 << 3})
        self.assertEqual(self.unwritten.oldest_ms(), None)

    def test_blocks(self) -> None:
        """Only blocks of the oldest batches are asked for."""
        self.unwritten.published(5 * BLOCK + 1, id_of(1))
        self.unwritten.published(6 * BLOCK, id_of(2))
        self.assertEqual(list(self.unwritten.blocks()), [5, 6])
        self.unwritten.published(500 * BLOCK, id_of(3))
        self.assertEqual(len(self.unwritten.blocks()), unwritten.MAX_BLOCKS + 1)

    def test_failed(self) -> None:
        """A batch that was not confirmed may be in the queue: it counts for a while."""
        self.unwritten.published(1, id_of(100))
        self.unwritten.failed(1)
        self.unwritten.noted({})
        self.assertEqual(self.unwritten.oldest_ms(), 100)
        self.clock.advance(FORGET_FAILED_SECONDS + 1)
        self.unwritten.noted({})
        self.assertEqual(self.unwritten.oldest_ms(), None)
        self.assertEqual(self.unwritten._failed, {})

    def test_bound(self) -> None:
        """Past a bound batches are counted together, and are gone when all of them are noted."""
        self.patch(unwritten, "MAX_SPANS", 2)
        for number in range(1, 6):
            self.unwritten.published(number, id_of(100 * number))
        self.assertEqual(len(self.unwritten._spans), 2)
        self.unwritten.noted({0: 0b011110})
        self.assertEqual(self.unwritten.oldest_ms(), 200)
        self.unwritten.noted({0: 0b111110})
        self.assertEqual(self.unwritten.oldest_ms(), None)

    def test_first_level(self) -> None:
        """While nodes of 0.1 write, too, nothing is noted: nothing is waited for, now and later."""
        self.unwritten.published(1, id_of(100))
        self.unwritten.set_level(1)
        self.unwritten.published(2, id_of(200))
        self.unwritten.failed(2)
        self.unwritten.set_level(2)
        self.assertEqual(self.unwritten.oldest_ms(), None)
        self.unwritten.published(3, id_of(300))
        self.assertEqual(self.unwritten.oldest_ms(), 300)

    def test_first_id(self) -> None:
        """The id of a message and of an event is found without decoding; of anything else there is none."""
        self.assertEqual(first_id(b'{"id":"0199","clientMsgId":"c"}'), "0199")
        self.assertEqual(first_id(b'{"kind":"edit","id":"0199","of":"1"}'), "0199")
        self.assertEqual(first_id(b"[]"), "")
        self.unwritten.published(1, "")
        self.assertEqual(self.unwritten.oldest_ms(), 0)

    def test_publisher_name(self) -> None:
        self.assertEqual(publisher_name("node:1.abcd"), "node_1.abcd")
