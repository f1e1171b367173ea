"""The drill's checker on rooms and changes: broken promises of each kind are found, a good history passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.trial import unittest

from tests.tools.drill.checker import check
from tests.tools.drill.history import (
    UNCHANGED,
    Answer,
    Connection,
    Document,
    EventDocument,
    Got,
    History,
    Message,
    ReadBack,
    Room,
    Send,
    extras_of,
)
from tests.tools.drill.model import shown

RULES = {"posting": "all", "history": "joined", "joining": "invite", "name": "den"}
R = "r-1"


class Story:
    """olga makes a room with mary and mike, each of whom has one device. A step is a second."""

    def __init__(self) -> None:
        self.history = History()
        self.now = 0.0
        self.events = 0
        self.numbers: dict[str, int] = {}
        self.devices = {user: self.connect(user) for user in ("olga", "mary", "mike", "nina")}
        self.rooms = Room(0, {}, RULES, [])
        self.history.rooms[R] = self.rooms
        members = {"mary": "member", "mike": "member", "olga": "owner"}
        both = ["mary", "mike"]
        self.change("c", "olga", members, action="create", name="den", users=both, to=both)

    def step(self) -> float:
        self.now += 1
        return self.now

    def connect(self, user: str) -> Connection:
        connection = Connection(user, "phone", "node1", 1, True, None, self.step())
        connection.epoch, connection.connected_at, connection.live = "e", self.now, True
        self.history.connections.append(connection)
        return connection

    def next_id(self) -> str:
        self.events += 1
        return f"{self.events:04}"

    def send(self, key: str, user: str, kind: str, **frame: Any) -> None:
        frame["clientMsgId"] = key
        self.history.messages[key] = Message(key, user, "phone", kind=kind, frame=frame)
        self.devices[user].events.append(Send(self.step(), key))

    def answer(self, key: str, user: str, message_id: str = "", code: str = "", version: int = 0) -> None:
        room = R if version else ""
        self.devices[user].events.append(Answer(self.step(), key, message_id, 1, code, room, version))

    def get(self, user: str, message_id: str, key: str, **frame: Any) -> None:
        sender, text = self.history.messages[key].sender, self.history.messages[key].text
        frame |= {"id": message_id, "clientMsgId": key, "userId": sender}
        self.numbers[user] = self.numbers.get(user, 0) + 1
        got = Got(self.step(), self.numbers[user], message_id, key, sender, text, frame)
        self.devices[user].events.append(got)

    def change(
        self,
        key: str,
        user: str,
        members: dict[str, str],
        *,
        to: Sequence[str],
        answered: bool = True,
        **frame: Any,
    ) -> None:
        """A change of the room that is made, and told to these."""
        users = [{"userId": one} for one in frame.pop("users", [])]
        action = frame["action"]
        self.send(key, user, "room", users=users, **frame, **({} if action == "create" else {"room": R}))
        version = self.rooms.version + 1
        self.rooms.version, self.rooms.members = version, members
        self.rooms.past = [*self.rooms.past, (version, key)]
        message_id = self.next_id()
        body = {"id": message_id, "kind": "room", "room": R, "version": version, "action": action}
        if action == "create":
            body |= RULES
        for one in to:
            self.get(one, message_id, key, **body)
        event = EventDocument(message_id, key, user, "room", "", R, version, body)
        self.history.events.append(event)
        if answered:
            self.answer(key, user, message_id, version=version)

    def say(self, key: str, user: str, to: Sequence[str], version: int = 0) -> str:
        """A message to the room, which these get; gives its id."""
        self.send(key, user, "message", room=R)
        return self.placed(key, user, to, version)

    def placed(self, key: str, user: str, to: Sequence[str], version: int = 0) -> str:
        version = version or self.rooms.version
        message_id = self.next_id()
        for one in to:
            self.get(one, message_id, key, kind="message", room=R, roomVersion=version)
        text = self.history.messages[key].text
        document = Document(message_id, key, user, frozenset(), frozenset(), text, "message", R, version)
        self.history.archive.append(document)
        self.answer(key, user, message_id)
        return message_id

    def modify(self, key: str, user: str, kind: str, of: str, to: Sequence[str], **frame: Any) -> str:
        """An edit, a recall or a reaction that these get; gives its id."""
        self.send(key, user, kind, id=of, **frame)
        message_id = self.next_id()
        body = {"kind": kind, "of": of, **frame, "msg": self.history.messages[key].text}
        for one in to:
            self.get(one, message_id, key, **body)
        version = next(one.version for one in self.history.archive if one.message_id == of)
        body |= {"id": message_id, "clientMsgId": key, "userId": user}
        self.history.events.append(EventDocument(message_id, key, user, kind, of, R, version, body))
        self.answer(key, user, message_id)
        return message_id

    def show(self, message_id: str, **fields: Any) -> None:
        """Let the archive have the message like this now."""
        self.history.archive = [
            one._replace(**fields) if one.message_id == message_id else one for one in self.history.archive
        ]

    def read(self, user: str, entries: list[dict[str, Any]]) -> ReadBack:
        read = ReadBack({"": [], R: entries}, {"": []}, {R: self.rooms})
        read.changes[R] = [event.body for event in self.history.events]
        self.history.read_back[user] = read
        return read


class EventTests(unittest.TestCase):
    def setUp(self) -> None:
        self.story = Story()

    def assert_found(self, *kinds: str) -> None:
        found = check(self.story.history)
        self.assertEqual({violation.kind for violation in found}, set(kinds), found)

    def left_unanswered(self, key: str) -> None:
        """Its client went, and comes back no more."""
        self.story.history.messages[key].given_up = True
        self.story.devices["olga"].live = False

    def removed(self, to: Sequence[str] = ("mary", "mike"), *, answered: bool = True) -> None:
        members = {"mike": "member", "olga": "owner"}
        self.story.change("x", "olga", members, action="remove", users=["mary"], to=to, answered=answered)

    def edited(self) -> str:
        """mary's message, which was edited twice, and the later edit's id."""
        story = self.story
        message = story.say("a", "mary", ["olga", "mike"])
        story.modify("b", "mary", "edit", message, ["olga", "mike"])
        later = story.modify("d", "mary", "edit", message, ["olga", "mike"])
        story.show(message, text="text of d", edited=later)
        return message

    # nothing to be found

    def test_good(self) -> None:
        """Messages, edits and a reaction, and a removed member who is refused."""
        message = self.edited()
        self.story.modify("e", "mike", "react", message, ["olga", "mary"], reaction="👍")
        self.removed()
        self.story.send("f", "mary", "message", room=R)
        self.story.answer("f", "mary", code="not_found")
        self.story.say("g", "mike", ["olga"])
        self.assert_found()

    def test_unanswered_change(self) -> None:
        """It is in or out: in if MongoDB has it, and then everybody is told."""
        story = self.story
        self.removed(to=["mary", "mike"], answered=False)
        self.left_unanswered("x")
        story.send("y", "olga", "room", room=R, action="set", name="other")
        self.left_unanswered("y")
        self.assert_found()

    def test_sent_while_it_changes(self) -> None:
        """A message that was sent before a removal was accepted may be placed before, or refused after it."""
        story = self.story
        story.send("a", "mary", "message", room=R)
        story.send("b", "mary", "message", room=R)
        self.removed()
        story.placed("a", "mary", ["olga", "mike"], version=1)
        # As an inbox has it: the message first.
        for user in ("mike",):
            events = story.devices[user].events
            removal, message = events[-2:]
            assert isinstance(removal, Got) and isinstance(message, Got)
            events[-2:] = [message._replace(seq=removal.seq), removal._replace(seq=message.seq)]
        story.answer("b", "mary", code="not_found")
        self.assert_found()

    # what is found

    def test_event_lost(self) -> None:
        """A change is in MongoDB, whose maker never heard of it, and one member is not told."""
        self.removed(to=["mike"], answered=False)
        self.left_unanswered("x")
        self.assert_found("lost")

    def test_stale(self) -> None:
        """A message of the removed; one to the removed, of a room as it was."""
        self.removed()
        self.story.say("a", "mary", ["olga", "mike"], version=1)
        self.assert_found("stale", "versions")

    def test_closed(self) -> None:
        """Nothing gets into a closed room; a message to it is refused, and to an open one it is not."""
        story = self.story
        story.send("a", "mary", "message", room=R)
        story.answer("a", "mary", code="conflict")
        self.assert_found("refused")
        story.change("x", "olga", story.rooms.members, action="close", to=["mary", "mike"])
        story.send("b", "mary", "message", room=R)
        story.answer("b", "mary", code="conflict")
        self.assert_found("refused")
        story.say("d", "mary", ["olga", "mike"])
        self.assertIn("stale", {violation.kind for violation in check(story.history)})

    def test_extras(self) -> None:
        """An edit takes data and mentions away, and leaves the message that is answered."""
        first = extras_of({"data": {"x": 1}, "mentions": ["olga"], "replyTo": "0"})
        edit = EventDocument("2", "b", "mary", "edit", "1", R, 1, {"msg": "b", "data": {"y": 2}})
        recall = EventDocument("3", "c", "mary", "recall", "1", R, 1, {})
        self.assertEqual(shown("a", [], first).extras, first)
        now = extras_of({"data": {"y": 2}, "replyTo": "0"})
        self.assertEqual(shown("a", [edit], first).extras, now)
        self.assertEqual(shown("a", [recall, edit], first).extras, extras_of({"replyTo": "0"}))

    def test_stale_without_a_version(self) -> None:
        """An edit tells somebody who was removed before it was sent."""
        story = self.story
        message = story.say("a", "mike", ["olga", "mary"])
        self.removed()
        edit = story.modify("b", "mike", "edit", message, ["olga", "mary"])
        story.show(message, text="text of b", edited=edit)
        self.assert_found("stale")

    def test_told_by_an_old_primary(self) -> None:
        """The primary that others have left tells mary, who is gone, of an edit."""
        story = self.story
        message = story.say("a", "mike", ["olga", "mary"])
        split = story.step()
        self.removed()
        edit = story.modify("b", "mike", "edit", message, ["olga", "mary"])
        story.show(message, text="text of b", edited=edit)
        self.assert_found("stale")
        story.history.splits.append((split, story.now))
        self.assert_found()

    def test_newcomer(self) -> None:
        """nina comes after a message, and is told of its edit."""
        story = self.story
        message = story.say("a", "mike", ["olga", "mary"])
        members = {**story.rooms.members, "nina": "member"}
        story.change("x", "olga", members, action="add", users=["nina"], to=["mary", "mike", "nina"])
        edit = story.modify("b", "mike", "edit", message, ["olga", "mary", "nina"])
        story.show(message, text="text of b", edited=edit)
        self.assert_found("newcomer")

    def test_versions(self) -> None:
        """Two changes come to an inbox in the wrong order; a version is made twice; one is missing."""
        story = self.story
        members = story.rooms.members
        story.change("x", "olga", members, action="set", name="den", to=["mary", "mike"])
        story.change("y", "olga", members, action="set", name="den", to=["mary", "mike"])
        events = story.devices["mary"].events
        first, second = events[-2:]
        assert isinstance(first, Got) and isinstance(second, Got)
        events[-2:] = [second._replace(seq=first.seq), first._replace(seq=second.seq)]
        self.assert_found("versions", "order")

    def test_version_made_twice(self) -> None:
        story = self.story
        story.change("x", "olga", story.rooms.members, action="set", name="den", to=["mary", "mike"])
        story.rooms.past = [(1, "c"), (2, "c")]
        self.assertIn("versions", {violation.kind for violation in check(story.history)})

    def test_answered_anew(self) -> None:
        """A recall that everybody got is sent again: nothing is to be changed, or it is too late."""
        for code in (UNCHANGED, "conflict"):
            self.story = story = Story()
            message = story.say("a", "mary", ["olga", "mike"])
            story.modify("b", "mary", "recall", message, ["olga", "mike"])
            story.show(message, text="", is_recalled=True)
            story.devices["mary"].events.append(Send(story.step(), "b"))
            story.answer("b", "mary", code=code)
            self.assert_found("answered anew")

    def test_refused(self) -> None:
        """A member's message is refused as a stranger's."""
        self.story.send("a", "mary", "message", room=R)
        self.story.answer("a", "mary", code="not_found")
        self.assert_found("refused")

    def test_refused_by_an_old_primary(self) -> None:
        """mary was away for a while; a primary that others have left still knows the room without her."""
        story = self.story
        members = dict(story.rooms.members)
        self.removed()
        split = story.step()
        story.change("y", "olga", members, action="add", users=["mary"], to=["mary", "mike"])
        story.send("a", "mary", "message", room=R)
        story.answer("a", "mary", code="not_found")
        self.assert_found("refused")
        story.history.splits.append((split, story.step()))
        self.assert_found()
        story.send("b", "mary", "message", room=R)
        story.answer("b", "mary", code="not_found")
        self.assert_found("refused")

    def test_shown(self) -> None:
        """The archive has the text of the older edit; or history shows a reaction that was taken back."""
        message = self.edited()
        earlier = next(one.event_id for one in self.story.history.events if one.key == "b")
        self.story.show(message, text="text of b", edited=earlier)
        self.assert_found("shown")

    def test_shown_by_history(self) -> None:
        message = self.edited()
        later = next(one.event_id for one in self.story.history.events if one.key == "d")
        entry = {"id": message, "clientMsgId": "a", "msg": "text of d", "edited": {"id": later}}
        self.story.read("mike", [entry])
        self.assert_found()
        self.story.read("mike", [{**entry, "reactions": [{"reaction": "👍", "users": ["olga"]}]}])
        self.assert_found("shown", "view")

    def test_view(self) -> None:
        """A device was not told of an edit, so that it shows something else."""
        message = self.edited()
        later = next(one.event_id for one in self.story.history.events if one.key == "d")
        entry = {"id": message, "clientMsgId": "a", "msg": "text of d", "edited": {"id": later}}
        self.story.read("mike", [entry])
        del self.story.devices["mike"].events[-1]
        self.assert_found("lost", "view")

    def test_recalled_text(self) -> None:
        """A text stays in an edit of a message that is recalled."""
        message = self.edited()
        self.story.modify("e", "mary", "recall", message, ["olga", "mike"])
        self.story.show(message, text="", edited="", is_recalled=True)
        self.assert_found("recalled text")
        history = self.story.history
        history.events = [one._replace(body={**one.body, "msg": ""}) for one in history.events]
        self.assert_found()
        history.dead = ["b"]
        self.assert_found("dead", "recalled text")
        history.dead = ["e"]
        self.assert_found("dead")

    def test_changes(self) -> None:
        """`changes` lacks an event, or has one twice."""
        message = self.edited()
        later = next(one.event_id for one in self.story.history.events if one.key == "d")
        entry = {"id": message, "clientMsgId": "a", "msg": "text of d", "edited": {"id": later}}
        read = self.story.read("mike", [entry])
        whole = read.changes[R]
        for page in (whole[1:], whole[:1] + whole, whole[::-1]):
            read.changes[R] = page
            self.assert_found("changes")

    def test_room(self) -> None:
        """A member more; a role that nobody gave; a room that one does not find among one's own."""
        story = self.story
        story.rooms.members = {**story.rooms.members, "nina": "member"}
        self.assert_found("room")
        story.rooms.members = {"olga": "owner", "mary": "admin", "mike": "member"}
        self.assert_found("room")
        story.rooms.members = {"olga": "owner", "mary": "member", "mike": "member"}
        story.read("mike", []).rooms.clear()
        self.assert_found("room")

    def test_archived(self) -> None:
        """An accepted edit is not in the archive, or is there under two ids."""
        self.edited()
        events = self.story.history.events
        self.story.history.events = [*events, events[-1]._replace(event_id="zz")]
        self.assertIn("archived twice", {violation.kind for violation in check(self.story.history)})
        self.story.history.events = events[:-1]
        self.assertIn("not archived", {violation.kind for violation in check(self.story.history)})
