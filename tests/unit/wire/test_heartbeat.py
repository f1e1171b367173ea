"""Pings for all connections from one timer."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.wire.heartbeat import Heartbeat


class PeerDouble:
    """A connection whose client answers `answers` pings."""

    def __init__(self, clock: Clock, answers: bool = True) -> None:
        self.clock = clock
        self.answers = answers
        self.pong_due = 0.0
        self.pinged: list[float] = []
        self.overdue: list[float] = []
        self.again = False

    def ping(self) -> None:
        self.pinged.append(self.clock.seconds())

    def pong(self) -> None:
        self.pong_due = 0.0

    def pong_overdue(self) -> bool:
        self.overdue.append(self.clock.seconds())
        return self.again


class HeartbeatTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.heartbeat = self.make(25, 10)

    def make(self, ping_seconds: float, pong_seconds: float) -> Heartbeat:
        heartbeat = Heartbeat(self.clock, ping_seconds, pong_seconds)
        heartbeat.start()
        self.addCleanup(heartbeat.stop)
        return heartbeat

    def run_for(self, seconds: float, *peers: PeerDouble, step: float = 0.5) -> None:
        """Advance the clock. A peer that answers does so one step later."""
        for _ in range(int(seconds / step)):
            self.clock.advance(step)
            for peer in peers:
                if peer.answers and peer.pong_due:
                    peer.pong()

    def test_every_ping_seconds(self) -> None:
        """Each peer is pinged every `ping_seconds`, the first time within that."""
        peer = PeerDouble(self.clock)
        self.heartbeat.add(peer)
        self.run_for(130, peer)
        self.assertLessEqual(peer.pinged[0], 1025)
        gaps = {round(b - a, 3) for a, b in zip(peer.pinged, peer.pinged[1:], strict=False)}
        self.assertEqual(gaps, {25.0})
        self.assertEqual(peer.overdue, [])

    def test_spread(self) -> None:
        """Peers are pinged evenly over the time, not all at once."""
        peers = [PeerDouble(self.clock) for _ in range(100)]
        for peer in peers:
            self.heartbeat.add(peer)
        self.run_for(25, *peers)
        times = [peer.pinged[0] for peer in peers]
        self.assertEqual({times.count(time) for time in times}, {4})

    def test_overdue(self) -> None:
        """A peer that does not answer is overdue once, after `pong_seconds`, and is not pinged again."""
        peer = PeerDouble(self.clock, answers=False)
        self.heartbeat.add(peer)
        self.run_for(100, peer)
        self.assertEqual(len(peer.pinged), 1)
        self.assertEqual([time - peer.pinged[0] for time in peer.overdue], [10.0])

    def test_answered(self) -> None:
        """An answer in time counts for its ping only."""
        peer = PeerDouble(self.clock)
        self.heartbeat.add(peer)
        self.run_for(60, peer)
        pings = len(peer.pinged)
        peer.answers = False
        self.run_for(60, peer)
        self.assertEqual((len(peer.pinged), len(peer.overdue)), (pings + 1, 1))

    def test_more_time(self) -> None:
        """A peer that this node was not reading from gets as much time again."""
        peer = PeerDouble(self.clock, answers=False)
        peer.again = True
        self.heartbeat.add(peer)
        self.run_for(60, peer)
        self.assertEqual(len(peer.pinged), 1)
        self.assertEqual({b - a for a, b in zip(peer.overdue, peer.overdue[1:], strict=False)}, {10.0})
        peer.again = False
        self.run_for(20, peer)
        count = len(peer.overdue)
        self.run_for(50, peer)
        self.assertEqual(len(peer.overdue), count)

    def test_standstill(self) -> None:
        """A process that stood still has not read the pongs yet. They have as much time again, but once."""
        good, bad = PeerDouble(self.clock), PeerDouble(self.clock, answers=False)
        for peer in (good, bad):
            self.heartbeat.add(peer)
        while not (good.pinged and bad.pinged):
            self.clock.advance(0.5)
        self.clock.advance(30)
        began = self.clock.seconds()
        self.assertEqual((good.overdue, bad.overdue), ([], []))
        self.run_for(15, good, bad)
        self.assertEqual((good.overdue, len(bad.overdue)), ([], 1))
        self.assertLessEqual(bad.overdue[0] - began, 11)

    def test_always_late(self) -> None:
        """A node that is too slow for its ticks ends silent clients all the same."""
        peer = PeerDouble(self.clock, answers=False)
        self.heartbeat.add(peer)
        self.run_for(150, peer, step=5)
        self.assertEqual(len(peer.overdue), 1)

    def test_removed(self) -> None:
        """A removed peer is neither pinged nor overdue, whenever it was removed."""
        peer = PeerDouble(self.clock, answers=False)
        slot = self.heartbeat.add(peer)
        while not peer.pinged:
            self.clock.advance(0.5)
        self.heartbeat.remove(peer, slot)
        self.heartbeat.remove(peer, slot)
        self.run_for(100, peer)
        self.assertEqual((len(peer.pinged), peer.overdue), (1, []))

    def test_short_times(self) -> None:
        """Times under a second work as well."""
        self.heartbeat.stop()
        heartbeat = self.make(0.4, 0.2)
        good, bad = PeerDouble(self.clock), PeerDouble(self.clock, answers=False)
        for peer in (good, bad):
            heartbeat.add(peer)
        self.run_for(4, good, bad, step=0.05)
        self.assertGreaterEqual(len(good.pinged), 9)
        self.assertEqual((good.overdue, len(bad.overdue)), ([], 1))

    def test_one_that_fails(self) -> None:
        """A peer whose ping raises is logged, and the others are pinged."""
        broken, peer = PeerDouble(self.clock), PeerDouble(self.clock)
        self.patch(broken, "ping", lambda: 1 / 0)
        for one in (broken, peer):
            self.heartbeat.add(one)
        self.run_for(30, broken, peer)
        self.assertGreaterEqual(len(peer.pinged), 1)
        self.assertGreaterEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop(self) -> None:
        """A stopped heartbeat leaves no timer, and may be stopped again."""
        self.heartbeat.stop()
        self.heartbeat.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
