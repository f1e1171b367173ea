"""Calls are gathered, bounded, and answered in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.protocol.errors import Unavailable
from imd.store.gathering import MAX_BATCH, MAX_WAITING, Gathering


class GatheringTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[tuple[Sequence[Any], Deferred[Any]]] = []
        self.waiting: list[int] = []
        self.gathering = Gathering(
            self.clock, "state", self.work, calls=1, seconds=2.0, waiting=self.waiting.append
        )

    def work(self, items: Sequence[Any]) -> Deferred[Any]:
        self.calls.append((items, Deferred()))
        return self.calls[-1][1]

    def test_gathered(self) -> None:
        """Items that come during a call go with the next, up to a bound; each gets its own result."""
        answers = [self.gathering.add(n) for n in range(MAX_BATCH + 2)]
        self.assertEqual([len(items) for items, _ in self.calls], [1])
        self.assertEqual(self.waiting[-1], MAX_BATCH + 1)
        self.calls[0][1].callback(["zero"])
        self.assertEqual(self.successResultOf(answers[0]), "zero")
        self.assertEqual(list(self.calls[1][0]), list(range(1, MAX_BATCH + 1)))
        self.calls[1][1].callback([str(n) for n in self.calls[1][0]])
        self.assertEqual(self.successResultOf(answers[MAX_BATCH]), str(MAX_BATCH))
        self.assertEqual((list(self.calls[2][0]), self.waiting[-1]), ([MAX_BATCH + 1], 0))

    def test_failing(self) -> None:
        """A call that fails fails for all of its items; the next is made."""
        answers = [self.gathering.add(n) for n in range(3)]
        self.calls[0][1].errback(Unavailable("away"))
        self.failureResultOf(answers[0], Unavailable)
        self.calls[1][1].errback(Unavailable("away"))
        for answer in answers[1:]:
            self.failureResultOf(answer, Unavailable)

    def test_too_slow(self) -> None:
        """Each item is answered in time; one that waited for too long is not done."""
        first, second = self.gathering.add(1), self.gathering.add(2)
        self.clock.advance(2)
        for answer in (first, second):
            self.failureResultOf(answer, Unavailable)
        third = self.gathering.add(3)
        self.calls[0][1].callback([1])
        self.assertEqual([list(items) for items, _ in self.calls], [[1], [3]])
        self.calls[1][1].callback([3])
        self.assertEqual(self.successResultOf(third), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_many(self) -> None:
        answers = [self.gathering.add(n) for n in range(MAX_WAITING + 1)]
        self.failureResultOf(self.gathering.add(0), Unavailable)
        self.assertNoResult(answers[-1])
        self.clock.advance(2)
        for answer in answers:
            self.failureResultOf(answer, Unavailable)
