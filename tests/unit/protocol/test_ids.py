"""Ids, and the clock that message ids are made by."""

from __future__ import annotations

from twisted.trial import unittest

from imd.protocol import ids as ids_module
from imd.protocol.events import Edit, React, Recall, RoomEvent, RoomMessage
from imd.protocol.ids import (
    BEGINNING_BYTES,
    MessageIds,
    ServerClock,
    WallClock,
    id_in,
    is_message_id,
    new_channel_id,
)
from imd.protocol.message import IMessage, encode_message


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
        """It starts with this machine's time."""
        self.assertEqual(self.clock.now_ms(), 1_764_000_000_000)
        self.times.monotonic += 1.5
        self.assertEqual(self.clock.now_ms(), 1_764_000_001_500)

    def test_step_of_the_wall_clock(self) -> None:
        """A step of this machine's clock does not move it."""
        self.times.wall -= 3600
        self.assertEqual(self.clock.now_ms(), 1_764_000_000_000)

    def test_corrected(self) -> None:
        """A server's answer is taken as the time in the middle of the round trip."""
        asked_at = self.clock.monotonic()
        self.times.monotonic += 0.5
        self.clock.correct(2_000_000_000_000, asked_at)
        self.assertEqual(self.clock.now_ms(), 2_000_000_000_250)

    def test_slow_answers_after_a_quick_one(self) -> None:
        """A slow answer bounds the time less closely than a quick one before it: it changes nothing."""
        self.clock.correct(2_000_000_000_000, self.times.monotonic - 0.01)
        before = self.clock.now_ms()
        for _ in range(100):
            self.clock.correct(2_000_000_000_000, self.times.monotonic - 0.2)
        self.assertEqual(self.clock.now_ms(), before)

    def test_one_way_slow(self) -> None:
        """Two answers of which one was slow on its way there, one on its way back, tell the time together."""
        self.times.monotonic += 1
        self.clock.correct(2_000_000_001_000, self.times.monotonic - 0.8)
        self.assertEqual(self.clock.now_ms(), 2_000_000_001_400)
        self.times.monotonic += 0.8
        self.clock.correct(2_000_000_001_000, self.times.monotonic - 0.8)
        self.assertEqual(self.clock.now_ms(), 2_000_000_001_800)

    def test_drift(self) -> None:
        """A server's clock that runs faster than the machine's is followed, however quick an answer was."""
        server = 2_000_000_000.0
        for _ in range(1000):
            self.clock.correct(int(server * 1000), self.times.monotonic - 0.004)
            self.times.monotonic += 1
            server += 1.0001
            self.assertLess(abs(self.clock.now_ms() - server * 1000), 7)

    def test_server_whose_clock_is_set(self) -> None:
        """A difference that no round trip explains is used at once, in either direction."""
        self.clock.correct(2_000_000_000_000, self.times.monotonic - 0.01)
        for step in (-3_600_000, 3_600_000):
            before = self.clock.now_ms()
            self.clock.correct(before + step, self.times.monotonic - 0.5)
            self.assertLess(abs(self.clock.now_ms() - before - step), 300)

    def test_latest(self) -> None:
        """The time that the server's clock showed before it was set back counts until it has caught up. This
        machine's own time, from before the first answer, does not count.
        """
        self.clock.correct(1_700_000_000_000, self.times.monotonic)
        self.assertEqual(self.clock.latest_ms(), 1_700_000_000_000)
        self.times.monotonic += 5
        for server_ms in (1_699_996_400_000, 1_699_998_000_000, 1_699_990_000_000):
            self.clock.correct(server_ms, self.times.monotonic)
            self.assertEqual(self.clock.now_ms(), server_ms)
            self.assertEqual(self.clock.latest_ms(), 1_700_000_005_000)
        self.times.monotonic += 20_000
        self.assertEqual(self.clock.latest_ms(), self.clock.now_ms())

    def test_by_how_much_the_wall_clock_was_set(self) -> None:
        """Only a step of the clock is measured, not the time that passes."""
        self.times.monotonic += 1000
        self.times.wall += 1000 - 3600
        self.assertEqual(self.clock.set_by_ms(), -3_600_000)

    def test_wall_clock(self) -> None:
        """A WallClock follows this machine's time, also after it was set."""
        clock = WallClock(lambda: self.times.wall, lambda: self.times.monotonic)
        self.times.wall += 3600
        self.assertEqual(clock.now_ms(), 1_764_003_600_000)
        clock.correct(1, self.times.monotonic)
        self.assertEqual(clock.now_ms(), 1_764_003_600_000)


class MessageIdsTests(unittest.TestCase):
    def setUp(self) -> None:
        self.times = Times()
        self.ids = MessageIds(self.times.clock())

    def test_shape(self) -> None:
        """An id has 28 hexadecimal digits. The first twelve are the time that is returned, too."""
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
        # The time is the clock's, even if that went back.
        self.assertEqual(made[0][1] - made[400][1], 5000 - 1)
        self.assertEqual(made[-1][1] - made[0][1], 5002)

    def test_on_after_the_newest(self) -> None:
        """Ids rise above a stored one of a clock that was ahead; the time returned is right."""
        ahead = f"{1_764_003_600_000:012x}0000fe" + "f" * 10
        self.ids.continue_after(ahead)
        made = [self.ids.next() for _ in range(5)]
        self.assertEqual([made_at for _, made_at in made], [1_764_000_000_000] * 5)
        ids = [message_id for message_id, _ in made]
        self.assertEqual(ids, sorted(set(ids)))
        self.assertGreater(ids[0], ahead)
        for other in ("", "m-1", ahead.upper(), "0" * 28, ids[2]):
            self.ids.continue_after(other)
        self.assertGreater(self.ids.next()[0], ids[-1])

    def test_more_than_the_counter_holds(self) -> None:
        """While the clock stays behind, the counter overflows into the milliseconds."""
        self.patch(ids_module, "_MAX_COUNT", 300)
        self.ids.continue_after(f"{1_764_003_600_000:012x}000001" + "0" * 10)
        ids = [self.ids.next()[0] for _ in range(1000)]
        self.assertEqual(ids, sorted(set(ids)))
        self.assertEqual({len(message_id) for message_id in ids}, {28})

    def test_latest(self) -> None:
        """It is the clock's time, or the last id's where that is later."""
        self.assertEqual(self.ids.latest_ms(), 1_764_000_000_000)
        self.times.monotonic += 1
        self.assertEqual(self.ids.latest_ms(), 1_764_000_001_000)
        self.ids.continue_after(f"{1_764_003_600_000:012x}000001" + "0" * 10)
        self.assertEqual(self.ids.latest_ms(), 1_764_003_600_000)
        self.times.monotonic += 7200
        self.assertEqual(self.ids.latest_ms(), 1_764_007_201_000)

    def test_after_given_ones(self) -> None:
        """Ids go on from one that a device was given, within the same millisecond, too."""
        for given in ("0001f5" + "f" * 10, "0000ff" + "f" * 10):
            for ms in (1_764_000_000_000, 1_764_000_000_007):
                given = f"{ms:012x}{given[-16:]}"
                self.ids.continue_after_given(given)
                self.assertGreater(self.ids.next()[0], given)

    def test_given_ones_that_are_far_ahead(self) -> None:
        """An id of a node whose clock is wrong pulls no other along, nor does a text that is none."""
        for given in (f"{1_764_000_001_001:012x}" + "0" * 16, "", "z" * 28, "f" * 28):
            self.ids.continue_after_given(given)
        self.assertEqual(self.ids.next()[0][:18], f"{1_764_000_000_000:012x}000000")

    def test_latest_of_a_wall_clock(self) -> None:
        """A single node's own ids tell, as its clock follows the machine's."""
        ids = MessageIds(WallClock(lambda: self.times.wall, lambda: self.times.monotonic))
        _, made_at = ids.next()
        self.times.wall -= 3600
        self.assertEqual(ids.latest_ms(), made_at)

    def test_latest_of_another_node(self) -> None:
        """Two nodes' clocks are set back together: the one knows how far the other's ids are."""
        clocks = [self.times.clock() for _ in range(2)]
        writer, reader = map(MessageIds, clocks)
        for server_ms in (1_764_000_000_000, 1_763_996_400_000):
            for clock in clocks:
                clock.correct(server_ms, self.times.monotonic)
            message_id, _ = writer.next()
        self.assertEqual(reader.latest_ms(), int(message_id[:12], 16))

    def test_two_nodes(self) -> None:
        """Ids that two nodes make in the same millisecond differ."""
        other = MessageIds(self.times.clock())
        made = [ids.next()[0] for ids in (self.ids, other) for _ in range(9)]
        self.assertEqual(len(set(made)), 18)


class ChannelIdTests(unittest.TestCase):
    def test_random(self) -> None:
        """No two channel ids are equal."""
        self.assertEqual(len({new_channel_id() for _ in range(1000)}), 1000)


class IdInTests(unittest.TestCase):
    def test_each_kind(self) -> None:
        """Messages and all events; one that quotes another id in its text is known by its own."""
        message_id = "0123456789abcdef0123456789ab"
        for kind in (IMessage, RoomMessage, Edit, React, Recall, RoomEvent):
            body = kind(id=message_id)
            if hasattr(body, "msg"):
                body.msg = f'"id":"{"f" * 28}"'
            self.assertEqual(id_in(encode_message(body)[:BEGINNING_BYTES]), message_id)

    def test_no_id(self) -> None:
        """Bytes without an id, of whatever kind, give none."""
        no_text = b'{"id":"%b"}' % (b"\xff" * 28)
        for body in (b"", b"{}", "ü".encode() * 20, b'{"id":""}', b'{"id":"f', no_text):
            self.assertFalse(is_message_id(id_in(body)))
