"""Signals between nodes: at once here, in one turn elsewhere, and the least important is left out first."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.chat import signals as outbox
from imd.chat.router import Router
from imd.chat.session import Session
from imd.chat.signals import LOOK, SIGNAL, TYPING, TYPING_SECONDS, Signals
from imd.contracts.inbox import ConnectRequest, Delivery
from tests.support.doubles import BusDouble, InboxDouble, Network, WireDouble

STATE = "state"


def dropped(kind: str, why: str) -> float:
    return outbox.DROPPED.labels(kind, why)._value.get()


class Node:
    """A router, its bus and its outbox; `got` has what channels of it got, `looked` users."""

    def __init__(self, network: Network, name: str, clock: Clock, home: str | None = None) -> None:
        self.sessions: dict[str, Session] = {}
        self.bus = BusDouble(network, name)
        self.router = Router(
            self.sessions, self.bus, clock.seconds, clock.callLater, (lambda user: home) if home else None
        )
        self.signals = Signals(self.router, self.bus, clock.callLater)
        self.got: list[tuple[str, bytes]] = []
        self.looked: list[str] = []
        for kind in (TYPING, SIGNAL, STATE):
            self.signals.take(kind, self._take)
        self.signals.take_looks(self.looked.extend)

    def _take(self, channels: Sequence[str], payload: bytes) -> None:
        self.got += [(channel, payload) for channel in channels]

    def connect(self, channel: str) -> None:
        request = ConnectRequest("bob", "phone", channel)
        self.sessions[channel] = Session(InboxDouble(), WireDouble(), request, acknowledges=True, window=9)


class SignalsTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.network = Network()
        self.a, self.b = (Node(self.network, name, self.clock) for name in "ab")

    def carry(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.network.carry()

    def learn(self, *channels: str) -> None:
        """Node a knows that b has these."""
        for channel in channels:
            self.b.connect(channel)
        self.a.signals.send(STATE, {"bob": channels}, b"first")
        self.carry()
        self.carry()
        self.b.got.clear()
        self.network.carried.clear()

    def sent(self) -> list[str]:
        return [kind for _, kind, _ in self.network.carried]

    def test_here(self) -> None:
        """A channel of this node gets it at once, without the bus."""
        self.a.connect("c-1")
        self.a.signals.send(TYPING, {"bob": ["c-1"]}, b"x")
        self.assertEqual((self.a.got, self.sent()), ([("c-1", b"x")], []))

    def test_unknown_channel(self) -> None:
        """Its node is searched for, and gets what waited; a session is not disturbed by the question."""
        self.b.connect("c-1")
        for payload in (b"1", b"2"):
            self.a.signals.send(SIGNAL, {"bob": ["c-1"]}, payload)
        self.carry()
        self.carry()
        self.assertEqual(self.b.got, [("c-1", b"1"), ("c-1", b"2")])
        self.assertEqual(self.sent(), ["search", "found", "signals"])
        self.assertEqual(self.b.sessions["c-1"].known, 0)

    def test_home_is_asked_first(self) -> None:
        """Where users have homes, the home is asked; all nodes are, if it has gone or does not answer."""
        self.b.connect("c-1")
        for home, expected in (
            ("b", ["ask", "found", "signals"]),
            ("gone", ["ask", "search", "found", "signals"]),
            ("a", ["ask", "search", "found", "signals"]),
        ):
            node = Node(self.network, f"at-{home}", self.clock, home)
            self.network.carried.clear()
            node.signals.send(SIGNAL, {"bob": ["c-1"]}, home.encode())
            self.carry(0.5)
            self.carry(1.0)
            self.carry()
            self.assertEqual((self.sent(), self.b.got[-1]), (expected, ("c-1", home.encode())))

    def test_unknown_channel_bound(self) -> None:
        """Of what waits for a search the first eight are kept."""
        self.b.connect("c-1")
        for number in range(20):
            self.a.signals.send(SIGNAL, {"bob": ["c-1"]}, b"%d" % number)
        self.carry()
        self.carry()
        self.assertEqual([payload for _, payload in self.b.got], [b"%d" % n for n in range(8)])

    def test_found_by_a_message(self) -> None:
        """A signal that waits for the same search as a message follows it, and the other way round."""
        self.b.connect("c-1")
        self.a.router.deliver([Delivery("bob", "e", 1, ["c-1"], b"{}")])
        self.a.signals.send(SIGNAL, {"bob": ["c-1"]}, b"x")
        self.a.router.deliver([Delivery("bob", "e", 2, ["c-1"], b"{}")])
        self.carry()
        self.carry()
        self.assertEqual(
            (self.sent(), self.b.got), (["search", "found", "hints", "signals"], [("c-1", b"x")])
        )

    def test_one_turn(self) -> None:
        """All of a turn goes in one message for a node; equal typing of a tick goes once."""
        self.learn("c-1", "c-2")
        for _ in range(3):
            self.a.signals.send(TYPING, {"bob": ["c-1", "c-2"]}, b"typing")
            self.a.signals.send(STATE, {"bob": ["c-1"]}, b"state")
        self.a.signals.look(["b", "a", ""], "carol")
        self.carry()
        self.assertEqual((self.sent(), len(self.b.got)), (["signals", "looks"], 3))
        self.assertEqual((self.a.looked, self.b.looked), (["carol", "carol"], ["carol"]))
        self.carry(TYPING_SECONDS)
        self.assertEqual(sorted(self.b.got[3:]), [("c-1", b"typing"), ("c-2", b"typing")])

    def test_bus_without_room(self) -> None:
        """Typing and signals are left out; the rest still goes."""
        self.learn("c-1")
        before = [dropped(kind, "congested") for kind in (TYPING, SIGNAL)]
        self.a.signals.send(TYPING, {"bob": ["c-1"]}, b"early")
        self.a.bus.full = True
        for kind in (TYPING, SIGNAL, STATE):
            self.a.signals.send(kind, {"bob": ["c-1"]}, kind.encode())
        self.carry(TYPING_SECONDS)
        self.carry(TYPING_SECONDS)
        self.assertEqual(self.b.got, [("c-1", b"state")])
        after = [dropped(kind, "congested") for kind in (TYPING, SIGNAL)]
        self.assertEqual([after[0] - before[0], after[1] - before[1]], [2, 1])

    def test_bus_falls_behind(self) -> None:
        """Typing is left out first, also what has waited for a tick; signals still go."""
        self.learn("c-1")
        before = dropped(TYPING, "congested")
        self.a.signals.send(TYPING, {"bob": ["c-1"]}, b"early")
        self.a.bus.behind = True
        for kind in (TYPING, SIGNAL):
            self.a.signals.send(kind, {"bob": ["c-1"]}, kind.encode())
        self.carry(TYPING_SECONDS)
        self.carry(TYPING_SECONDS)
        self.assertEqual(self.b.got, [("c-1", b"signal")])
        self.assertEqual(dropped(TYPING, "congested") - before, 2)

    def test_full(self) -> None:
        """Typing makes room for signals, and both for the rest; nothing else makes room for typing."""
        self.patch(outbox, "MAX_FOR_NODE", 3)
        self.learn("c-1", "c-2", "c-3")
        self.a.signals.send(TYPING, {"bob": ["c-1", "c-2"]}, b"typing")
        self.a.signals.send(SIGNAL, {"bob": ["c-1", "c-2"]}, b"signal")
        self.a.signals.send(TYPING, {"bob": ["c-1", "c-2"]}, b"typing")
        self.a.signals.send(STATE, {"bob": ["c-1"]}, b"state")
        self.a.signals.send(STATE, {"bob": ["c-2"]}, b"state")
        self.a.signals.look(["b"], "carol")
        before = dropped(LOOK, "full")
        self.a.signals.look(["b"], "dora")
        self.carry(TYPING_SECONDS)
        self.assertEqual(self.b.got, [("c-1", b"state"), ("c-2", b"state")])
        self.assertEqual((self.b.looked, dropped(LOOK, "full") - before), (["carol"], 1))
        self.learn("c-4")
        self.a.signals.send(SIGNAL, {"bob": ["c-1", "c-2", "c-3"]}, b"all")
        self.carry()
        self.assertEqual(len(self.b.got), 3)

    def test_channel_that_has_gone(self) -> None:
        """A signal for a channel that is gone, or of a kind that nobody takes, is dropped and counted."""
        self.learn("c-1")
        before = dropped(SIGNAL, "unknown")
        del self.b.sessions["c-1"]
        self.a.signals.send(SIGNAL, {"bob": ["c-1"]}, b"x")
        self.a.bus.send_signals("b", [outbox.Signal("later", b"x", ["c-1"])])
        self.carry()
        self.assertEqual((self.b.got, dropped(SIGNAL, "unknown") - before), ([], 1))

    def test_stop(self) -> None:
        """A node that stops still tells of those who leave with it."""
        self.a.signals.look(["b"], "carol")
        self.a.signals.stop()
        self.carry()
        self.assertEqual(self.b.looked, ["carol"])
