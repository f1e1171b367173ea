"""The token bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.entry.ratelimit import TokenBucket


class TokenBucketTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def make(self, per_second: float, burst: float) -> TokenBucket:
        return TokenBucket(per_second, burst, self.clock.seconds)

    def test_burst_then_rate(self) -> None:
        """A burst passes, then the rate. The result says by how much a call is too early."""
        bucket = self.make(10, 3)
        self.assertEqual([bucket.take(1) for _ in range(3)], [0.0] * 3)
        self.assertAlmostEqual(bucket.take(1), 0.1)
        self.clock.advance(0.05)
        self.assertAlmostEqual(bucket.take(1), 0.05)
        self.clock.advance(0.0501)
        self.assertEqual(bucket.take(1), 0.0)

    def test_full(self) -> None:
        """The bucket never holds more than the burst, after any pause."""
        bucket = self.make(10, 3)
        self.clock.advance(1000)
        self.assertEqual([bucket.take(1) == 0.0 for _ in range(4)], [True, True, True, False])

    def test_no_limit(self) -> None:
        """A rate of 0 means no limit."""
        bucket = self.make(0, 1)
        self.assertEqual({bucket.take(50) for _ in range(1000)}, {0.0})

    def test_cost_above_the_burst(self) -> None:
        """A cost above the burst passes with a full bucket, and later costs wait no longer for it."""
        bucket = self.make(10, 5)
        self.assertEqual(bucket.take(50), 0.0)
        self.assertAlmostEqual(bucket.take(1), 0.1)
        self.assertAlmostEqual(bucket.take(50), 0.5)
        self.clock.advance(0.11)
        self.assertEqual(bucket.take(1), 0.0)

    def test_refused_costs_nothing(self) -> None:
        """A call that is too early spends nothing."""
        bucket = self.make(10, 1)
        bucket.take(1)
        for _ in range(100):
            bucket.take(1)
        self.clock.advance(0.11)
        self.assertEqual(bucket.take(1), 0.0)

    @given(
        st.integers(1, 100), st.integers(1, 50), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60)))
    )
    def test_never_more(self, per_second: int, burst: int, takes: list[tuple[int, int]]) -> None:
        """No period has more spending than the burst and the rate allow, if no cost exceeds the burst.

        A call after the returned wait passes.
        """
        clock = Clock()
        bucket = TokenBucket(per_second, burst, clock.seconds)
        spent = 0.0
        for hundredths, cost in takes:
            clock.advance(hundredths / 100)
            early = bucket.take(cost)
            if early:
                clock.advance(early + 1e-6)
                self.assertEqual(bucket.take(cost), 0.0)
            spent += min(cost, burst)
        self.assertLessEqual(spent, burst + clock.seconds() * per_second + 1e-3)
