"""Waits before a try is repeated."""

from __future__ import annotations

from twisted.trial import unittest

from imd.store.backoff import backoff


class BackoffTests(unittest.TestCase):
    def test_grows_up_to_a_bound(self) -> None:
        """Each wait is between half of the nominal one and all of it, which grows up to the bound."""
        seconds = backoff(0.25, 15.0, 1.7)
        for failures in (0, 1, 5, 20, 10_000):
            nominal = min(15.0, 0.25 * 1.7 ** min(failures, 100))
            waits = [seconds(failures) for _ in range(200)]
            self.assertTrue(all(nominal / 2 <= wait <= nominal for wait in waits), failures)
            self.assertGreater(len(set(waits)), 100)
