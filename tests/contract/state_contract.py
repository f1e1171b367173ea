"""The contract of a StateStore: marks and settings, versions, and who may see whose marks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from imd.contracts.state import MAX_PINNED, Changes, Entry, Mark, Setting, StateStore
from imd.contracts.state_rules import pair_id
from imd.protocol.errors import TOO_LARGE, Refused
from imd.protocol.message import is_visitor_id
from imd.protocol.selector import Selector


def message_id(n: int) -> str:
    return f"{n:028x}"


class StateHarness:
    """`make_states` gives a started store of no state."""

    assertEqual: Any
    assertIsInstance: Any
    assertIn: Any
    assertGreater: Any
    assertLessEqual: Any

    states: StateStore

    async def make_states(self) -> StateStore:
        raise NotImplementedError

    async def block(self, user: str, other: str, on: bool) -> None:
        """Have one user block another, or no longer."""
        raise NotImplementedError

    async def begin(self) -> None:
        self.states = await self.make_states()
        self.told: list[Changes] = []
        self.states.listen(self.told.extend)

    async def change(
        self, user: str, *marks: Mark, setting: Setting | None = None, since: int | None = None
    ) -> Changes:
        outcome = await self.states.change(user, marks, setting, since)
        self.assertIsInstance(outcome, Changes)
        assert isinstance(outcome, Changes)
        return outcome

    async def read(self, user: str, other: str, n: int, **more: Any) -> Changes:
        selector = Selector() if is_visitor_id(user) else Selector(with_=other)
        return await self.change(user, Mark(pair_id(user, other), selector, message_id(n), other), **more)

    async def set(self, user: str, other: str = "", *, since: int | None = None, **values: Any) -> Changes:
        named = {"conversation": pair_id(user, other), "selector": Selector(with_=other)} if other else {}
        return await self.change(user, setting=Setting(**named, **values), since=since)

    async def all_of(self, user: str) -> dict[str, Entry]:
        """By the text of the selector."""
        changes = await self.states.since(user, None)
        self.assertEqual(changes.all, True)
        return {_name(entry.selector): entry for entry in changes.entries}

    async def seen(self, user: str, other: str) -> str:
        """The mark of `other` that `user` is shown."""
        entry = (await self.all_of(user)).get(other if not is_visitor_id(user) else "")
        return entry.peer if entry is not None else ""


class StateContract(StateHarness):
    """Marks, receipts, settings, versions."""

    # marks

    async def test_nothing(self) -> None:
        """A user without state has version 0."""
        await self.begin()
        self.assertEqual(await self.states.versions(["alice", "bob"]), {"alice": 0, "bob": 0})
        self.assertEqual(await self.states.since("alice", 0), Changes("alice", 0, 0))
        self.assertEqual(await self.states.since("alice", None), Changes("alice", 0, 0, (), True, True))
        self.assertEqual(await self.states.since("alice", 7), Changes("alice", 0, 0, (), True, True))
        self.assertEqual(await self.states.entries("alice", [pair_id("alice", "bob")]), {})
        self.assertEqual(await self.states.cleared("alice"), {})

    async def test_marks_only_rise(self) -> None:
        """A lower mark changes nothing; the answer has the conversation as it is."""
        await self.begin()
        first = await self.read("alice", "bob", 5)
        self.assertEqual((first.version, [entry.read for entry in first.entries]), (1, [message_id(5)]))
        again = await self.read("alice", "bob", 4)
        self.assertEqual((again.version, again.entries), (1, first.entries))
        self.assertEqual((await self.read("alice", "bob", 6)).version, 2)

    async def test_several_marks(self) -> None:
        """However many marks are in a frame, the version rises by 1."""
        await self.begin()
        marks = [Mark(f"{n:032x}", Selector(room=f"r-{n:032x}"), message_id(n)) for n in range(1, 201)]
        changes = await self.change("alice", *marks)
        self.assertEqual((changes.version, len(changes.entries)), (1, 200))
        more = Mark(marks[0].conversation, marks[0].selector, message_id(300))
        changes = await self.change("alice", more, marks[1])
        self.assertEqual(changes.version, 2)
        self.assertEqual((await self.states.since("alice", 1)).entries, changes.entries[:1])

    async def test_peers(self) -> None:
        """The other of a pair is shown the mark, which raises its version, too; so are visitor and agent."""
        await self.begin()
        for one, other in (("alice", "bob"), ("anna", "visitor-1"), ("visitor-1", "anna")):
            before = (await self.states.versions([other]))[other]
            await self.read(one, other, 5)
            self.assertEqual(await self.seen(other, one), message_id(5))
            self.assertEqual((await self.states.versions([other]))[other], before + 1)
            await self.read(one, other, 4)
            self.assertEqual(await self.seen(other, one), message_id(5))
        self.assertEqual((await self.all_of("alice"))["bob"].peer, "")

    async def test_marks_of_lists_and_rooms(self) -> None:
        """Nobody else is shown them."""
        await self.begin()
        await self.change("alice", Mark("0" * 32, Selector(group=("bob", "carol")), message_id(1)))
        self.assertEqual(await self.states.versions(["bob", "carol"]), {"bob": 0, "carol": 0})
        entries = await self.all_of("alice")
        self.assertEqual([entry.selector.group for entry in entries.values()], [("bob", "carol")])

    async def test_oneself(self) -> None:
        await self.begin()
        await self.change("alice", Mark(pair_id("alice", "alice"), Selector(with_="alice"), message_id(1)))
        self.assertEqual(await self.states.versions(["alice"]), {"alice": 1})

    async def test_strange_names(self) -> None:
        """Names of users may hold what separates or quotes elsewhere."""
        await self.begin()
        for user in ("a.b", "$a", "a b", "ä%41", "{x}", "'"):
            await self.read(user, "c.$d", 5)
            self.assertEqual((await self.all_of(user))["c.$d"].read, message_id(5))
            self.assertEqual(await self.seen("c.$d", user), message_id(5))

    # receipts

    async def test_receipts(self) -> None:
        """While either hides receipts neither is shown marks; later, the highest set while both did not."""
        await self.begin()
        for hider in ("alice", "bob"):
            await self.read("alice", "bob", 10 if hider == "alice" else 20)
            await self.read("bob", "alice", 11 if hider == "alice" else 21)
            shown = (await self.seen("alice", "bob"), await self.seen("bob", "alice"))
            changes = await self.set(hider, receipts=False)
            self.assertEqual(changes.receipts, False)
            self.assertEqual((await self.seen("alice", "bob"), await self.seen("bob", "alice")), ("", ""))
            await self.read("alice", "bob", 12 if hider == "alice" else 22)
            await self.set(hider, receipts=True)
            self.assertEqual((await self.seen("alice", "bob"), await self.seen("bob", "alice")), shown)
            # It was set while hidden, and stays so.
            await self.read("alice", "bob", 12 if hider == "alice" else 22)
            self.assertEqual(await self.seen("bob", "alice"), shown[1])
            await self.read("alice", "bob", 13 if hider == "alice" else 23)
            self.assertEqual(await self.seen("bob", "alice"), message_id(13 if hider == "alice" else 23))

    async def test_receipts_again(self) -> None:
        """Devices of both sides get the marks anew when receipts are shown again."""
        await self.begin()
        await self.read("alice", "bob", 5)
        await self.read("bob", "alice", 6)
        await self.set("alice", receipts=False)
        had = await self.states.versions(["alice", "bob"])
        await self.set("alice", receipts=True)
        for user, other, expected in (("alice", "bob", 6), ("bob", "alice", 5)):
            changes = await self.states.since(user, had[user])
            peers = {_name(entry.selector): entry.peer for entry in changes.entries}
            self.assertEqual(peers[other], message_id(expected))
        self.assertEqual((await self.states.since("alice", had["alice"])).all, True)

    async def test_receipts_of_agents(self) -> None:
        """A visitor is not shown the mark of an agent who hides it, though its entry names nobody."""
        await self.begin()
        name = pair_id("visitor-1", "anna")
        await self.read("anna", "visitor-1", 5)
        for again in range(2):
            await self.set("anna", receipts=False)
            self.assertEqual(await self.seen("visitor-1", "anna"), "")
            self.assertEqual((await self.states.entries("visitor-1", [name]))[name].peer, "")
            had = (await self.states.versions(["visitor-1"]))["visitor-1"]
            (entry,) = (await self.read("visitor-1", "anna", 1 + again, since=0)).entries
            self.assertEqual((entry.read, entry.peer), (message_id(1 + again), ""))
            await self.set("anna", receipts=True)
            (entry,) = (await self.states.since("visitor-1", had)).entries
            self.assertEqual((_name(entry.selector), entry.peer), ("", message_id(5)))
        # Another agent, who does not.
        await self.set("anna", receipts=False)
        await self.read("gert", "visitor-1", 7)
        self.assertEqual(await self.seen("visitor-1", "gert"), message_id(7))
        self.assertEqual(
            {entry.peer for one in self.told for entry in one.entries if one.user == "anna"}, {""}
        )

    async def test_receipts_named_again(self) -> None:
        """The answer has the setting, also if it was so before: the first answer may have been lost."""
        await self.begin()
        for since in (None, 0, 1):
            for receipts in (False, True):
                first = await self.set("alice", since=since, receipts=receipts)
                again = await self.set("alice", since=first.version, receipts=receipts)
                self.assertEqual((first.receipts, again.receipts), (receipts, receipts))
                self.assertEqual((again.base, again.version), (first.version, first.version))
        self.assertEqual((await self.read("alice", "bob", 5, since=first.version)).receipts, None)

    async def together(self, *wanted: tuple[str, Any]) -> None:
        """Have marks for bob, or of bob for alice, and receipts changed without waiting in between."""
        asked = [self.states.change("carol", (), Setting(pair_id("carol", "dora"), muted=True), None)]
        for user, what in wanted:
            other = "bob" if user == "alice" else "alice"
            if isinstance(what, bool):
                asked.append(self.states.change(user, (), Setting(receipts=what), None))
            else:
                mark = Mark(pair_id(user, other), Selector(with_=other), message_id(what), other)
                asked.append(self.states.change(user, [mark], None, None))
        for outcome in asked:
            self.assertIsInstance(await outcome, Changes)

    async def test_receipts_and_marks_at_once(self) -> None:
        """A mark is shown by the receipts that come before it, and not by those behind it."""
        await self.begin()
        for hider in ("alice", "bob"):
            start = 10 if hider == "alice" else 20
            await self.together(("alice", start), (hider, False), ("alice", start + 1))
            await self.set(hider, receipts=True)
            self.assertEqual(await self.seen("bob", "alice"), message_id(start))
            await self.set(hider, receipts=False)
            await self.together(("alice", start + 2), (hider, True), ("alice", start + 3))
            self.assertEqual(await self.seen("bob", "alice"), message_id(start + 3))
            await self.together((hider, False), ("alice", start + 4), (hider, True), ("alice", start + 4))
            self.assertEqual(await self.seen("bob", "alice"), message_id(start + 3))

    async def test_blocks(self) -> None:
        """While one of the two blocks the other neither is shown marks, nor any that are set meanwhile."""
        await self.begin()
        await self.read("alice", "bob", 5)
        await self.read("bob", "alice", 6)
        for blocker, other in (("alice", "bob"), ("bob", "alice")):
            await self.block(blocker, "eve", True)
            await self.block(blocker, other, True)
            self.assertEqual([await self.seen("alice", "bob"), await self.seen("bob", "alice")], ["", ""])
            await self.read("alice", "bob", 7)
            await self.block(blocker, other, False)
            had = await self.states.versions(["alice", "bob"])
            await self.states.touch([("alice", "bob")])
            for user, peer, n in (("alice", "bob", 6), ("bob", "alice", 5)):
                (entry,) = (await self.states.since(user, had[user])).entries
                self.assertEqual((entry.selector.with_, entry.peer), (peer, message_id(n)))

    async def test_touch(self) -> None:
        """Both devices get the pair anew, if there is a mark to show."""
        await self.begin()
        await self.read("alice", "bob", 5)
        had = await self.states.versions(["alice", "bob", "carol"])
        await self.states.touch([("alice", "bob"), ("alice", "carol")])
        self.assertEqual(await self.states.versions(["alice", "carol"]), {"alice": 1, "carol": 0})
        changes = await self.states.since("bob", had["bob"])
        self.assertEqual([entry.peer for entry in changes.entries], [message_id(5)])

    # settings

    async def test_settings(self) -> None:
        """Each setting keeps its value until it is set again; setting the same changes nothing."""
        await self.begin()
        for values in (
            {"muted": True},
            {"muted": 1_800_000_000_000},
            {"muted": False},
            {"pinned": True},
            {"pinned": False},
            {"hidden": message_id(5)},
            {"hidden": ""},
            {"cleared": message_id(5)},
            {"marked": True},
            {"marked": False},
            {"muted": True, "pinned": True},
        ):
            before = (await self.states.versions(["alice"]))["alice"]
            changes = await self.set("alice", "bob", **values)
            self.assertEqual(changes.version, before + 1)
            (entry,) = changes.entries
            self.assertEqual({name: getattr(entry, name) for name in values}, values)
            self.assertEqual((await self.all_of("alice"))["bob"], entry)
            self.assertIs(type((await self.all_of("alice"))["bob"].muted), type(entry.muted))
            self.assertEqual((await self.set("alice", "bob", **values)).version, before + 1)

    assertIs: Any

    async def test_cleared_only_rises(self) -> None:
        await self.begin()
        await self.set("alice", "bob", cleared=message_id(5))
        (entry,) = (await self.set("alice", "bob", cleared=message_id(4))).entries
        self.assertEqual(entry.cleared, message_id(5))
        self.assertEqual(await self.states.cleared("alice"), {pair_id("alice", "bob"): message_id(5)})

    async def test_marked(self) -> None:
        """A mark ends `marked`, also one that does not rise."""
        await self.begin()
        await self.read("alice", "bob", 5)
        await self.set("alice", "bob", marked=True)
        (entry,) = (await self.read("alice", "bob", 4)).entries
        self.assertEqual((entry.read, entry.marked), (message_id(5), False))

    async def test_pins(self) -> None:
        """A pin too many is refused, and nothing is set. One that is taken away makes room."""
        await self.begin()
        for n in range(MAX_PINNED):
            await self.set("alice", f"user-{n}", pinned=True)
        await self.set("alice", "user-0", pinned=True)
        setting = Setting(pair_id("alice", "bob"), Selector(with_="bob"), pinned=True, muted=True)
        refused = await self.states.change("alice", (), setting, None)
        self.assertIsInstance(refused, Refused)
        assert isinstance(refused, Refused)
        self.assertEqual(refused.code, TOO_LARGE)
        self.assertEqual("bob" in await self.all_of("alice"), False)
        await self.set("alice", "user-0", pinned=False)
        await self.set("alice", "bob", pinned=True)

    # versions

    async def test_since(self) -> None:
        """The entries that changed later, and whether receipts did."""
        await self.begin()
        for n, other in enumerate(("bob", "carol", "dora"), 1):
            await self.read("alice", other, n)
        names = [_name(entry.selector) for entry in (await self.states.since("alice", 1)).entries]
        self.assertEqual(sorted(names), ["carol", "dora"])
        self.assertEqual((await self.states.since("alice", 3)).entries, ())
        changes = await self.set("alice", since=2, receipts=False)
        self.assertEqual((changes.version, changes.base, changes.receipts, changes.all), (4, 2, False, False))
        self.assertEqual([_name(entry.selector) for entry in changes.entries], ["dora"])
        self.assertEqual((await self.states.since("alice", 5)).all, True)

    async def test_entries(self) -> None:
        """Only those that are there, with the marks of peers that may be shown."""
        await self.begin()
        await self.read("alice", "bob", 5)
        conversations = [pair_id("alice", "bob"), pair_id("alice", "carol")]
        found = await self.states.entries("bob", conversations)
        self.assertEqual(
            {name: entry.peer for name, entry in found.items()}, {conversations[0]: message_id(5)}
        )
        await self.set("alice", receipts=False)
        found = await self.states.entries("bob", conversations)
        self.assertEqual(found[conversations[0]].peer, "")

    async def test_told(self) -> None:
        """Changes are told for the user and for peers, from version to version; repetitions are not."""
        await self.begin()
        await self.read("alice", "bob", 5)
        await self.read("alice", "bob", 5)
        await self.set("bob", "alice", muted=True)
        steps = sorted((one.user, one.base, one.version) for one in self.told)
        self.assertEqual(steps, [("alice", 0, 1), ("bob", 0, 1), ("bob", 1, 2)])

    async def test_told_no_more_than_may_be_seen(self) -> None:
        """Changes that are told live hide marks of peers like all others."""
        await self.begin()
        await self.read("alice", "bob", 5)
        await self.read("bob", "alice", 6)
        for hider in ("alice", "bob"):
            await self.set(hider, receipts=False)
            self.told.clear()
            for user, other in (("alice", "bob"), ("bob", "alice")):
                await self.set(user, other, muted=hider == "alice")
            await self.states.touch([("alice", "bob")])
            self.assertEqual(len([one for one in self.told if one.entries]), 4)
            self.assertEqual({entry.peer for one in self.told for entry in one.entries}, {""})
            await self.set(hider, receipts=True)

    async def test_devices_agree(self) -> None:
        """At random: a device that takes changes as told, or asks, has all that a new one gets."""
        await self.begin()
        chance = random.Random(5)
        users = ["alice", "bob", "carol"]
        devices = {user: _Device() for user in users}
        for n in range(1, 60):
            user, other = chance.sample(users, 2)
            kind = chance.randrange(6)
            if kind < 3:
                await self.read(user, other, chance.randrange(n))
            elif kind == 3:
                await self.set(user, other, muted=chance.random() < 0.5, marked=chance.random() < 0.5)
            elif kind == 4:
                await self.set(user, receipts=chance.random() < 0.5)
            else:
                await self.set(user, other, hidden=message_id(n) if n % 2 else "")
            told, self.told[:] = list(self.told), []
            for one in told:
                device = devices[one.user]
                # Some hints are lost.
                if chance.random() < 0.8 and one.version > device.version:
                    if one.base > device.version:
                        one = await self.states.since(one.user, device.version)
                    device.take(one)
        for user, device in devices.items():
            device.take(await self.states.since(user, device.version))
            new = await self.states.since(user, None)
            self.assertEqual(device.version, new.version)
            for entry in new.entries:
                had = device.entries[entry.conversation]
                self.assertGreater(had.peer + "~", entry.peer)
                self.assertEqual(_but_peer(had), _but_peer(entry))
            self.assertEqual(len(device.entries), len(new.entries))


class _Device:
    def __init__(self) -> None:
        self.version = 0
        self.entries: dict[str, Entry] = {}

    def take(self, changes: Changes) -> None:
        if changes.all:
            self.entries.clear()
        self.version = changes.version
        for entry in changes.entries:
            self.entries[entry.conversation] = entry


def _but_peer(entry: Entry) -> Sequence[Any]:
    return (entry.v, entry.read, entry.muted, entry.pinned, entry.hidden, entry.cleared, entry.marked)


def _name(selector: Selector) -> str:
    return selector.with_ or selector.room or ",".join(selector.group)
