"""Slots: who moves when nodes come and go, how even they are, and how a hint is read."""

from __future__ import annotations

import secrets
import zlib
from collections import Counter
from hashlib import sha256
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.gateway.slots import SLOTS, Slots, hint_of, name_at_home, slot_of

NAMES = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789_.:-", min_size=1, max_size=12)
TABLES = st.sets(NAMES, min_size=1, max_size=16)
IDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)
FIXED = {"alice": "n1", "bob": "n2", "小明": "n3", "мария": "n3", "a b&c": "n1"}
FEW = settings(max_examples=25, deadline=None)


class SlotTests(unittest.TestCase):
    def test_rule(self) -> None:
        """The rule as the documentation has it, computed by hand."""
        names = ["east", "west", "north"]
        slots = Slots(names)
        for user in ("alice", "小明", "Ярослав"):
            slot = zlib.crc32(user.encode("utf-8")) % 1024
            ranked = sorted(names, key=lambda name: sha256(f"{slot}:{name}".encode()).hexdigest())
            self.assertEqual(slot_of(user), slot)
            self.assertEqual((slots.first[slot], slots.second[slot]), (ranked[-1], ranked[-2]))
            self.assertEqual(slots.home(user), ranked[-1])

    def test_fixed(self) -> None:
        """A new version must not move users: these homes stay."""
        slots = Slots(["n1", "n2", "n3"])
        homes = {user: slots.home(user) for user in ("alice", "bob", "小明", "мария", "a b&c")}
        self.assertEqual(homes, FIXED)

    def test_without_nodes(self) -> None:
        self.assertIsNone(Slots([]).home("alice"))
        alone = Slots(["n1"])
        self.assertEqual((alone.home("alice"), alone.second), ("n1", ()))

    @FEW
    @given(TABLES)
    def test_order_does_not_matter(self, names: set[str]) -> None:
        one, other = Slots(sorted(names)), Slots(sorted(names, reverse=True))
        self.assertEqual((one.first, one.second), (other.first, other.second))
        self.assertEqual(len(one.first), SLOTS)

    @FEW
    @given(TABLES, st.data())
    def test_only_the_dead_nodes_users_move(self, names: set[str], data: st.DataObject) -> None:
        """They move to their second choice, once; everybody else stays. First and second differ."""
        before = Slots(names)
        dead = data.draw(st.sampled_from(sorted(names)))
        after = Slots(names - {dead})
        if not after.first:
            return
        for slot in range(SLOTS):
            self.assertNotEqual(before.first[slot], before.second[slot])
            moved = before.first[slot] == dead
            expected = before.second[slot] if moved else before.first[slot]
            self.assertEqual(after.first[slot], expected)

    @FEW
    @given(TABLES, NAMES)
    def test_a_new_node_takes_users_for_itself_only(self, names: set[str], new: str) -> None:
        before, after = Slots(names), Slots(names | {new})
        moved = {after.first[slot] for slot in range(SLOTS) if before.first[slot] != after.first[slot]}
        self.assertLessEqual(moved, {new})

    @FEW
    @given(st.integers(2, 16), st.integers(0, 10**6))
    def test_balance(self, count: int, seed: int) -> None:
        """Each node gets its share of the slots, within six standard deviations of chance."""
        slots = Slots(f"node-{seed}-{number}" for number in range(count))
        for choices in (slots.first, slots.second):
            share = SLOTS / count
            allowed = 6 * (share * (1 - 1 / count)) ** 0.5
            counts = Counter(choices)
            self.assertEqual(len(counts), count)
            for name, got in counts.items():
                self.assertLess(abs(got - share), allowed, f"{name} has {got} of {SLOTS}")

    def test_names_of_visitors(self) -> None:
        """A node draws names that are at home with it; one without slots takes what comes."""

        def draw() -> str:
            return f"visitor-{secrets.token_hex(10)}"

        slots = Slots(f"n{number}" for number in range(8))
        for name in slots.names:
            self.assertEqual(slots.home(name_at_home(slots, name, draw)), name)
        self.assertTrue(name_at_home(slots, "drained", draw).startswith("visitor-"))
        self.assertTrue(name_at_home(Slots([]), "n1", draw).startswith("visitor-"))


class HintTests(unittest.TestCase):
    @FEW
    @given(IDS)
    def test_round_trip(self, user: str) -> None:
        for safe in ("", "!'()*~"):  # Python's quote, JavaScript's encodeURIComponent
            self.assertEqual(hint_of(f"a=b&user={quote(user, safe=safe)}&c"), user)

    def test_none(self) -> None:
        for query in ("", "user", "user=", "users=alice", "user=%", "user=%4", "user=%zz", "user=%ff"):
            self.assertIsNone(hint_of(query), query)

    def test_as_haproxy_reads(self) -> None:
        """The first one counts; what divides parameters ends it; + is a plus. (test_haproxy asks HAProxy.)"""
        self.assertEqual(hint_of("user=a&user=b"), "a")
        self.assertEqual(hint_of("user=a+b"), "a+b")
        self.assertEqual(hint_of("user=a?b+c"), "a")
        self.assertEqual(hint_of("x;user=a;b"), "a")
