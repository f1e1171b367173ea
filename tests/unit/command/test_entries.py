"""Messages and events in words, and orders that are typed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial import unittest

from imd.client import Entry, Outgoing, View
from imd.client.numbered import entry_of
from imd.client.requests import result_of
from imd.client.rooms import Rooms
from imd.command.entries import as_json, in_words
from imd.command.typed import HELP, Typed, Wrong


def entry(**frame: Any) -> Entry:
    made = entry_of({"id": "e1", "userId": "bob", "sendTime": 1} | frame)
    assert made is not None
    return made


class WordsTests(unittest.TestCase):
    def said(self, *frames: dict[str, Any]) -> str:
        """The words of the last one."""
        view = View()
        for frame in frames:
            view.put(entry(**frame))
        return in_words(entry(**frames[-1]), view, "")

    def test_messages(self) -> None:
        first = {"id": "m1", "msg": "one \x1b[2J and more than forty characters of text", "to": "alice"}
        self.assertEqual(self.said(first), "bob: one \\x1b[2J and more than forty characters of text")
        reply = {"id": "m2", "msg": "yes", "to": "alice", "replyTo": "m1"}
        self.assertEqual(
            self.said(first, reply), 'bob: > bob: "one \\x1b[2J and more than forty characters…" > yes'
        )
        reactions = [{"reaction": "👍", "count": 2, "users": ["bob", "carol"]}]
        edited = {"msg": "x", "edited": {"id": "e", "time": 1}, "reactions": reactions}
        self.assertEqual(self.said(edited), "bob: x (edited)  [👍 2]")
        self.assertEqual(self.said({"msg": "", "recalled": 5}), "bob: (recalled)")

    def test_changes(self) -> None:
        message = {"id": "m1", "msg": "one", "to": "alice", "sendTime": 1}
        about = {"of": "m1", "to": "alice"}
        self.assertEqual(self.said(message, {"kind": "edit", "msg": "two", **about}), "bob edited: two")
        on = {"kind": "react", "reaction": "👍", **about}
        self.assertEqual(self.said(message, on), 'bob reacts with 👍 to "one"')
        self.assertEqual(self.said(message, {**on, "on": False}), 'bob no longer reacts with 👍 to "one"')
        recalled = self.said(message, {"kind": "recall", **about})
        self.assertTrue(recalled.startswith("bob recalled a message of "), recalled)
        self.assertNotIn("one", recalled)
        self.assertEqual(self.said({"kind": "recall", "of": "m9"}), "bob recalled a message")

    def test_rooms(self) -> None:
        """Each action has its words."""
        users = [{"userId": "carol", "role": "admin"}]
        event = {"kind": "room", "room": "r-1", "version": 2, "users": users, "count": 3, "name": "A"}
        said = {
            "create": 'bob made the room "A" (r-1) with carol',
            "add": "bob added carol (3 members)",
            "remove": "bob removed carol (3 members)",
            "role": "bob gave roles: carol admin",
            "set": "bob changed the room: name A",
            "join": "bob joined (3 members)",
            "leave": "bob left (3 members)",
            "close": "bob closed the room",
            "paint": "bob changed the room (paint)",
        }
        for action, words in said.items():
            self.assertEqual(self.said({**event, "action": action}), words)

    def test_json(self) -> None:
        """A message looks as ever; an event has its kind."""
        self.assertNotIn("kind", as_json(entry(msg="x")))
        recall = as_json(entry(kind="recall", of="m1"))
        self.assertEqual((recall["kind"], recall["of"], recall["user_id"]), ("recall", "m1", "bob"))


class FakeClient:
    user_id = "alice"

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.posted: list[Outgoing] = []
        self.rooms = Rooms(self.post, self.ask)

    def post(self, outgoing: Outgoing) -> Outgoing:
        self.posted.append(outgoing)
        return outgoing

    def ask(self, kind: str, **fields: Any) -> Deferred[Any]:
        frames = {
            "rooms": {"rooms": [{"room": "r-1", "name": "A", "role": "owner", "count": 2, "version": 1}]},
            "members": {"room": "r-1", "version": 1, "users": [{"userId": "bob", "role": "admin"}]},
        }
        answer: Deferred[Any] = Deferred()
        answer.callback(result_of({"type": kind, "more": False, **frames[kind]}))
        return answer

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.done.append((name, *args))


class TypedTests(unittest.TestCase):
    def setUp(self) -> None:
        self.client = FakeClient()
        self.said: list[str] = []

    def typed(self, room: str = "r-1") -> Typed:
        return Typed(self.client, room, self.said.append)  # type: ignore[arg-type]

    async def test_about_messages(self) -> None:
        typed = self.typed()
        with self.assertRaises(Wrong):
            await typed.follow("/recall")
        for message in (entry(id="m1", msg="a"), entry(id="m2", msg="b", userId="alice")):
            typed.noticed(message)  # type: ignore[arg-type]
        typed.noticed(Outgoing("c", "own", id="m3"))
        for line in ("/edit new text", "/recall", "/react 👍", "/unreact 👍"):
            await typed.follow(line)
        expected = [
            ("edit", "m3", "new text"),
            ("recall", "m3"),
            ("react", "m1", "👍"),
            ("react", "m1", "👍", False),
        ]
        self.assertEqual(self.client.done, expected)
        self.assertEqual(typed.split("/reply yes"), ("yes", "m1"))
        self.assertEqual(typed.split("//x"), ("/x", None))
        self.assertEqual(typed.split("x"), ("x", None))
        self.assertEqual(typed.split("/x"), ("", None))

    async def test_rooms(self) -> None:
        typed = self.typed()
        lines = (
            "/room A bob",
            "/add bob carol",
            "/remove bob",
            "/role bob owner",
            "/name B C",
            "/leave",
            "/close",
        )
        for line in lines:
            await typed.follow(line)
        actions = [posted.action for posted in self.client.posted]
        self.assertEqual(actions, ["create", "add", "remove", "role", "set", "leave", "close"])
        self.assertEqual(self.client.posted[1].fields["users"], [{"userId": "bob"}, {"userId": "carol"}])
        self.assertEqual(self.client.posted[3].fields["users"], [{"userId": "bob", "role": "owner"}])
        self.assertEqual(self.client.posted[4].fields, {"name": "B C"})
        for line in ("/rooms", "/members", "/help"):
            await typed.follow(line)
        self.assertEqual(self.said, ["r-1 A (2 members, owner)", "1 rooms", "bob (admin)", HELP])

    async def test_wrong(self) -> None:
        typed = self.typed(room="")
        for line in ("/dance", "/add bob", "/edit", "/members", "/room"):
            with self.assertRaises(Wrong):
                await typed.follow(line)

    def test_made(self) -> None:
        """The answer to a room's action is said: one's own inbox does not bring it."""
        typed = self.typed()
        typed.made(Outgoing("c", "x"))
        typed.made(Outgoing("c", kind="room", action="create", room="r-2"))
        typed.made(Outgoing("c", kind="room", action="add", room="r-1", version=3))
        typed.made(Outgoing("c", kind="room", action="add", room="r-1", changed=False))
        self.assertEqual(
            self.said, ["the room is r-2", "add: done, version 3", "add: there was nothing to change"]
        )
