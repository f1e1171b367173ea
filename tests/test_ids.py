"""Ids and the clock that they are made by."""

from __future__ import annotations

from twisted.trial import unittest

from imd.ids import MessageIds, ServerClock, new_channel_id


class Times:
    """A wall clock and a monotonic one, in seconds."""

    def __init__(self) -> None:
        self.wall = 1_764_000_000.0
        self.monotonic = 100.0

    def clock(self) -> ServerClock:
        return ServerClock(lambda: self.wall, lambda: self.monotonic)


class ServerClockTests(unittest.TestCase):
    def setUp(self) -> None:
        self.times = Times()
        self.clock = self.times.clock()

    def test_uncorrected(self) -> None:
        """It begins with this machine's time, and runs on."""
        self.assertEqual(self.clock.now_ms(), 1_764_000_000_000)
        self.times.monotonic += 1.5
        self.assertEqual(self.clock.now_ms(), 1_764_000_001_500)

    def test_step_of_the_wall_clock(self) -> None:
        """A step of this machine's clock does not move it."""
        self.times.wall -= 3600
        self.assertEqual(self.clock.now_ms(), 1_764_000_000_000)

    def test_corrected(self) -> None:
        """A server's answer counts for the middle of the time that it took."""
        asked_at = self.clock.monotonic()
        self.times.monotonic += 0.5
        self.clock.correct(2_000_000_000_000, asked_at)
        self.assertEqual(self.clock.now_ms(), 2_000_000_000_250)

    def test_shortest_round_trip_wins(self) -> None:
        """A slow answer does not spoil what a quick one told, until that is long ago."""
        self.clock.correct(2_000_000_000_000, self.times.monotonic - 0.01)
        before = self.clock.now_ms()
        self.clock.correct(2_000_000_500_000, self.times.monotonic - 0.02)
        self.assertEqual(self.clock.now_ms(), before)
        for _ in range(100):
            self.clock.correct(2_000_000_500_000, self.times.monotonic - 0.02)
        self.assertGreater(self.clock.now_ms(), before)


class MessageIdsTests(unittest.TestCase):
    def setUp(self) -> None:
        self.times = Times()
        self.ids = MessageIds(self.times.clock())

    def test_shape(self) -> None:
        """28 hexadecimal digits, the first twelve of them the time that is returned too."""
        message_id, made_at = self.ids.next()
        self.assertRegex(message_id, r"\A[0-9a-f]{28}\Z")
        self.assertEqual(int(message_id[:12], 16), made_at)
        self.assertEqual(made_at, 1_764_000_000_000)

    def test_rising(self) -> None:
        """Ids of one node rise strictly, within a millisecond and when the clock goes back."""
        made = []
        for step in (0.0, 0.0, 0.001, 0.0, -5.0, 0.0, 0.001, 10.0):
            self.times.monotonic += step
            made += [self.ids.next() for _ in range(100)]
        ids = [message_id for message_id, _ in made]
        self.assertEqual(ids, sorted(set(ids)))
        times = [made_at for _, made_at in made]
        self.assertEqual(times, sorted(times))

    def test_two_nodes(self) -> None:
        """Ids that two nodes make in the same millisecond differ."""
        other = MessageIds(self.times.clock())
        made = [ids.next()[0] for ids in (self.ids, other) for _ in range(9)]
        self.assertEqual(len(set(made)), 18)


class ChannelIdTests(unittest.TestCase):
    def test_random(self) -> None:
        """No two alike."""
        self.assertEqual(len({new_channel_id() for _ in range(1000)}), 1000)
