"""Periodic work: reconciling, renewing leases, serving the desk."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.chat import upkeep
from imd.chat.session import Session
from imd.chat.upkeep import Upkeep
from imd.contracts.inbox import ConnectRequest, Delivery, Lease
from tests.support.doubles import InboxDouble, WireDouble


class UpkeepTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.inbox = InboxDouble()
        self.sessions: dict[str, Session] = {}
        self.wires: list[WireDouble] = []
        self.delivered: list[Delivery] = []
        self.bus_problem: str | None = None
        self.upkeep = Upkeep(
            self.clock,
            self.inbox,
            self.sessions,
            self.deliver,
            lambda: self.bus_problem,
            reconcile_seconds=15,
            lease_seconds=90,
        )
        self.upkeep.start()
        self.addCleanup(self.upkeep.stop)

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        self.delivered += deliveries

    def connect(self, user: str = "bob") -> tuple[Session, WireDouble]:
        wire = WireDouble()
        request = ConnectRequest(user, "phone", f"c{len(self.wires)}")
        session = Session(self.inbox, wire, request, acknowledges=True, window=100)
        self.wires.append(wire)
        self.sessions[session.channel] = session
        session.begin(self.inbox.register(request))
        self.inbox.settle()
        return session, wire

    def run_for(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.clock.advance(0.5)
            self.inbox.settle()
            self.clock.advance(0)
            self.inbox.settle()

    def leases(self) -> list[Lease]:
        return [argument for name, argument in self.inbox.asked if name == "renew"]


class ReconcilingTests(UpkeepTestCase):
    def test_lost_hint(self) -> None:
        """A lost hint is found within `reconcile_seconds`."""
        _, wire = self.connect()
        self.inbox.place("bob")
        self.run_for(10)
        self.assertEqual(wire.seqs(), [])
        self.run_for(5)
        self.assertEqual(wire.seqs(), [1])

    def test_late_hint(self) -> None:
        """A hint that is only late comes by itself, and the inbox is not read."""
        session, wire = self.connect()
        self.run_for(13.5)
        delivery = self.inbox.place("bob")
        self.run_for(0.5)
        self.assertEqual(len(self.leases()), 1)
        session.hint(delivery.epoch, delivery.seq, delivery.body)
        self.run_for(5)
        self.assertEqual(wire.seqs(), [1])
        self.assertNotIn("pull", [name for name, _ in self.inbox.asked])

    def test_store_forgot(self) -> None:
        """When the store's era changes, all channels are compared at once: they may be forgotten."""
        _, wire = self.connect()
        self.inbox.place("bob")
        self.run_for(2)
        self.assertEqual(wire.seqs(), [])
        self.inbox.era_word = "another era"
        self.run_for(0.5)
        self.assertEqual(wire.seqs(), [1])
        self.assertEqual(len(self.leases()), 1)
        self.run_for(3)
        self.assertEqual(len(self.leases()), 2, "once more, for the desk")

    def test_every_second_while_the_bus_is_down(self) -> None:
        """While hints may be lost, within a second; and once more after the bus is back."""
        _, wire = self.connect()
        self.bus_problem = "not connected"
        self.run_for(1)
        for count in (1, 2, 3):
            self.inbox.place("bob")
            self.run_for(1)
            self.assertEqual(len(wire.seqs()), count)
        self.bus_problem = None
        self.inbox.place("bob")
        self.run_for(1.5)
        self.assertEqual(wire.seqs(), [1, 2, 3, 4])
        asked = len(self.leases())
        self.run_for(10)
        self.assertEqual(len(self.leases()), asked)

    def test_sliced(self) -> None:
        """Many sessions are asked for a slice at a time, a reactor turn apart."""
        self.patch(upkeep, "SLICE", 10)
        for number in range(25):
            self.connect(f"user{number}")
        self.clock.pump([0.5] * 30)
        slices = []
        while self.inbox.names().count("renew"):
            slices.append(self.inbox.names().count("renew"))
            self.inbox.settle()
            self.clock.advance(0)
        self.assertEqual(slices, [10, 10, 5])

    def test_one_pass_at_a_time(self) -> None:
        """A pass that takes long is not joined by another."""
        self.connect()
        self.clock.pump([0.5] * 100)
        self.assertEqual(self.inbox.names().count("renew"), 1)
        self.run_for(20)
        self.assertGreater(len(self.leases()), 1)

    def test_inbox_down(self) -> None:
        """A pass that fails is given up; the next one asks again."""
        self.patch(upkeep, "SLICE", 1)
        _, bob = self.connect()
        _, carol = self.connect("carol")
        self.inbox.place("bob")
        self.inbox.place("carol")
        self.clock.pump([0.5] * 30)
        self.assertEqual(self.inbox.names().count("renew"), 1)
        while self.inbox.refuse():
            pass
        self.clock.advance(0)
        self.assertNotIn("renew", self.inbox.names())
        self.run_for(16)
        self.assertEqual((bob.seqs(), carol.seqs()), ([1], [1]))

    def test_one_that_fails(self) -> None:
        """It keeps nobody behind it from being renewed."""
        for number in range(upkeep.SLICE + 1):
            self.connect(f"u{number}")
        self.clock.advance(15)
        self.inbox.refuse()
        self.run_for(1)
        self.assertEqual(len(self.leases()), upkeep.SLICE + 1)

    def test_not_registered_yet(self) -> None:
        """A session that has not begun, or has ended, is not asked for."""
        request = ConnectRequest("bob", "phone", "c9")
        wire = WireDouble()
        self.sessions["c9"] = Session(self.inbox, wire, request, acknowledges=True, window=1)
        ended, _ = self.connect("carol")
        ended.leave(clean=False)
        self.run_for(20)
        self.assertEqual(self.leases(), [])


class RenewalTests(UpkeepTestCase):
    def test_three_times_in_a_lease(self) -> None:
        """A lease is renewed at least three times before it would end, whatever the bus does."""
        self.connect()
        for self.bus_problem in (None, "down"):
            before = len(self.leases())
            self.run_for(91)
            renewed = [lease for lease in self.leases()[before:] if lease.renew]
            self.assertGreaterEqual(len(renewed), 3)
        self.assertLess(len(renewed), 10, "every second only the number is asked for")

    def test_short_lease(self) -> None:
        """A lease shorter than the reconciling is renewed in time all the same."""
        self.upkeep.stop()
        self.upkeep = Upkeep(
            self.clock, self.inbox, self.sessions, self.deliver, lambda: None,
            reconcile_seconds=15, lease_seconds=3,
        )  # fmt: skip
        self.upkeep.start()
        self.connect()
        self.run_for(10)
        self.assertGreaterEqual(len([lease for lease in self.leases() if lease.renew]), 9)

    def test_replaced_found_out(self) -> None:
        """A channel that lost its device without being told is closed at its next renewal."""
        _, wire = self.connect()
        self.inbox.of("bob").channels["phone"] = ("another", None)
        self.run_for(16)
        assert wire.closed is not None
        self.assertEqual(wire.closed[0], 4003)


class DeskTests(UpkeepTestCase):
    def desk_calls(self) -> int:
        return [name for name, _ in self.inbox.asked].count("serve_desk")

    def test_while_it_gives(self) -> None:
        """The desk is asked again as long as it gives anything; what it gives is delivered."""
        given = [self.inbox.place("agent") for _ in range(3)]
        self.inbox.desk.extend([given[:2], given[2:]])
        self.upkeep.serve_desk()
        self.inbox.settle()
        self.assertEqual((self.delivered, self.desk_calls()), (given, 3))

    def test_asked_meanwhile(self) -> None:
        """A call while the desk is served has it served once more, not twice at a time."""
        for _ in range(5):
            self.upkeep.serve_desk()
        self.assertEqual(self.desk_calls(), 1)
        self.inbox.settle()
        self.assertEqual(self.desk_calls(), 2)

    def test_now_and_then(self) -> None:
        """It is served with every reconciling."""
        self.run_for(31)
        self.assertEqual(self.desk_calls(), 2)

    def test_failure(self) -> None:
        """Served again the next time, if the inbox was down."""
        self.upkeep.serve_desk()
        self.inbox.refuse()
        self.upkeep.serve_desk()
        self.inbox.settle()
        self.assertEqual(self.desk_calls(), 2)


class StopTests(UpkeepTestCase):
    def test_in_the_middle(self) -> None:
        """Stopping in the middle of a pass ends it quietly, and leaves no timer."""
        self.connect()
        self.clock.pump([0.5] * 30)
        self.assertIn("renew", self.inbox.names())
        self.assertIn("serve_desk", self.inbox.names())
        self.upkeep.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_twice(self) -> None:
        """Stopping again is nothing."""
        self.upkeep.stop()
        self.upkeep.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
