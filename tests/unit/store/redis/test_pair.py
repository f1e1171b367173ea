"""The two connections to Redis, and the run behind them."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial import unittest

from imd.protocol.ids import ServerClock
from imd.store.redis.pair import RedisPair


class RunTests(unittest.SynchronousTestCase):
    def test_run_after_run(self) -> None:
        """While Redis evicts `imd:run`, each script finds another run: a line a minute says so."""
        clock = Clock()
        nodes_clock = ServerClock(clock.seconds, clock.seconds)
        pair = RedisPair(clock, "redis://127.0.0.1/0", nodes_clock, b"", lossless=False, timeout_seconds=5)
        with capturedLogs() as lines:
            for run in range(1, 302):
                pair.answered(run, wrote=False)
                clock.advance(0.5)
        self.assertEqual([line["left_out"] for line in lines], [0, 119, 119])
        self.assertEqual(pair.run, 301)
