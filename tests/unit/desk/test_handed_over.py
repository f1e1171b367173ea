"""Telling the archive who got visitors' messages: in pieces, again and again, and never more than so many."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.contracts.archive import ArchiveRecord, Record
from imd.desk import handed_over
from imd.desk.handed_over import DROPPED, WAITING, HandedOver
from imd.protocol.errors import Unavailable
from tests.support.doubles import QueueDouble


def records(count: int, size: int = 100) -> list[ArchiveRecord]:
    return [ArchiveRecord(b"%0*d" % (size, n), "anna") for n in range(count)]


class HandedOverTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = QueueDouble()
        self.told = HandedOver(self.queue, self.clock.callLater)
        self.addCleanup(self._end)

    def _end(self) -> None:
        self.told.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.flushLoggedErrors()

    def sizes(self) -> list[int]:
        return [len(batch) for batch, _ in self.queue.published]

    def test_pieces(self) -> None:
        """One at a time, each of so many messages or bytes."""
        sent = [*records(1500), *records(5, size=400_000)]
        self.told.add(sent)
        self.assertEqual((self.sizes(), WAITING._value.get()), ([1000], 1505))
        done = self.told.drained()
        for which in range(3):
            self.queue.confirm(which)
        self.assertEqual((self.sizes(), done.called), ([1000, 503, 2], True))
        self.assertEqual([record for batch, _ in self.queue.published for record in batch], sent)
        self.assertEqual(WAITING._value.get(), 0)

    def test_tried_again(self) -> None:
        """A piece that failed comes again, unchanged, after pauses that grow; then the next."""
        sent = records(1001)
        self.told.add(sent)
        for which, pause in enumerate((1, 2, 4, 8, 16, 30, 30)):
            self.queue.fail(which)
            self.clock.advance(pause - 0.01)
            self.assertEqual(len(self.queue.published), which + 1)
            self.clock.advance(0.01)
            self.assertEqual(self.queue.published[-1][0], sent[:1000])
        self.queue.confirm(7)
        self.assertEqual(self.queue.published[-1][0], sent[1000:])
        self.queue.fail(8)
        self.clock.advance(1)
        self.queue.confirm(9)
        self.assertTrue(self.told.drained().called)

    def test_more_meanwhile(self) -> None:
        """Records that come while a piece is in flight, or is to be tried again, wait for their turn."""
        first, second = records(1), records(1, size=50)
        self.told.add(first)
        self.told.add(second)
        self.queue.fail(0)
        self.told.add(first)
        self.assertEqual(self.sizes(), [1])
        self.clock.advance(1)
        self.queue.confirm(1)
        self.assertEqual(self.queue.published[-1][0], second + first)
        self.queue.confirm(2)

    def test_queue_that_answers_at_once(self) -> None:
        """Whether it takes them (as the embedded one does) or is down."""
        down = True

        def publish(batch: Sequence[Record]) -> Deferred[None]:
            self.queue.published.append((list(batch), succeed(None)))
            if down:
                answer: Deferred[None] = Deferred()
                answer.errback(Unavailable("down"))
                return answer
            return succeed(None)

        self.patch(self.queue, "publish", publish)
        self.told.add(records(2500))
        self.assertEqual(self.sizes(), [1000])
        down = False
        self.clock.advance(1)
        self.assertEqual(self.sizes(), [1000, 1000, 1000, 500])
        self.told.add(records(2500))
        self.assertEqual(self.sizes()[4:], [1000, 1000, 500])

    def test_bounds(self) -> None:
        """Past so many messages, or bytes, the newest are not told of; that is counted."""
        before = DROPPED._value.get()
        self.patch(handed_over, "MAX_MESSAGES", 10)
        self.told.add(records(1))
        self.told.add(records(12))
        self.assertEqual(DROPPED._value.get() - before, 2)
        self.patch(handed_over, "MAX_MESSAGES", 1000)
        self.patch(handed_over, "MAX_BYTES", 1500)
        self.told.add(records(7))
        self.assertEqual(DROPPED._value.get() - before, 4)
        self.queue.confirm(0)
        self.assertEqual(self.sizes(), [1, 15])
        self.queue.confirm(1)
        self.told.add(records(15))
        self.assertEqual((self.sizes(), DROPPED._value.get() - before), ([1, 15, 15], 4))

    def test_what_waiting_would_not_mend(self) -> None:
        """A piece that cannot be published at all does not hold up the next."""
        self.told.add(records(1001))
        self.queue.published[0][1].errback(ValueError("no such thing"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.sizes(), [1000, 1])
        self.queue.confirm(1)
        self.assertTrue(self.told.drained().called)

    def test_stop(self) -> None:
        """Nothing is published any more, whatever is still answered."""
        self.told.add(records(1001))
        self.told.stop()
        self.queue.fail(0)
        self.told.add(records(1))
        self.assertEqual((self.sizes(), self.told.drained().called), ([1000], False))
