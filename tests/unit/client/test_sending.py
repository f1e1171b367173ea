"""The outbox beyond what the scenarios tell: replies, other users, frames that are too large."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial import unittest

from imd.client import SqliteStore, events
from tests.unit.client.support import Pipe


class OutboxTests(unittest.TestCase):
    def test_unsendable(self) -> None:
        """`send` refuses a message that no node would take; too large a frame is never sent."""
        pipe = Pipe()
        pipe.open(limits={"messageBytes": 1000})
        pipe.take()
        self.assertRaises(ValueError, pipe.program.send, "", to="bob")
        self.assertRaises(ValueError, pipe.program.send, "x")
        self.assertRaises(ValueError, pipe.program.send, "\ud800", to="bob")
        pipe.program.send("x" * 75_000, to="bob")
        self.assertEqual(pipe.take(), [])
        self.assertEqual(pipe.events(events.Failed)[0].refusal.code, "too_large")

    def test_unreadable(self) -> None:
        """The error at the call names the field, and nothing enters the outbox."""
        pipe = Pipe()
        program = pipe.program
        pipe.open()
        pipe.take()
        nested: dict[str, object] = {}
        for _ in range(5000):
            nested = {"a": nested}
        circle: dict[str, object] = {}
        circle["a"] = circle
        cases: list[tuple[str, Callable[[], object]]] = [
            ("msg", lambda: program.send("x\ud83d", to="bob")),
            ("to", lambda: program.send("x", to="\ud800")),
            ("group", lambda: program.send("x", group=["bob", "\ud800"])),
            ("mentions", lambda: program.send("x", to="bob", mentions=["\ud800"])),
            ("clientMsgId", lambda: program.send("x", to="bob", client_msg_id="\ud800")),
            ("clientMsgId", lambda: program.send("x", to="bob", client_msg_id="c" * 65)),
            ("data", lambda: program.send("x", to="bob", data={"a": "\ud800"})),
            ("data", lambda: program.send("x", to="bob", data={"a": float("nan")})),
            ("data", lambda: program.send("x", to="bob", data={"a": object()})),
            ("data", lambda: program.send("x", to="bob", data=nested)),
            ("data", lambda: program.send("x", to="bob", data=circle)),
            ("data", lambda: program.rooms.set("r-1", data=[1])),  # type: ignore[arg-type]
            ("reaction", lambda: program.react("m1", "\ud83d")),
            ("name", lambda: program.rooms.create("\ud800")),
            ("users", lambda: program.rooms.add("r-1", ["\ud800"])),
            ("with", lambda: program.history("\ud800")),
            ("ids", lambda: program.fetch(["\ud800"])),
            ("userId", lambda: program.block("\ud800")),
            ("room", lambda: program.typing(room="\ud800")),
        ]
        for name, call in cases:
            self.assertIn(f"{name}: ", str(self.assertRaises(ValueError, call)))
        self.assertEqual((pipe.take(), program.outbox), ([], ()))
        program.send("x", to="bob", client_msg_id="c" * 64)
        self.assertEqual(len(pipe.take()), 1)

    def test_told_limit(self) -> None:
        """The node's limit of `data` counts as soon as it is known; an entry from before fails by it."""
        pipe = Pipe()
        self.assertRaises(ValueError, pipe.program.send, "x", to="bob", data={"a": "x" * 5000})
        early = pipe.program.send("x", to="bob", data={"a": "x" * 200})
        limits = {"messageBytes": 1000, "dataBytes": 100}
        pipe.open(limits=limits, features=["events"])
        self.assertEqual((early.state, early.error and early.error.code), ("failed", "invalid_message"))
        self.assertRaises(ValueError, pipe.program.send, "x", to="bob", data={"a": "x" * 200})

    def test_reply(self) -> None:
        """A reply goes to the sender or the group; its clientMsgId derives from an unhandled message."""
        pipe = Pipe()
        pipe.open()
        pipe.message(1)
        pipe.message(2, group=["alice", "carol"])
        one, two = pipe.delivered
        replies = [pipe.program.reply(one, "a"), pipe.program.reply(one, "b"), pipe.program.reply(two, "c")]
        self.assertEqual([reply.client_msg_id for reply in replies], ["re-m1-1", "re-m1-2", "re-m2-1"])
        self.assertEqual([reply.to for reply in replies], ["bob", "bob", ""])
        self.assertEqual(replies[2].group, ("bob", "carol"))
        pipe.core.handled("m1")
        self.assertEqual(len(pipe.program.reply(one, "d").client_msg_id), 32)

    def test_other_user(self) -> None:
        """Another user's outbox is not sent, and its cursor is not used."""
        store = SqliteStore(":memory:")
        self.addCleanup(store.close)
        pipe = Pipe(store=store)
        pipe.open(seq=5)
        pipe.program.send("1", to="bob")
        pipe = Pipe(store=store, user_id=None, has_token=True)
        pipe.core.start()
        pipe.core.token_given("mallorys")
        pipe.open(userId="mallory", epoch="m", seq=0)
        self.assertEqual([frame.get("msg") for frame in pipe.take()[1:]], [])
        self.assertEqual(pipe.events(events.Failed)[0].refusal.code, "other_user")
        self.assertEqual((store.load().user_id, store.load().epoch), ("mallory", "m"))
