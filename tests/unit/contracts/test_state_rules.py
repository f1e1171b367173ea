"""Marks and settings make new states of states; a device that takes changes has all of them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial import unittest

from imd.contracts import state_rules
from imd.contracts.state import MAX_PINNED, Changes, Entry, Mark, Setting, UserState
from imd.contracts.state_rules import CUT_AT, CUT_TO
from imd.protocol.errors import Refused
from imd.protocol.selector import Selector

OTHERS = ("bob", "carol", "dora")
ids = st.integers(0, 5).map("{:028x}".format)
others = st.sampled_from(OTHERS)


def conversation(other: str) -> str:
    return state_rules.pair_id("alice", other)


def mark(other: str, up_to: str) -> Mark:
    return Mark(conversation(other), Selector(with_=other), up_to, other)


marks = st.lists(st.builds(mark, others, ids), max_size=3)
values = st.fixed_dictionaries(
    {},
    optional={
        "muted": st.booleans() | st.integers(2, 9),
        "pinned": st.booleans(),
        "hidden": ids | st.just(""),
        "cleared": ids,
        "marked": st.booleans(),
    },
)
settings = st.builds(
    lambda other, given: Setting(conversation(other), Selector(with_=other), **given), others, values
)
own_settings = st.builds(lambda receipts: Setting(receipts=receipts), st.booleans())
steps = st.lists(
    st.tuples(marks, st.none() | settings | own_settings)
    | st.tuples(st.just("peer"), st.tuples(others, ids))
    | st.tuples(st.just("touch"), others),
    max_size=12,
)


def step(state: UserState, what: Any, more: Any) -> UserState:
    if what == "peer":
        other, up_to = more
        return state_rules.take_peer(state, other, conversation(other), up_to).state
    if what == "touch":
        return state_rules.touch(state, [conversation(more)]).state
    return state_rules.decide(state, what, more).state


class PropertyTests(unittest.TestCase):
    @given(steps)
    def test_versions(self, story: Any) -> None:
        """Each change raises the version by 1, and nothing else does; marks never fall."""
        state = UserState("alice")
        for what, more in story:
            after = step(state, what, more)
            self.assertEqual(after.version, state.version + (after is not state))
            for name, entry in after.entries.items():
                before = state.entries.get(name)
                self.assertEqual(entry.v == after.version and after is not state, entry is not before)
                if before is not None:
                    self.assertGreaterEqual(entry.read, before.read)
                    self.assertGreaterEqual(entry.peer, before.peer)
                    self.assertGreaterEqual(entry.cleared, before.cleared)
            self.assertEqual(step(after, what, more) is after or what == "touch", True)
            state = after
        self.assertEqual(state.pins, sum(entry.pinned for entry in state.entries.values()))
        self.assertEqual(state.weight, len(state.entries))

    @given(steps, st.lists(st.booleans(), min_size=12, max_size=12))
    def test_devices(self, story: Any, told: list[bool]) -> None:
        """A device that asks now and then has what one has that gets everything."""
        state = UserState("alice")
        version, had = 0, dict[str, Entry]()
        for (what, more), asks in zip(story, told, strict=False):
            state = step(state, what, more)
            if asks:
                version = self.take(state_rules.since(state, version), had)
        self.take(state_rules.since(state, version), had)
        new: dict[str, Entry] = {}
        self.take(state_rules.since(state, None), new)
        self.assertEqual(had, new)

    @given(steps)
    def test_live(self, story: Any) -> None:
        """So has one that takes what is told, and asks if it cannot."""
        state = UserState("alice")
        version, had = 0, dict[str, Entry]()
        for what, more in story:
            after = step(state, what, more)
            if after is not state:
                changed = tuple(entry for entry in after.entries.values() if entry.v > state.version)
                changes = state_rules.told(state, state_rules.Decided(after, changed))
                version = self.take(
                    changes if changes.base <= version else state_rules.since(after, version), had
                )
            state = after
        self.assertEqual((version, had), (state.version, dict(state.entries)))

    def take(self, changes: Changes, had: dict[str, Entry]) -> int:
        if changes.all:
            had.clear()
        had.update({entry.conversation: entry for entry in changes.entries})
        return changes.version

    @given(marks, settings, steps)
    def test_part_of_a_state(self, some: list[Mark], setting: Setting, story: Any) -> None:
        """A state that holds no more than the named entries becomes what the whole one becomes."""
        whole = UserState("alice")
        for what, more in story:
            whole = step(whole, what, more)
        named = state_rules.named(some, setting)
        part = replace(whole, entries={name: whole.entries[name] for name in named if name in whole.entries})
        one, other = (state_rules.decide(state, some, setting) for state in (whole, part))
        self.assertEqual((one.changed, one.raised), (other.changed, other.raised))
        self.assertEqual({**whole.entries, **other.state.entries}, dict(one.state.entries))
        self.assertEqual((one.state.version, one.state.pins), (other.state.version, other.state.pins))


class RuleTests(unittest.TestCase):
    def test_pins(self) -> None:
        """The limit counts all entries, named or not."""
        state = UserState("alice", 1, pins=MAX_PINNED, weight=MAX_PINNED)
        pin = Setting(conversation("bob"), Selector(with_="bob"), pinned=True)
        self.assertRaises(Refused, state_rules.decide, state, (), pin)
        self.assertEqual(
            state_rules.decide(replace(state, pins=MAX_PINNED - 1), (), pin).state.pins, MAX_PINNED
        )

    def test_surplus(self) -> None:
        """The entries that were changed longest ago leave; pinned, muted and marked ones stay."""
        entries = {f"{n}": Entry(f"{n}", Selector(with_="x"), n) for n in range(CUT_AT)}
        state = UserState("alice", CUT_AT, entries=entries)
        self.assertEqual(state_rules.surplus(state), [])
        kept = {"0": replace(entries["0"], pinned=True), "1": replace(entries["1"], muted=5)}
        more = {**entries, **kept, "new": Entry("new", Selector(with_="x"), CUT_AT)}
        leaving = state_rules.surplus(replace(state, entries=more))
        self.assertEqual([entry.v for entry in leaving], list(range(2, CUT_AT - CUT_TO + 3)))

    def test_long_lists_weigh_more(self) -> None:
        names = tuple(f"u{n}" for n in range(499))
        entries = {f"{n}": Entry(f"{n}", Selector(group=names), n) for n in range(60)}
        leaving = state_rules.surplus(UserState("alice", 60, entries=entries))
        self.assertEqual(len(entries) - len(leaving), CUT_TO // 32)

    def test_kept(self) -> None:
        """Everything means the entries that were changed last, and all that are pinned or muted."""
        entries = {
            f"{n}": Entry(f"{n}", Selector(with_="x"), n, pinned=n == 0, muted=n == 1) for n in range(1100)
        }
        changes = state_rules.since(UserState("alice", 1100, entries=entries), None)
        self.assertEqual(sorted(entry.v for entry in changes.entries), [0, 1, *range(100, 1100)])

    def test_floor(self) -> None:
        """A device from before the floor gets everything."""
        state = UserState("alice", 7, floor=5)
        self.assertEqual([state_rules.since(state, n).all for n in (4, 5, 7, 8)], [True, False, False, True])
