"""The gate: places for logins, slices for handshakes, and when the listener is shut."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.entry import gate
from imd.entry.gate import Gate
from imd.protocol.errors import Closing

TURN = 2.0**-20


class ListenerDouble:
    def __init__(self) -> None:
        self.bounds: list[int] = []
        self.is_open = True

    def shut(self) -> None:
        self.is_open = False

    def open(self) -> None:
        self.is_open = True

    def accept_at_most(self, count: int) -> None:
        self.bounds.append(count)


class StrangerDouble:
    def __init__(self) -> None:
        self.idle = True
        self.ended = False

    def is_idle(self) -> bool:
        return self.idle

    def make_room(self) -> None:
        self.ended = True


class GateTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.now = 0.0
        # A later call is made in another turn, however soon.
        self.gate = Gate(lambda: self.now, lambda seconds, f: self.clock.callLater(max(seconds, TURN), f))
        self.listener = ListenerDouble()
        self.gate.guard(self.listener, 40)
        self.done: list[int] = []

    def turn(self, seconds: float = 0.0) -> None:
        """One turn of the reactor, the rest of which took `seconds`."""
        self.now += seconds
        self.clock.advance(TURN)

    def handshakes(self, count: int, seconds: float) -> None:
        """Run `count` handshakes, each of them `seconds` of work."""

        def work(number: int) -> None:
            self.now += seconds
            self.done.append(number)

        for number in range(count):
            self.gate.run_handshake(lambda number=number: work(number))

    def full(self) -> None:
        for _ in range(gate.MAX_PLACES):
            self.successResultOf(self.gate.enter())

    def test_sockets(self) -> None:
        """All sockets count, of strangers and of clients: at the bound the listener is shut."""
        self.gate.guard(self.listener, 40, 6)
        strangers = [StrangerDouble() for _ in range(6)]
        for stranger in strangers[:5]:
            self.gate.accepted(stranger)
            self.gate.logged_in(stranger)
        self.assertTrue(self.listener.is_open)
        self.gate.accepted(strangers[5])
        self.assertFalse(self.listener.is_open)
        # The one that has not logged in, and does nothing, makes room.
        self.now += gate.IDLE_SECONDS + 1
        self.clock.advance(gate.IDLE_SECONDS)
        self.assertEqual([stranger.ended for stranger in strangers], [False] * 5 + [True])
        self.gate.closed(strangers[5])
        self.assertTrue(self.listener.is_open)
        self.gate.accepted(StrangerDouble())
        self.assertFalse(self.listener.is_open)
        self.gate.closed(strangers[0])
        self.assertTrue(self.listener.is_open)

    def test_idle(self) -> None:
        """On an idle node neither a handshake nor a login waits."""
        self.handshakes(1, 0.001)
        self.assertEqual(self.done, [0])
        self.successResultOf(self.gate.enter())

    def test_slices(self) -> None:
        """Handshakes get a small slice of each turn, in their order."""
        self.handshakes(12, 0.001)
        self.assertEqual(self.done, [0, 1])
        self.turn()
        self.assertEqual(self.done, [0, 1, 2, 3])
        for _ in range(4):
            self.turn()
        self.assertEqual(self.done, list(range(12)))

    def test_fair_share(self) -> None:
        """On a busy node handshakes get a share of the turn's other time, up to a bound."""
        self.handshakes(100, 0.001)
        before = len(self.done)
        self.turn(0.020)
        self.assertEqual(len(self.done) - before, 5)
        before = len(self.done)
        self.turn(10)
        self.assertLessEqual(len(self.done) - before, 11)

    def test_work_that_fails(self) -> None:
        """A handshake that raises does not stop the others."""
        self.gate.run_handshake(lambda: 1 // 0)
        self.handshakes(5, 0.001)
        for _ in range(5):
            self.turn()
        self.assertEqual(self.done, list(range(5)))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_nothing_left_to_do(self) -> None:
        """An idle gate schedules nothing."""
        self.handshakes(5, 0.001)
        for _ in range(10):
            self.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_places(self) -> None:
        """Logins beyond the places wait, and are admitted in order."""
        self.full()
        first, second = self.gate.enter(), self.gate.enter()
        self.assertNoResult(first)
        self.gate.leave()
        self.successResultOf(first)
        self.assertNoResult(second)
        self.gate.leave()
        self.successResultOf(second)

    def test_many_that_leave_at_once(self) -> None:
        """Many admitted logins that leave synchronously cause no recursion."""
        self.full()

        async def login() -> None:
            await self.gate.enter()
            self.gate.leave()

        line = [Deferred.fromCoroutine(login()) for _ in range(1000)]
        last = self.gate.enter()
        self.gate.leave()
        for one in line:
            self.successResultOf(one)
        self.successResultOf(last)
        self.assertNoResult(self.gate.enter())

    def test_waited_too_long(self) -> None:
        """A login without a place in time is refused for a while; later ones go on waiting."""
        self.full()
        early = self.gate.enter()
        self.now = 1.0
        late = self.gate.enter()
        self.now = gate.MAX_WAIT_SECONDS
        self.clock.advance(gate.MAX_WAIT_SECONDS)
        closing = self.failureResultOf(early, Closing).value
        assert isinstance(closing, Closing) and closing.refused is not None
        self.assertEqual((closing.code, closing.refused.code), (4100, "unavailable"))
        self.assertNoResult(late)
        self.now += 1.0
        self.clock.advance(1.0)
        self.failureResultOf(late, Closing)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shut(self) -> None:
        """The listener is shut while too many wait."""
        self.full()
        waiting: list[Deferred[None]] = [self.gate.enter() for _ in range(gate.MAX_WAITING)]
        self.assertTrue(self.listener.is_open)
        waiting.append(self.gate.enter())
        self.assertFalse(self.listener.is_open)
        for _ in range(gate.MAX_WAITING // 2):
            self.gate.leave()
        self.assertFalse(self.listener.is_open)
        self.gate.leave()
        self.assertTrue(self.listener.is_open)
        self.gate.stop()
        for login in waiting[gate.MAX_WAITING // 2 + 1 :]:
            self.failureResultOf(login, Closing)

    def test_strangers(self) -> None:
        """Too many strangers shut the listener, until the idle ones have been ended."""
        strangers = [StrangerDouble() for _ in range(10)]
        strangers[1].idle = False
        for stranger in strangers[:9]:
            self.gate.accepted(stranger)
        self.assertTrue(self.listener.is_open)
        self.now = 1.0
        self.gate.accepted(strangers[9])
        self.assertFalse(self.listener.is_open)
        self.turn()
        self.assertEqual([stranger.ended for stranger in strangers], [False] * 10, "they are all young")
        self.gate.logged_in(strangers[2])
        self.assertTrue(self.listener.is_open)
        strangers.append(StrangerDouble())
        self.gate.accepted(strangers[10])
        self.now = gate.IDLE_SECONDS
        self.clock.advance(gate.IDLE_SECONDS)
        self.assertEqual(
            [stranger.ended for stranger in strangers],
            [True, False, False, True, True, True, True, True, True, False, False],
        )
        self.assertTrue(self.listener.is_open)
        for stranger in strangers:
            self.gate.logged_in(stranger)
        self.clock.advance(gate.IDLE_SECONDS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_accepts(self) -> None:
        """The number accepted in a turn is bounded anew in each turn."""
        self.assertEqual(self.listener.bounds, [gate.ACCEPTS_PER_TURN])
        self.handshakes(1, 0.001)
        self.turn()
        self.assertEqual(self.listener.bounds, [gate.ACCEPTS_PER_TURN] * 2)

    def test_stop(self) -> None:
        """After a stop no call is scheduled, and no login waits."""
        self.full()
        waiting = self.gate.enter()
        self.handshakes(10, 0.001)
        self.gate.stop()
        self.failureResultOf(waiting, Closing)
        self.assertEqual(self.clock.getDelayedCalls(), [])
