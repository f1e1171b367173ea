"""Typing and signals: their form, their rights and prices, and the selectors that others get."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.chat.typing import MAX_CONVERSATIONS, PACE_SECONDS, TypingPace
from imd.contracts.aim import TooMany
from imd.contracts.inbox import Closed, NoRoom, NotAllowed, NotMember
from tests.unit.chat.support import Client, ConnectionTestCase

VISITOR = "visitor-" + "a" * 32
ROOM = "r-" + "0" * 32


class SignalFrameTests(ConnectionTestCase):
    def online(self, user: str, **fields: Any) -> Client:
        """A client with the feature, whose channel can be aimed at."""
        client = self.connected(user, **{"features": ["state"], **fields})
        assert client.connection.session is not None
        self.aims.live.setdefault(user, []).append(client.connection.session.channel)
        return client

    def test_pair(self) -> None:
        """The other gets the sender's id; the sender's other channels get the selector as it was."""
        alice, tablet, bob = self.online("alice"), self.online("alice", device="tablet"), self.online("bob")
        alice.send(type="signal", with_="bob", name="call.offer", data={"sdp": "v=0"})
        got = {"type": "signal", "userId": "alice", "name": "call.offer", "data": {"sdp": "v=0"}}
        self.assertEqual(bob.take(), [{**got, "with": "alice"}])
        self.assertEqual(tablet.take(), [{**got, "with": "bob"}])
        alice.send(type="typing", with_="bob")
        self.assertEqual(bob.take(), [{"type": "typing", "userId": "alice", "with": "alice"}])
        self.assertEqual((alice.take(), tablet.take()), ([], []))

    def test_selectors(self) -> None:
        """Each receiver's own: of a list all others, of a room its id; a visitor gets none."""
        alice, bob, carol = self.online("alice"), self.online("bob"), self.online("carol")
        alice.send(type="typing", group=["carol", "bob"])
        self.assertEqual(bob.take()[0]["group"], ["alice", "carol"])
        self.assertEqual(carol.take()[0]["group"], ["alice", "bob"])
        self.rooms.sizes[ROOM] = 3
        alice.send(type="signal", room=ROOM, name="n")
        self.assertEqual(bob.take(), [{"type": "signal", "userId": "alice", "room": ROOM, "name": "n"}])
        self.aims.live[VISITOR] = self.aims.live["carol"]
        carol.take()
        alice.send(type="typing", with_=VISITOR)
        self.assertEqual(carol.take(), [{"type": "typing", "userId": "alice"}])

    def test_typing_pace(self) -> None:
        """One for a conversation and two seconds passes; the others are dropped without an answer."""
        alice, bob = self.online("alice"), self.online("bob")
        self.online("carol")
        for _ in range(3):
            alice.send(type="typing", with_="bob")
        alice.send(type="typing", with_="carol")
        self.assertEqual((len(bob.take()), len(self.aims.aimed)), (1, 2))
        self.clock.advance(PACE_SECONDS)
        alice.send(type="typing", with_="bob")
        self.assertEqual((len(bob.take()), alice.take()), (1, []))

    def test_typing_is_not_answered(self) -> None:
        """No right, no store, no rate: silence. A bad selector is an error, as in any frame."""
        alice = self.online("alice")
        for refusal in (NotMember(), Closed(), NoRoom(), TooMany(), NotAllowed("no")):
            self.aims.refusal = refusal
            alice.send(type="typing", room=ROOM)
            self.clock.advance(PACE_SECONDS)
        self.aims.down = True
        alice.send(type="typing", with_="bob")
        self.assertEqual(alice.take(), [])
        alice.send(type="typing", ref="t")
        [error] = alice.take()
        self.assertEqual((error["code"], error["ref"]), ("invalid_message", "t"))
        alice.send(type="typing", with_=5)
        self.assert_error(alice, "bad_frame")

    def test_signal_refused(self) -> None:
        """Each refusal has its code, and the frame's ref."""
        alice = self.online("alice")
        self.rooms.sizes[ROOM] = 3
        for refusal, code in (
            (NotMember(), "not_found"),
            (Closed(), "conflict"),
            (NoRoom(), "unavailable"),
            (TooMany(), "too_large"),
            (NotAllowed("posting"), "forbidden"),
        ):
            self.aims.refusal = refusal
            self.rooms.sizes[ROOM] = 3
            alice.send(type="signal", ref="s-1", room=ROOM, name="n")
            [error] = alice.take()
            self.assertEqual((error["code"], error["ref"]), (code, "s-1"))
        self.aims.refusal, self.aims.down = None, True
        alice.send(type="signal", ref="s-1", with_="bob", name="n")
        self.assert_error(alice, "unavailable")

    def test_signal_form(self) -> None:
        """A name of 1 to 64 characters, an object as data, and no list."""
        alice = self.online("alice")
        for code, fields in (
            ("invalid_message", {"with_": "bob"}),
            ("invalid_message", {"with_": "bob", "name": ""}),
            ("invalid_message", {"with_": "bob", "name": "n" * 65}),
            ("invalid_message", {"name": "n"}),
            ("invalid_message", {"group": ["bob", "carol"], "name": "n"}),
            ("bad_frame", {"with_": "bob", "name": "n", "data": []}),
            ("too_large", {"with_": "bob", "name": "n", "data": {"a": "x" * 5000}}),
        ):
            alice.send(type="signal", **fields)
            self.assert_error(alice, code)
        self.assertEqual(self.aims.aimed, [])

    def test_prices(self) -> None:
        """Ten of typing cost as much as a signal; past the rate typing is dropped, signals are refused."""
        alice, bob = self.online("alice"), self.online("bob")
        tokens = int(alice.connection.bucket.take(0.0) or self.limits.burst)
        for _ in range(tokens - 1):
            alice.send(type="signal", with_="bob", name="n")
        self.assertEqual(len(bob.take()), tokens - 1)
        for number in range(12):
            alice.send(type="typing", with_=f"u{number}")
        self.assertEqual(len(self.aims.aimed), tokens - 1 + 10)
        alice.send(type="signal", with_="bob", name="n")
        self.assert_error(alice, "rate_limited")

    def test_device_without_the_feature(self) -> None:
        """It may send, and gets nothing."""
        old, bob = self.online("alice", features=["events"]), self.online("bob")
        old.send(type="signal", with_="bob", name="n")
        self.assertEqual(len(bob.take()), 1)
        bob.send(type="signal", with_="alice", name="n")
        self.assertEqual(old.take(), [])

    def test_cold_room(self) -> None:
        """A room that the node does not know is loaded first; one that is none is `not_found`."""
        alice, bob = self.online("alice"), self.online("bob")
        alice.send(type="signal", room=ROOM, name="n")
        self.assertEqual((self.rooms.asked[-1][0], bob.take()), (("warm", ROOM), []))
        self.rooms.answer(True)
        self.assertEqual(len(bob.take()), 1)
        alice.send(type="signal", room="r-x", name="n")
        self.assert_error(alice, "not_found")

    def test_level_1(self) -> None:
        """A cluster of level 1 does not know these frames."""
        self.level = 1
        alice = self.connected("alice")
        for kind in ("typing", "signal"):
            alice.send(type=kind, with_="bob")
            self.assert_error(alice, "unknown_type")


class TypingPaceTests(unittest.TestCase):
    def test_bound(self) -> None:
        """Past so many conversations the oldest is forgotten; an ended connection leaves nothing."""
        pace = TypingPace(Clock().seconds)
        for number in range(MAX_CONVERSATIONS + 1):
            self.assertTrue(pace.passes("c-1", str(number)))
        self.assertTrue(pace.passes("c-1", "0"))
        self.assertFalse(pace.passes("c-1", str(MAX_CONVERSATIONS)))
        pace.ended("c-1")
        self.assertTrue(pace.passes("c-1", str(MAX_CONVERSATIONS)))
