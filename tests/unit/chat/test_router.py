"""Hints between nodes: local, searched for once, direct from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.chat import router as delivery
from imd.chat.router import ASK_SECONDS, NOT_AGAIN_SECONDS, SEARCH_SECONDS, Router
from imd.chat.session import Session
from imd.contracts.inbox import ConnectRequest, Delivery
from imd.observe.trace import Trace
from imd.protocol.events import RoomMessage, encode_event
from tests.support.doubles import BusDouble, InboxDouble, Network, WireDouble


class Node:
    """A router, its sessions and its bus."""

    def __init__(
        self,
        network: Network,
        name: str,
        clock: Clock,
        inbox: InboxDouble,
        home: Callable[[str], str | None] | None = None,
    ) -> None:
        self.inbox = inbox
        self.sessions: dict[str, Session] = {}
        self.bus = BusDouble(network, name)
        self.router = Router(self.sessions, self.bus, clock.seconds, clock.callLater, home)
        self.wires: dict[str, WireDouble] = {}

    def connect(self, user: str, device: str = "phone", window: int = 1000) -> str:
        """A device of the user connects to this node; gives its channel."""
        channel = f"{self.bus.address}-{user}-{device}"
        self.wires[channel] = wire = WireDouble()
        request = ConnectRequest(user, device, channel)
        session = Session(self.inbox, wire, request, acknowledges=True, window=window)
        self.sessions[channel] = session
        session.begin(self.inbox.register(request))
        self.inbox.settle()
        return channel


class RouterTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.inbox = InboxDouble()
        self.network = Network()
        self.a, self.b, self.c = (Node(self.network, name, self.clock, self.inbox) for name in "abc")

    def write(self, count: int = 1, user: str = "bob", at: Node | None = None) -> list[Delivery]:
        """Messages to the user are accepted on a node, each delivered by itself."""
        placed = []
        for _ in range(count):
            placed.append(self.inbox.place(user))
            (at or self.a).router.deliver(placed[-1:])
        return placed

    def kinds(self) -> list[str]:
        """The messages on the bus, as `sender kind`."""
        return [f"{sender} {kind}" for sender, kind, _ in self.network.carried]


class LocalTests(RouterTestCase):
    def test_local(self) -> None:
        """Channels of this node are written to at once, without the bus."""
        phone, laptop = self.a.connect("bob"), self.a.connect("bob", "laptop")
        self.write(2)
        self.assertEqual([self.a.wires[channel].seqs() for channel in (phone, laptop)], [[1, 2], [1, 2]])
        self.assertEqual(self.kinds(), [])

    def test_order_within_a_batch(self) -> None:
        """A batch's deliveries are told in their order."""
        channel = self.a.connect("bob")
        self.a.router.deliver([self.inbox.place("bob") for _ in range(5)])
        self.assertEqual((self.a.wires[channel].seqs(), self.inbox.names()), ([1, 2, 3, 4, 5], []))

    def test_without_a_bus(self) -> None:
        """A node that is alone tells its own channels, and loses nothing over others."""
        sessions: dict[str, Session] = {}
        router = Router(sessions, None, self.clock.seconds, self.clock.callLater)
        sessions["a-bob-phone"] = self.a.sessions[self.a.connect("bob")]
        self.b.connect("bob", "laptop")
        router.deliver([self.inbox.place("bob")])
        router.tell_replaced("elsewhere")
        router.stop()
        self.assertEqual(self.a.wires["a-bob-phone"].seqs(), [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SearchTests(RouterTestCase):
    def test_search_once(self) -> None:
        """The first message to a channel elsewhere asks all nodes; its owner pushes it and answers; what
        follows goes straight to the owner."""
        channel = self.b.connect("bob")
        self.write()
        self.network.carry()
        self.assertEqual(self.kinds(), ["a search", "b found"])
        self.assertEqual(self.b.wires[channel].seqs(), [1])
        self.write(3)
        self.network.carry()
        self.assertEqual(self.kinds()[2:], ["a hints"] * 3)
        self.assertEqual(self.b.wires[channel].seqs(), [1, 2, 3, 4])
        self.assertEqual(self.inbox.names(), [])

    def test_traced(self) -> None:
        """A room's message names no recipient: hints of it are followed by the channels that are here."""
        trace = Trace()
        trace.start(["bob"], 0)
        self.patch(delivery, "TRACE", trace)
        lines: list[tuple[str, object]] = []
        self.patch(trace, "_line", lambda step, message_id, **more: lines.append((step, more["channel"])))
        bob, _ = self.b.connect("bob"), self.b.connect("carol")
        body = encode_event(RoomMessage(id="m1", user_id="alice", room="r-1", room_version=3, msg="x"))
        for _ in range(2):
            for user in ("bob", "carol"):
                self.a.router.deliver([self.inbox.place(user, body)])
            self.network.carry()
        self.assertEqual(lines, [("search received", bob), ("hint received", bob)])

    def test_each_node_learns_for_itself(self) -> None:
        """One node's knowledge is not another's: that one still has to ask."""
        self.b.connect("bob")
        for node in (self.a, self.c, self.a, self.c):
            self.write(at=node)
            self.network.carry()
        self.assertEqual(self.kinds(), ["a search", "b found", "c search", "b found", "a hints", "c hints"])

    def test_together(self) -> None:
        """Of a batch, what goes to one node is one sending, and what is searched for is one search."""
        for user in ("bob", "carol", "dave"):
            self.b.connect(user)
        batch = [self.inbox.place(user) for user in ("bob", "carol", "bob", "dave")]
        self.a.router.deliver(batch)
        self.network.carry()
        self.assertEqual(self.kinds(), ["a search", "b found", "a hints"])
        self.assertEqual([hint.seq for hint in self.network.carried[0][2]], [1, 1, 1])
        self.a.router.deliver([self.inbox.place(user) for user in ("bob", "carol", "dave")])
        self.assertEqual(self.kinds()[3:], ["a hints"])

    def test_what_follows_while_searching(self) -> None:
        """While a search is under way there is no second one; what came meanwhile follows in order."""
        channel = self.b.connect("bob")
        self.write(6)
        self.assertEqual(self.kinds(), ["a search"])
        self.network.carry()
        self.assertEqual(self.kinds(), ["a search", "b found", "a hints"])
        self.assertEqual(self.b.wires[channel].seqs(), [1, 2, 3, 4, 5, 6])
        self.assertEqual(self.inbox.names(), [])

    def test_much_follows_while_searching(self) -> None:
        """Of more than a few hints only the last number is kept, and the owner pulls."""
        channel = self.b.connect("bob")
        self.write(60)
        self.network.carry()
        kept = self.network.carried[2][2]
        self.assertEqual(len(kept), delivery.MAX_HELD_HINTS + 1)
        self.assertEqual((kept[-1].seq, kept[-1].body), (60, None))
        self.inbox.settle()
        self.assertEqual(self.b.wires[channel].seqs(), list(range(1, 61)))

    def test_two_channels_on_two_nodes(self) -> None:
        """A user's devices may be on different nodes: one search finds both."""
        phone, laptop = self.b.connect("bob"), self.c.connect("bob", "laptop")
        self.write(2)
        self.network.carry()
        self.assertEqual(self.kinds()[:3], ["a search", "b found", "c found"])
        self.assertEqual((self.b.wires[phone].seqs(), self.c.wires[laptop].seqs()), ([1, 2], [1, 2]))

    def test_unanswered(self) -> None:
        """A search that nobody answers is given up, and not repeated for a while; then it is."""
        channel = self.b.connect("bob")
        session = self.b.sessions.pop(channel)
        self.write(2)
        self.network.carry()
        self.assertEqual(self.kinds(), ["a search"])
        self.clock.pump([SEARCH_SECONDS / 2] * 4)
        self.write(5)
        self.assertEqual(self.kinds(), ["a search"])
        self.clock.pump([1.0] * int(NOT_AGAIN_SECONDS + 2))
        self.assertEqual(self.clock.getDelayedCalls(), [], "nothing is left to be swept")
        self.b.sessions[channel] = session
        self.write()
        self.network.carry()
        self.assertEqual(self.kinds(), ["a search", "a search", "b found"])
        self.inbox.settle()
        self.assertEqual(self.b.wires[channel].seqs(), list(range(1, 9)))

    def test_somebody_back(self) -> None:
        """An unanswered search is repeated as soon as a node is back on the bus."""
        channel = self.b.connect("bob")
        self.write()
        self.network.under_way.clear()
        self.clock.pump([SEARCH_SECONDS / 2] * 4)
        self.write()
        self.assertEqual(self.kinds(), ["a search"])
        self.a.bus.back()
        self.write()
        self.network.under_way.clear()
        self.a.bus.back()
        self.write()
        self.network.carry()
        self.inbox.settle()
        self.assertEqual(self.kinds(), ["a search", "a search", "a search", "b found"])
        self.assertEqual(self.b.wires[channel].seqs(), [1, 2, 3, 4])

    def test_answered_late(self) -> None:
        """An answer after the search was given up still counts for what comes next."""
        channel = self.b.connect("bob")
        self.write()
        self.clock.pump([1.0] * 4)
        self.network.carry()
        self.write()
        self.network.carry()
        self.assertEqual(self.kinds(), ["a search", "b found", "a hints"])
        self.assertEqual(self.b.wires[channel].seqs(), [1, 2])

    def test_bounds(self) -> None:
        """Searches under way and channels learned are bounded; past that hints are left to reconciling."""
        self.patch(delivery, "MAX_SEARCHING", 2)
        self.patch(delivery, "MAX_LEARNED", 1)
        for user in ("bob", "carol", "dave"):
            self.b.connect(user)
            self.write(user=user)
        self.assertEqual(self.kinds(), ["a search", "a search"])
        self.network.carry()
        self.write(user="carol")
        self.write(user="bob")
        self.assertEqual(self.kinds()[-2:], ["a hints", "a search"])

    def test_stop(self) -> None:
        """A router that stops leaves no timer behind."""
        self.b.connect("bob")
        self.write()
        self.a.router.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class HomeTests(RouterTestCase):
    """Node a leads clients to homes; b and c, with the routing of the others, need not."""

    def setUp(self) -> None:
        super().setUp()
        self.homes: dict[str, str] = {}
        self.a = Node(self.network, "a", self.clock, self.inbox, self.homes.get)
        self.before = {result: self.counted(result) for result in ("found", "returned", "unanswered")}

    @staticmethod
    def counted(result: str) -> float:
        return delivery.ASKED.labels(result)._value.get()

    def results(self) -> dict[str, float]:
        """The results since the test began, without those that did not occur."""
        since = {result: self.counted(result) - before for result, before in self.before.items()}
        return {result: count for result, count in since.items() if count}

    def test_found(self) -> None:
        """The home alone is asked, once; it answers, and what follows goes straight there, in order."""
        self.homes["bob"] = "b"
        channel = self.b.connect("bob")
        self.write(3)
        self.assertEqual(self.kinds(), ["a ask"])
        self.network.carry()
        self.write()
        self.network.carry()
        self.assertEqual(self.kinds(), ["a ask", "b found", "a hints", "a hints"])
        self.assertEqual(self.b.wires[channel].seqs(), [1, 2, 3, 4])
        self.assertEqual((self.results(), self.inbox.names()), ({"found": 1}, []))
        self.clock.advance(ASK_SECONDS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_together(self) -> None:
        """Of a batch, each home is asked once, for all of its channels."""
        self.homes.update(bob="b", carol="c", dave="b")
        for node, user in ((self.b, "bob"), (self.c, "carol"), (self.b, "dave")):
            node.connect(user)
        self.a.router.deliver([self.inbox.place(user) for user in ("bob", "carol", "dave")])
        self.assertEqual(self.kinds(), ["a ask", "a ask"])
        self.network.carry()
        self.assertEqual(self.results(), {"found": 3})
        self.assertEqual([wire.seqs() for n in (self.b, self.c) for wire in n.wires.values()], [[1]] * 3)

    def test_returned(self) -> None:
        """The question comes back, as the home is gone: all are asked at once, and the order is kept."""
        self.homes["bob"] = "gone"
        channel = self.b.connect("bob")
        self.write(3)
        self.network.carry()
        self.assertEqual(self.kinds(), ["a ask", "a search", "b found", "a hints"])
        self.assertEqual(self.b.wires[channel].seqs(), [1, 2, 3])
        self.assertEqual((self.results(), self.inbox.names()), ({"returned": 1}, []))

    def test_unanswered(self) -> None:
        """The home does not have the channel: a second after the question all are asked, in order."""
        self.homes["bob"] = "c"
        channel = self.b.connect("bob")
        self.write(3)
        self.network.carry()
        self.clock.advance(ASK_SECONDS / 2)
        self.write()
        self.network.carry()
        self.assertEqual(self.kinds(), ["a ask"])
        self.clock.advance(ASK_SECONDS / 2)
        self.write()
        self.network.carry()
        self.assertEqual(self.kinds(), ["a ask", "a search", "b found", "a hints"])
        self.write()
        self.network.carry()
        self.assertEqual(self.b.wires[channel].seqs(), [1, 2, 3, 4, 5, 6])
        self.assertEqual((self.results(), self.inbox.names()), ({"unanswered": 1}, []))

    def test_each_question_has_its_second(self) -> None:
        """A later question is not cut short by an earlier one, and does not wait longer for it."""
        self.homes.update(bob="c", carol="c")
        self.b.connect("bob")
        self.b.connect("carol")
        self.write()
        self.clock.advance(ASK_SECONDS / 4)
        self.write(user="carol")
        self.clock.advance(ASK_SECONDS * 3 / 4)
        self.assertEqual(self.kinds(), ["a ask", "a ask", "a search"])
        self.clock.advance(ASK_SECONDS / 4)
        self.assertEqual(self.kinds()[3:], ["a search"])
        self.assertEqual(self.network.carried[3][2][0].channel, "b-carol-phone")

    def test_nowhere(self) -> None:
        """A channel that neither its home nor another node has is left alone for a while."""
        self.homes["bob"] = "c"
        self.b.sessions.pop(self.b.connect("bob"))
        self.write(2)
        self.network.carry()
        self.clock.pump([ASK_SECONDS] + [SEARCH_SECONDS] * 2)
        self.write()
        self.assertEqual(self.kinds(), ["a ask", "a search"])
        self.clock.pump([1.0] * int(NOT_AGAIN_SECONDS + 2))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.write()
        self.assertEqual(self.kinds(), ["a ask", "a search", "a ask"])

    def test_home_is_here(self) -> None:
        """A user at home here whose channel is elsewhere is searched for at once."""
        channel = self.b.connect("bob")
        self.write(2)
        self.network.carry()
        self.assertEqual(self.kinds(), ["a search", "b found", "a hints"])
        self.assertEqual((self.b.wires[channel].seqs(), self.results()), ([1, 2], {}))

    def test_learned(self) -> None:
        """A channel that was found elsewhere once is not asked for again, wherever its user's home is."""
        self.homes["bob"] = "gone"
        self.b.connect("bob")
        self.write()
        self.network.carry()
        self.patch(self.a.router, "_home", lambda _: self.fail("not looked up"))
        self.write(2)
        self.assertEqual(self.kinds()[3:], ["a hints"] * 2)

    def test_answer_in_time_and_return_too_late(self) -> None:
        """A return for a channel that is known by now changes nothing."""
        self.homes["bob"] = "b"
        self.b.connect("bob")
        self.write()
        self.network.carry()
        self.a.bus.returned(["b-bob-phone", "never-asked"])
        self.assertEqual((self.kinds(), self.results()), (["a ask", "b found"], {"found": 1}))

    def test_bounds(self) -> None:
        """Questions count with searches."""
        self.patch(delivery, "MAX_SEARCHING", 2)
        self.homes.update(bob="b", dave="b")
        for user in ("bob", "carol", "dave"):
            self.b.connect(user)
            self.write(user=user)
        self.assertEqual(self.kinds(), ["a ask", "a search"])

    def test_bus_is_down(self) -> None:
        """While no node would get it, there is no search instead, and the channel is asked for later."""
        self.homes["bob"] = "c"
        channel = self.b.connect("bob")
        self.write()
        self.network.under_way.clear()
        self.a.bus.down = "down"
        self.clock.advance(ASK_SECONDS)
        self.a.bus.down = None
        self.homes["bob"] = "b"
        self.write()
        self.network.carry()
        self.assertEqual(self.kinds(), ["a ask", "a ask", "b found"])
        self.inbox.settle()
        self.assertEqual(self.b.wires[channel].seqs(), [1, 2])

    def test_stop(self) -> None:
        """A router that stops leaves no timer behind."""
        self.homes["bob"] = "b"
        self.b.connect("bob")
        self.write()
        self.a.router.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ReplacedTests(RouterTestCase):
    def closed(self, wire: WireDouble) -> int | None:
        return wire.closed[0] if wire.closed is not None else None

    def test_here(self) -> None:
        """A channel of this node is told at once."""
        channel = self.a.connect("bob")
        self.a.router.tell_replaced(channel)
        self.assertEqual((self.closed(self.a.wires[channel]), self.kinds()), (4003, []))

    def test_elsewhere(self) -> None:
        """A channel elsewhere is told through the bus, together with others; nobody else is."""
        channel, other = self.b.connect("bob"), self.c.connect("carol")
        self.a.router.tell_replaced(channel)
        self.a.router.tell_replaced("gone")
        self.clock.advance(0)
        self.network.carry()
        self.assertEqual(self.closed(self.b.wires[channel]), 4003)
        self.assertIsNone(self.closed(self.c.wires[other]))
        self.assertEqual(self.kinds(), ["a replaced"])


class LossTests(RouterTestCase):
    def test_gone_channel(self) -> None:
        """Hints straight to a node that no longer has the channel are lost, and do no harm."""
        channel = self.b.connect("bob")
        self.write()
        self.network.carry()
        del self.b.sessions[channel]
        self.write()
        self.network.carry()
        self.assertEqual(self.b.wires[channel].seqs(), [1])

    def test_gone_node(self) -> None:
        """So are hints to a node that is gone."""
        channel = self.b.connect("bob")
        self.write()
        self.network.carry()
        wire = self.b.wires[channel]
        del self.network.nodes["b"]
        self.write()
        self.network.carry()
        self.assertEqual(wire.seqs(), [1])

    def test_reordered(self) -> None:
        """The device gets its inbox in order, in any order of hints."""
        channel = self.b.connect("bob")
        self.write(5)
        self.network.carry()
        self.write(6)
        under_way: Sequence[tuple[str, object]] = list(self.network.under_way)
        self.assertEqual(len(under_way), 6)
        self.network.under_way.reverse()
        self.network.carry()
        self.inbox.settle()
        self.assertEqual(self.b.wires[channel].seqs(), list(range(1, 12)))
