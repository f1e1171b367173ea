"""The drill's checkers of state and of the list find each kind of broken promise; a good run passes."""

from __future__ import annotations

from typing import Any

from twisted.trial import unittest

from tests.tools.drill.checker import check
from tests.tools.drill.history import (
    Connection,
    Document,
    Frame,
    History,
    ReadBack,
    StateChange,
    StateDocument,
    StateGot,
)
from tests.tools.drill.model import Model
from tests.tools.drill.state_checker import possible
from tests.tools.drill.talk_checker import check_talks

BOB = {"with": "bob"}
WITH_BOB, WITH_ALICE = "with bob", "with alice"


class Story:
    """alice reads what bob writes, on two devices; bob has one. A step is a second."""

    def __init__(self) -> None:
        self.history = History()
        self.now = 0.0
        self.phone = self.connect("alice", "phone")
        self.tablet = self.connect("alice", "tablet")
        self.bob = self.connect("bob", "phone")
        self.refs = 0

    def step(self) -> float:
        self.now += 1
        return self.now

    def connect(self, user: str, device: str, asked: int | None = None) -> Connection:
        connection = Connection(user, device, "node1", 1, True, None, self.step())
        connection.epoch, connection.connected_at, connection.live = "e", self.now, True
        connection.has_state, connection.state_asked = True, asked
        self.history.connections.append(connection)
        return connection

    def send(self, connection: Connection, **frame: Any) -> StateChange:
        self.refs += 1
        change = StateChange(f"s{self.refs}", connection.user, connection.device, frame, [self.step()])
        self.history.state_changes[change.ref] = change
        return change

    def get(
        self,
        connection: Connection,
        version: int,
        entries: dict[str, Frame],
        change: StateChange | None = None,
    ) -> None:
        at, is_first = self.step(), not connection.states and connection.state_asked is None
        if change is not None:
            change.answered_at = at
        got = StateGot(at, version, entries, is_first, change.ref if change is not None else "")
        connection.states.append(got)

    def store(self, user: str, version: int, entries: dict[str, Frame]) -> None:
        self.history.states[user] = StateDocument(version, entries)

    def good(self) -> StateChange:
        """A mark as it should be."""
        change = self.send(self.phone, type="read", **BOB, upTo="05")
        read = {WITH_BOB: {"read": "05"}}
        self.get(self.phone, 1, read, change)
        self.get(self.tablet, 1, read)
        self.get(self.bob, 1, {WITH_ALICE: {"peerRead": "05"}})
        self.store("alice", 1, read)
        self.store("bob", 1, {WITH_ALICE: {"peerRead": "05"}})
        return change


class StateTests(unittest.TestCase):
    def setUp(self) -> None:
        self.story = Story()

    def assert_found(self, *kinds: str) -> None:
        found = check(self.story.history)
        self.assertEqual({violation.kind for violation in found}, set(kinds), found)

    # nothing to be found

    def test_good(self) -> None:
        """A lower mark changes nothing; an answer names also what has no value."""
        self.story.good()
        lower = self.story.send(self.story.tablet, type="read", **BOB, upTo="03")
        self.story.get(self.story.tablet, 1, {WITH_BOB: {"read": "05"}, "with carol": {}}, lower)
        self.assert_found()

    def test_comes_back(self) -> None:
        """A device goes on from the version that it names."""
        self.story.good()
        self.story.tablet.live = False
        back = self.story.connect("alice", "tablet", asked=1)
        self.story.get(back, 2, {WITH_BOB: {"read": "05", "muted": True}})
        self.story.get(self.story.phone, 2, {WITH_BOB: {"read": "05", "muted": True}})
        self.story.send(self.story.phone, type="settings", **BOB, muted=True)
        self.story.phone.live = False
        self.story.store("alice", 2, {WITH_BOB: {"read": "05", "muted": True}})
        self.assert_found()

    def test_not_kept_together(self) -> None:
        """An entry that has left the document may be missing in a frame with everything."""
        self.story.good()
        again = self.story.connect("alice", "tablet")
        self.story.get(again, 2, {})
        self.story.get(self.story.phone, 2, {})
        self.story.history.states["alice"] = StateDocument(2, {}, {WITH_BOB: {"read": "05"}})
        self.assert_found()

    # broken promises

    def test_falls(self) -> None:
        """One's own mark, another's, and the version."""
        for values, version in (({"read": "04"}, 2), ({"read": "05", "peerRead": "01"}, 2)):
            self.story = Story()
            self.story.good()
            self.story.get(self.story.phone, 2, {WITH_BOB: {"read": "05", "peerRead": "02"}})
            self.story.get(self.story.phone, version, {WITH_BOB: values})
            self.story.history.had_time_for_state = False
            self.assertIn("mark fell", {violation.kind for violation in check(self.story.history)})
        self.story = Story()
        self.story.good()
        self.story.get(self.story.phone, 0, {})
        self.story.phone.live = False
        self.assert_found("mark fell")

    def test_falls_with_everything(self) -> None:
        """A frame with everything lacks the mark."""
        self.story.good()
        again = self.story.connect("alice", "tablet")
        self.story.get(again, 1, {})
        again.live = False
        self.assert_found("mark fell")

    def test_answered_and_gone(self) -> None:
        """Every device, and the answered one at first, has the mark."""
        self.story.good()
        higher = self.story.send(self.story.phone, type="read", marks=[{**BOB, "upTo": "07"}])
        self.story.get(self.story.phone, 1, {}, higher)
        self.assert_found("mark lost")

    def test_stepped_over(self) -> None:
        """A device has the version of a mark, and not the mark."""
        self.story.good()
        self.story.tablet.states[:] = [StateGot(9, 1, {}, True)]
        self.story.tablet.live = False
        self.assert_found("mark lost")

    def test_peer(self) -> None:
        """The other of the pair does not know."""
        self.story.good()
        self.story.bob.states[:] = [StateGot(9, 0, {}, True)]
        del self.story.history.states["bob"]
        self.assert_found("mark lost")

    def test_behind(self) -> None:
        """A device that was there has another version, or the version without a value."""
        self.story.good()
        self.story.tablet.states[:] = [StateGot(9, 0, {}, True)]
        self.assert_found("behind")
        self.story.history.had_time_for_state = False
        self.assert_found()
        self.story = Story()
        self.story.good()
        self.story.store("alice", 1, {WITH_BOB: {"read": "05", "pinned": True}})
        self.assert_found("behind")

    def test_not_everything(self) -> None:
        """A device that names no version gets everything."""
        self.story.good()
        self.story.tablet.states[:] = [self.story.tablet.states[0]._replace(all=False)]
        self.assert_found("behind")

    def test_invented(self) -> None:
        self.story.good().frame["upTo"] = "04"  # type: ignore[index]
        self.assert_found("strange mark")

    def test_refused(self) -> None:
        """Only a room may be one that the user has left."""
        self.story.good()
        change = self.story.send(self.story.phone, type="read", room="r-1", upTo="07")
        change.code = "not_found"
        self.assert_found()
        change.frame = {"type": "read", **BOB, "upTo": "07"}
        self.assert_found("refused")

    def test_unanswered(self) -> None:
        self.story.good()
        self.story.send(self.story.phone, type="read", **BOB, upTo="04")
        self.assert_found("unanswered")
        self.story.phone.live = False
        self.assert_found()

    # settings

    def setting(self, value: bool, sent: list[float], answered_at: float | None) -> StateChange:
        return StateChange("", "alice", "phone", {**BOB, "pinned": value}, sent, answered_at)

    def test_possible(self) -> None:
        """A setting that was answered before another was sent is gone, unless it was sent again."""
        self.assertEqual(possible([], "pinned"), {False})
        self.assertEqual(possible([self.setting(True, [1], None)], "pinned"), {True, False})
        self.assertEqual(possible([self.setting(True, [1], 2)], "pinned"), {True})
        after = self.setting(False, [3], 4)
        self.assertEqual(possible([self.setting(True, [1], 2), after], "pinned"), {False})
        for maybe in (self.setting(True, [1], 3.5), self.setting(True, [1, 2], 2.5)):
            self.assertEqual(possible([maybe, after], "pinned"), {True, False})

    def test_replaced(self) -> None:
        """The setting at the end is one that another had replaced."""
        self.story.good()
        stored = {WITH_BOB: {"read": "05", "pinned": True}}
        for version, pinned in ((2, True), (3, False)):
            change = self.story.send(self.story.phone, type="settings", **BOB, pinned=pinned)
            self.story.get(self.story.phone, version, stored, change)
        self.story.get(self.story.tablet, 3, stored)
        self.story.store("alice", 3, stored)
        self.assert_found("mark lost")


class TalkTests(unittest.TestCase):
    """carol and alice write to one another, and carol to a list."""

    def setUp(self) -> None:
        self.history = History()
        written = (("carol", "alice"), ("alice", "carol"), *[("carol", "alice")] * 2, ("carol", "alice bob"))
        for number, (user, others) in enumerate(written):
            people = frozenset(others.split())
            self.history.archive.append(
                Document(f"{number:02}", f"k{number}", user, people, people | {user}, "hello")
            )
        self.history.states["alice"] = StateDocument(3, {"with carol": {"read": "02", "pinned": True}})
        self.list = {"group": ["bob", "carol"], "at": "04", "unread": 1, "muted": False}
        self.pair = {"with": "carol", "at": "03", "unread": 1, "read": "02", "pinned": True}

    def found(self, *talks: Frame) -> list[str]:
        self.history.read_back["alice"] = ReadBack(talks=list(talks))
        kinds: list[str] = []
        check_talks(self.history, Model(self.history), lambda kind, what: kinds.append(kind))
        return kinds

    def test_good(self) -> None:
        self.assertEqual(self.found(self.list, self.pair), [])

    def test_own_message(self) -> None:
        """One's own newest message is a mark; later ones of others count."""
        self.history.states["alice"] = StateDocument(3, {})
        self.assertEqual(self.found(self.list, {"with": "carol", "at": "03", "unread": 2}), [])

    def test_wrong(self) -> None:
        """A count, a mark, a place, a conversation that is missing or that there is not, another order."""
        for talks in (
            (self.list, {**self.pair, "unread": 2}),
            (self.list, {**self.pair, "read": "01"}),
            (self.list, {**self.pair, "at": "02"}),
            (self.list,),
            (self.list, self.pair, {"with": "dave", "at": "01", "unread": 0}),
            (self.pair, self.list),
        ):
            self.assertEqual(self.found(*talks), ["badge"], talks)

    def test_not_archived_yet(self) -> None:
        self.history.is_archived = False
        self.assertEqual(self.found(), [])

    def test_room_without_messages(self) -> None:
        self.assertEqual(self.found(self.list, self.pair, {"room": "r-1", "at": "01", "unread": 0}), [])
