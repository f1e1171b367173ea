"""Moving users home: when, how many, how often, and whom never."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.chat import homecoming
from imd.chat.homecoming import (
    AGAIN_SECONDS,
    ANSWER_SECONDS,
    ARRIVED_SECONDS,
    AWAY,
    MOVED,
    REASON,
    SLICE,
    STEADY_SECONDS,
    TICK_SECONDS,
    Homecoming,
)
from imd.gateway.nodes import Row
from imd.gateway.slots import Slots
from imd.gateway.table import CURRENT_SECONDS, LEASE_SECONDS, LastTable, Reading
from imd.protocol.author import Author
from imd.protocol.errors import CLOSE_LEAVING
from imd.protocol.message import FromUserType
from tests.gateway.support import row
from tests.unit.chat.support import Client, ConnectionTestCase

HERE, THERE, FAR = "n1", "n2", "n3"


class Traveller:
    """A connection; the one that `clings` goes only when it is closed."""

    def __init__(self, case: HomecomingCase, author: Author, clings: bool = False) -> None:
        self.author = author
        self.is_open = True
        self.closed: tuple[int, str] | None = None
        self._case = case
        self._clings = clings

    def told(self) -> None:
        if not self._clings:
            self.ends()

    def close(self, code: int, reason: str) -> None:
        if self.is_open:
            self.closed = code, reason
            self.ends()

    def ends(self) -> None:
        self.is_open = False
        self._case.here.discard(self)
        self._case.homecoming.left(self)


class HomecomingCase(unittest.TestCase):
    """The node n1, whose clients see nothing of a gateway but where they come."""

    nodes: tuple[str, ...] = (HERE, THERE)

    def setUp(self) -> None:
        self.clock = Clock()
        self.slots = Slots(())
        self.last = LastTable()
        self.rows: dict[str, Row] = {}
        self.age = LEASE_SECONDS
        self.redis_answers = True
        self.drains = False
        self.here: set[Any] = set()
        self.moved: list[Traveller] = []
        self.at_once: list[int] = []
        self.homecoming = Homecoming(
            self.clock, HERE, self, lambda: not self.drains, lambda: len(self.here), self.tell_to_go
        )
        self.set_nodes(*self.nodes)
        self.homecoming.start()
        self.addCleanup(self.homecoming.stop)

    def tell_to_go(self, travellers: Collection[Any], why: str) -> None:
        self.assertEqual(why, REASON)
        self.at_once.append(len(travellers))
        for traveller in travellers:
            self.moved.append(traveller)
            traveller.told()

    def set_nodes(self, *names: str, draining: str = "") -> None:
        self.rows = {name: row(name, draining=name == draining) for name in names}
        self.read()

    def read(self) -> None:
        """As the announcer does each second."""
        stands = self.redis_answers and self.last.take(Reading(self.age, self.rows), self.clock.seconds())
        if stands and self.last.members != self.slots.names:
            self.slots = Slots(self.last.members)

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_SECONDS)):
            self.read()
            self.clock.advance(TICK_SECONDS)

    def user(self, home: str, number: int = 0) -> str:
        """The name of a user who is at home on this node."""
        found = (f"u{count}" for count in range(100_000) if self.slots.home(f"u{count}") == home)
        return [name for name, _ in zip(found, range(number + 1), strict=False)][number]

    def users(self, home: str, count: int) -> list[str]:
        found = (f"u{number}" for number in range(100_000) if self.slots.home(f"u{number}") == home)
        return [name for name, _ in zip(found, range(count), strict=False)]

    def come(self, user: str, device: str = "phone", hint: str | None = "", **others: Any) -> Traveller:
        """A client logs in; its URL names the user unless `hint` says otherwise."""
        author = Author(user, device, FromUserType.USER_TYPE)
        traveller = Traveller(self, author, **others)
        self.here.add(traveller)
        self.homecoming.arrived(traveller, author, user if hint == "" else hint)
        return traveller

    def away(self) -> float:
        return float(AWAY._value.get())


class WhenTests(HomecomingCase):
    def test_the_table_has_stood(self) -> None:
        """Ten seconds after the nodes have changed, and not earlier."""
        self.set_nodes(HERE, THERE, FAR)
        users = self.users(FAR, 20)
        self.set_nodes(HERE, THERE)
        traveller = self.come(next(user for user in users if self.slots.home(user) == HERE))
        self.wait(ARRIVED_SECONDS)
        self.set_nodes(HERE, THERE, FAR)
        self.wait(1)
        self.assertEqual(self.away(), 1)
        self.wait(STEADY_SECONDS - 2)
        self.assertEqual(self.moved, [])
        before = MOVED._value.get()
        self.wait(1)
        self.assertEqual(self.moved, [traveller])
        self.assertEqual((MOVED._value.get() - before, self.away()), (1, 0))

    def test_just_arrived(self) -> None:
        """A client is left alone until its home, had it died before, would be out of the table."""
        self.wait(STEADY_SECONDS)
        traveller = self.come(self.user(THERE))
        self.wait(ARRIVED_SECONDS - 1)
        self.assertEqual(self.moved, [])
        self.wait(1)
        self.assertEqual(self.moved, [traveller])

    def test_a_home_that_died(self) -> None:
        """Its users are here; they go when it has been back for ten seconds, and none before."""
        self.wait(STEADY_SECONDS)
        traveller = self.come(self.user(THERE))
        self.wait(LEASE_SECONDS)
        self.set_nodes(HERE)
        self.wait(STEADY_SECONDS * 2)
        self.assertEqual((self.moved, self.away()), ([], 0))
        self.set_nodes(HERE, THERE)
        self.wait(STEADY_SECONDS - 1)
        self.assertEqual((self.moved, self.away()), ([], 1))
        self.wait(1)
        self.assertEqual(self.moved, [traveller])

    def test_a_home_that_is_back_at_once(self) -> None:
        """Another run of it is a change, though the same nodes have the slots."""
        self.wait(STEADY_SECONDS)
        traveller = self.come(self.user(THERE))
        self.wait(ARRIVED_SECONDS - 1)
        self.rows[THERE] = row(THERE, bus="another run")
        self.wait(STEADY_SECONDS - 1)
        self.assertEqual(self.moved, [])
        self.wait(1)
        self.assertEqual(self.moved, [traveller])

    def test_a_home_that_does_not_serve(self) -> None:
        """A node that drains is no home, also when all drain and have slots for that."""
        self.come(self.user(THERE))
        self.set_nodes(HERE, THERE, draining=THERE)
        self.wait(STEADY_SECONDS * 2)
        self.assertEqual(self.away(), 0)
        self.rows = {name: row(name, draining=True) for name in (HERE, THERE)}
        self.wait(STEADY_SECONDS * 2)
        self.assertEqual((self.last.members, self.moved), ({HERE, THERE}, []))

    def test_this_node_drains(self) -> None:
        """All are told to go anyhow."""
        self.drains = True
        self.come(self.user(THERE))
        self.wait(STEADY_SECONDS * 2)
        self.assertEqual(self.moved, [])

    def test_a_table_that_does_not_stand(self) -> None:
        """Nobody is moved by a table that is new, empty or old, whatever the last one said."""
        self.wait(STEADY_SECONDS * 2)
        for name, value in (("age", 1.0), ("rows", {}), ("redis_answers", False)):
            good = getattr(self, name)
            setattr(self, name, value)
            self.wait(CURRENT_SECONDS)
            self.come(self.user(THERE))
            self.wait(STEADY_SECONDS * 2)
            self.assertEqual((self.moved, self.away()), ([], 1), name)
            setattr(self, name, good)
            self.wait(1)
            self.assertEqual(len(self.moved), 1, name)
            self.moved.clear()
            self.wait(AGAIN_SECONDS)

    def test_no_table_at_all(self) -> None:
        """Before the first table stands, nobody has a home."""
        self.slots, self.last, self.rows = Slots(()), LastTable(), {}
        traveller = self.come("alice")
        self.wait(STEADY_SECONDS * 2)
        self.assertEqual((self.moved, self.away(), traveller.is_open), ([], 0, True))


class WhoTests(HomecomingCase):
    def test_at_home(self) -> None:
        self.come(self.user(HERE))
        self.wait(STEADY_SECONDS * 2)
        self.assertEqual((self.moved, self.away()), ([], 0))

    def test_no_hint_or_another(self) -> None:
        """Nobody is moved whose URL named no user, or somebody else: it would come here again."""
        user = self.user(THERE)
        for hint in (None, self.user(THERE, 1), user + "x", user.upper()):
            self.come(user, hint=hint)
        self.wait(STEADY_SECONDS * 2)
        self.assertEqual((self.moved, self.away()), ([], 0))

    def test_gone_meanwhile(self) -> None:
        """A connection that ends is forgotten; one that is ending is not told."""
        gone = self.come(self.user(THERE))
        ending = self.come(self.user(THERE, 1))
        gone.ends()
        ending.is_open = False
        self.assertEqual(self.away(), 1)
        self.wait(STEADY_SECONDS * 2)
        self.assertEqual(self.moved, [])
        ending.ends()
        self.assertEqual(self.away(), 0)

    def test_two_devices(self) -> None:
        """Each of them goes."""
        both = [self.come(self.user(THERE), device) for device in ("phone", "desk")]
        self.wait(STEADY_SECONDS * 2)
        self.assertEqual(self.moved, both)

    def test_unanswered(self) -> None:
        """A client that still waits for answers is closed after two seconds."""
        traveller = self.come(self.user(THERE), clings=True)
        self.wait(ARRIVED_SECONDS)
        self.assertEqual(self.moved, [traveller])
        self.wait(ANSWER_SECONDS - 1)
        self.assertIsNone(traveller.closed)
        self.wait(1)
        self.assertEqual(traveller.closed, (CLOSE_LEAVING, REASON))


class HowManyTests(HomecomingCase):
    def test_one_in_a_hundred(self) -> None:
        """Of all connections, in each second; of fewer than two hundred, one."""
        for user in self.users(HERE, 295):
            self.come(user)
        for user in self.users(THERE, 8):
            self.come(user)
        self.wait(ARRIVED_SECONDS - 1)
        self.assertEqual(self.at_once, [])
        self.wait(4)
        self.assertEqual(self.at_once, [3, 3, 2])
        self.assertEqual((len(self.here), self.away()), (295, 0))
        for traveller in list(self.here)[:196]:
            traveller.ends()
        for user in self.users(THERE, 11)[8:]:
            self.come(user)
        self.wait(ARRIVED_SECONDS + 1)
        self.assertEqual(self.at_once[3:], [1, 1])

    def test_many_at_a_change(self) -> None:
        """A node with many connections looks at some of them in each turn of the reactor."""
        many = SLICE * 5 + 7
        for number in range(many):
            self.come(f"u{number}")
        found = [self.away()]
        call_later = self.clock.callLater

        def in_the_next_turn(seconds: float, call: Any) -> Any:
            if call == self.homecoming._judge:
                found.append(self.away())
            return call_later(seconds, call)

        self.patch(self.clock, "callLater", in_the_next_turn)
        self.set_nodes(HERE, THERE, FAR)
        self.clock.advance(TICK_SECONDS)
        found.append(self.away())
        self.assertEqual(len(found), 7)
        self.assertEqual(found, sorted(set(found)))
        self.assertEqual(found[-1], sum(self.slots.home(f"u{number}") != HERE for number in range(many)))

    def test_stop_while_many_are_looked_at(self) -> None:
        for number in range(SLICE * 2):
            self.come(f"u{number}")
        self.set_nodes(HERE, THERE, FAR)
        self.clock.callLater(TICK_SECONDS, self.homecoming.stop)
        self.clock.advance(TICK_SECONDS)
        self.assertEqual(len(self.homecoming._unjudged), SLICE)
        self.assertEqual(self.clock.getDelayedCalls(), [])

class LoopTests(HomecomingCase):
    nodes = (HERE, THERE, FAR)

    def test_comes_back_here(self) -> None:
        """A gateway with an old map sends everybody back: each is moved once, and stays."""
        users = self.users(THERE, 20)
        for user in users:
            self.come(user)
        for _ in range(round(ARRIVED_SECONDS) + 60):
            before = len(self.moved)
            self.wait(1)
            for traveller in self.moved[before:]:
                self.come(traveller.author.user)
        self.assertEqual([traveller.author.user for traveller in self.moved], users)
        self.wait(AGAIN_SECONDS * 2)
        self.assertEqual((len(self.moved), self.away()), (20, 20))

    def test_once_in_ten_minutes(self) -> None:
        """A device that connects anew is moved once more, but not before ten minutes are over."""
        user = self.user(THERE)
        self.come(user)
        self.wait(ARRIVED_SECONDS)
        self.assertEqual(len(self.moved), 1)
        for _ in range(3):
            self.wait(AGAIN_SECONDS / 4 - ARRIVED_SECONDS)
            traveller = self.come(user)
            self.wait(ARRIVED_SECONDS)
            traveller.ends()
        self.assertEqual(len(self.moved), 1)
        self.wait(AGAIN_SECONDS / 4)
        self.come(user)
        self.wait(ARRIVED_SECONDS)
        self.assertEqual(len(self.moved), 2)

    def test_nodes_change(self) -> None:
        """A device that stayed goes when the nodes are others and the ten minutes are over."""
        user = self.user(THERE)
        self.come(user)
        self.wait(ARRIVED_SECONDS)
        stays = self.come(user)
        self.set_nodes(HERE, THERE)
        self.wait(AGAIN_SECONDS - 5)
        self.assertEqual(len(self.moved), 1)
        self.assertEqual(self.away(), 1)
        self.wait(6)
        self.assertEqual(self.moved[1:], [stays])

    def test_waiting_ones_hold_nobody_up(self) -> None:
        """Others are moved while some may not be yet."""
        users = self.users(THERE, 4)
        for user in users[:2]:
            self.come(user)
        self.wait(ARRIVED_SECONDS + 2)
        for user in users[:2]:
            self.come(user)
        self.set_nodes(HERE, THERE)
        self.wait(1)
        for user in users[2:]:
            self.come(user)
        self.wait(ARRIVED_SECONDS + 2)
        self.assertEqual([traveller.author.user for traveller in self.moved], users)

    def test_bounded(self) -> None:
        """So many moved devices are remembered; past that, the one that was moved first is forgotten."""
        self.patch(homecoming, "MAX_REMEMBERED", 3)
        users = self.users(THERE, 4)
        for user in users:
            self.come(user)
        self.wait(ARRIVED_SECONDS + 4)
        self.assertEqual(len(self.homecoming._moved), 3)
        for user in users[1:]:
            self.come(user)
        self.wait(ARRIVED_SECONDS + 4)
        self.assertEqual(len(self.moved), 4)
        self.come(users[0])
        self.wait(ARRIVED_SECONDS)
        self.assertEqual(len(self.moved), 5)

    def test_forgotten_in_time(self) -> None:
        """Nothing is kept of those who are gone, and nothing of moves longer than ten minutes ago."""
        self.come(self.user(THERE))
        self.wait(ARRIVED_SECONDS + AGAIN_SECONDS + 1)
        held = vars(self.homecoming)
        kept = [name for name in ("_here", "_away", "_staying", "_moved", "_told", "_unjudged") if held[name]]
        self.assertEqual((len(self.moved), kept), (1, []))


class ConnectionTests(ConnectionTestCase):
    """The connections of a node whose users are at home elsewhere."""

    def setUp(self) -> None:
        super().setUp()
        self.slots = Slots([THERE])
        self.last = LastTable()
        self.told: list[Any] = []
        self.homecoming = Homecoming(
            self.clock, HERE, self, lambda: True, lambda: 1, lambda going, _: self.told.extend(going)
        )
        self.last.take(Reading(LEASE_SECONDS, {THERE: row(THERE)}), 0)
        object.__setattr__(self.services, "homecoming", self.homecoming)
        self.homecoming.start()
        self.addCleanup(self.homecoming.stop)

    def test_life(self) -> None:
        """A connection counts from its login to its end, if its URL named its user."""
        client, stranger = Client(self.services), Client(self.services)
        client.wire.hint, stranger.wire.hint = "alice", "alice"
        client.connect("alice")
        stranger.connect("bob")
        self.assertEqual(AWAY._value.get(), 0)
        self.inbox.settle()
        self.assertEqual(AWAY._value.get(), 1)
        for second in range(1, round(ARRIVED_SECONDS) + 1):
            self.assertEqual(self.told, [])
            self.last.take(Reading(LEASE_SECONDS, {THERE: row(THERE)}), second)
            self.clock.advance(1)
        self.assertEqual(self.told, [client.connection])
        client.connection.lost(clean=True)
        stranger.connection.lost(clean=True)
        self.assertFalse(self.homecoming._here)
