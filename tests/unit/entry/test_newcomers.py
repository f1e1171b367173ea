"""New visitors: how many an address may have in an hour, and how many addresses are counted."""

from __future__ import annotations

from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imd.entry import newcomers
from imd.entry.newcomers import Newcomers
from imd.protocol.errors import Closing


class NewcomersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def make(self, per_hour: int) -> Newcomers:
        return Newcomers(per_hour, self.clock.seconds, lambda draw: draw())

    def refusal(self, door: Newcomers, address: str) -> int:
        """0 for a visitor that is welcome, else after how many ms it may come again."""
        before = newcomers.REFUSED._value.get()
        try:
            door.welcome(address)
        except Closing as closing:
            assert closing.refused is not None and closing.refused.retry_after_ms is not None
            self.assertEqual(newcomers.REFUSED._value.get(), before + 1)
            return closing.refused.retry_after_ms
        self.assertEqual(newcomers.REFUSED._value.get(), before)
        return 0

    def test_an_hour(self) -> None:
        """So many at once, then one each time that an hour's part has passed; addresses by themselves."""
        door = self.make(4)
        self.assertEqual([self.refusal(door, "127.0.0.1") for _ in range(5)], [0] * 4 + [900_000])
        self.assertEqual([self.refusal(door, "127.0.0.2") for _ in range(5)], [0] * 4 + [900_000])
        self.clock.advance(899.5)
        self.assertEqual(self.refusal(door, "127.0.0.1"), 500)
        self.clock.advance(0.5)
        self.assertEqual([self.refusal(door, "127.0.0.1") for _ in range(2)], [0, 900_000])
        self.clock.advance(7 * 3600)
        self.assertEqual([self.refusal(door, "127.0.0.1") for _ in range(5)], [0] * 4 + [900_000])

    def test_none(self) -> None:
        """0 is no limit, and an address that is not known is not counted."""
        door = self.make(0)
        self.assertEqual([self.refusal(door, "127.0.0.1") for _ in range(500)], [0] * 500)
        door = self.make(1)
        self.assertEqual([self.refusal(door, "") for _ in range(3)], [0] * 3)

    def test_networks(self) -> None:
        """A customer with IPv6 has a network of addresses, which count as one."""
        door = self.make(1)
        self.assertEqual(self.refusal(door, "2001:db8:1:2::7"), 0)
        self.assertGreater(self.refusal(door, "2001:db8:1:2:ffff::8"), 0)
        self.assertGreater(self.refusal(door, "2001:db8:1:2::7%eth0"), 0)
        self.assertEqual(self.refusal(door, "2001:db8:1:3::7"), 0)
        self.assertEqual(self.refusal(door, "no:address"), 0)

    def test_given_back(self) -> None:
        """A visitor that is given back leaves its place to another, and never more than that."""
        door = self.make(2)
        door.give_back("192.0.2.7")
        self.assertEqual([self.refusal(door, "192.0.2.7") > 0 for _ in range(3)], [False, False, True])
        door.give_back("192.0.2.7")
        self.assertEqual([self.refusal(door, "192.0.2.7") > 0 for _ in range(2)], [False, True])
        door.give_back("")

    def test_bound(self) -> None:
        """The address unused for longest is forgotten; one that is refused again and again stays."""
        with patch.object(newcomers, "MAX_ADDRESSES", 3):
            door = self.make(1)
            for address in ("a", "b", "c", "a", "d"):
                self.refusal(door, address)
            self.assertEqual(list(door._buckets), ["c", "a", "d"])
            self.assertGreater(self.refusal(door, "a"), 0)
            self.assertEqual(self.refusal(door, "b"), 0)

    def test_names(self) -> None:
        """A name is one that was drawn, chosen by the node, and the token is for it."""
        drawn: list[str] = []

        def choose(draw: object) -> str:
            assert callable(draw)
            drawn.extend(draw() for _ in range(3))
            return drawn[1]

        name, token, _ = Newcomers(1, self.clock.seconds, choose).welcome("192.0.2.7")
        self.assertEqual((name, token.partition(".")[0], len(set(drawn))), (drawn[1], drawn[1], 3))
