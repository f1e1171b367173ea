"""The drill's checker: each kind of broken promise is found in a made-up history, and a good one passes."""

from __future__ import annotations

from pathlib import Path

from twisted.trial import unittest

from tests.tools.drill.checker import KINDS, check
from tests.tools.drill.history import Answer, Connection, Document, Got, History, Message, Reset, Send


class Story:
    """A history in the making: alice writes to bob's two devices. A step is a second."""

    def __init__(self) -> None:
        self.history = History()
        self.now = 0.0
        self.numbers = 0
        self.alice = self.connect("alice", "phone")
        self.bob = self.connect("bob", "phone")
        self.tablet = self.connect("bob", "tablet")
        self.ids: list[str] = []

    def step(self) -> float:
        self.now += 1
        return self.now

    def connect(self, user: str, device: str, **fields: object) -> Connection:
        at = self.step()
        connection = Connection(user, device, "node1", int(at), True, None, at)
        connection.epoch, connection.connected_at, connection.live = "e", at, True
        for name, value in fields.items():
            setattr(connection, name, value)
        self.history.connections.append(connection)
        return connection

    def send(self, key: str, connection: Connection | None = None) -> None:
        self.history.messages.setdefault(key, Message(key, "alice", "phone", frozenset({"bob"})))
        (connection or self.alice).events.append(Send(self.step(), key))

    def accept(self, key: str, message_id: str = "", connection: Connection | None = None) -> None:
        (connection or self.alice).events.append(Answer(self.step(), key, message_id or f"id-{key}", 1))

    def refuse(self, key: str, code: str = "unavailable") -> None:
        self.alice.events.append(Answer(self.step(), key, code=code))

    def get(self, connection: Connection, seq: int, key: str, message_id: str = "", text: str = "") -> None:
        event = Got(self.step(), seq, message_id or f"id-{key}", key, "alice", text or f"text of {key}")
        connection.events.append(event)

    def archive(self, key: str, message_id: str = "", **fields: object) -> None:
        people = frozenset({"alice", "bob"})
        document = Document(
            message_id or f"id-{key}", key, "alice", frozenset({"bob"}), people, f"text of {key}"
        )
        self.history.archive.append(document._replace(**fields))  # type: ignore[arg-type]

    def lose(self) -> None:
        at = self.step()
        self.history.losses.append((at, at))

    def stay(self, *keys: str) -> None:
        """Messages that are accepted and archived, which nobody has got yet."""
        for key in keys:
            self.send(key)
            self.accept(key)
            self.archive(key)

    def good(self, *keys: str) -> None:
        """Messages as they should be."""
        for number, key in enumerate(keys, 1):
            self.stay(key)
            self.get(self.bob, number, key)
            self.get(self.tablet, number, key)


class CheckerTests(unittest.TestCase):
    def setUp(self) -> None:
        self.story = Story()

    def assert_found(self, *kinds: str) -> None:
        found = check(self.story.history)
        self.assertEqual({violation.kind for violation in found}, set(kinds), found)

    # nothing to be found

    def test_good(self) -> None:
        self.story.good("a", "b", "c")
        self.story.history.read["bob"] = ["id-a", "id-b", "id-c"]
        self.assert_found()

    def test_sent_again_after_a_lost_connection(self) -> None:
        """The first try was placed, its answer lost: the second one is answered with the same id."""
        story = self.story
        story.send("a")
        story.alice.live = False
        again = story.connect("alice", "phone")
        story.send("a", again)
        story.accept("a", connection=again)
        for device in (story.bob, story.tablet):
            story.get(device, 1, "a")
        story.archive("a")
        self.assert_found()

    def test_again_from_the_cursor(self) -> None:
        """A device without a cursor of its own may get again what it had not acknowledged."""
        story = self.story
        story.good("a", "b")
        back = story.connect("bob", "phone", seq=1)
        story.get(back, 2, "b")
        self.assert_found()

    def test_refused_message_may_change_places(self) -> None:
        """A message resent after an error may stand anywhere between its first sending and its acceptance."""
        for first, second in (("a", "b"), ("b", "a")):
            self.story = story = Story()
            story.send("a")
            story.send("b")
            story.refuse("a")
            story.accept("b")
            story.send("a")
            story.accept("a")
            for device in (story.bob, story.tablet):
                story.get(device, 1, first)
                story.get(device, 2, second)
            story.archive("a")
            story.archive("b")
            self.assert_found()

    def test_told_of_a_loss(self) -> None:
        """Messages that Redis lost may be missing on devices that were told, if history has them."""
        story = self.story
        story.good("a")
        story.stay("b")
        story.lose()
        for device in (story.bob, story.tablet):
            device.events.append(Reset(story.step(), "f", 0))
        story.history.read["bob"] = ["id-a", "id-b"]
        self.assert_found()

    def test_order_in_each_inbox(self) -> None:
        """Redis fell back to an older primary: its inbox still holds what was accepted before the fall."""
        story = self.story
        story.stay("a", "b")
        story.lose()
        story.history.read["bob"] = ["id-a", "id-b"]
        for device in (story.bob, story.tablet):
            story.get(device, 1, "b")
            device.events.append(Reset(story.step(), "f", 0))
            story.get(device, 1, "a")
        self.assert_found()
        story.stay("c", "d")
        story.history.read["bob"] += ["id-c", "id-d"]
        for device in (story.bob, story.tablet):
            story.get(device, 2, "d")
            story.get(device, 3, "c")
        self.assert_found("order")

    # what a device gets

    def test_hole(self) -> None:
        self.story.good("a", "b")
        self.story.get(self.story.bob, 4, "b")
        self.assert_found("hole")

    def test_repeat(self) -> None:
        self.story.good("a", "b")
        self.story.get(self.story.bob, 2, "b")
        self.assert_found("repeat")

    def test_number_reused(self) -> None:
        story = self.story
        story.good("a")
        story.send("b")
        story.accept("b")
        story.archive("b")
        story.get(story.bob, 2, "b")
        story.get(story.tablet, 2, "b", "id-other")
        self.assert_found("number reused")

    def test_cursor_ignored(self) -> None:
        self.story.good("a", "b")
        self.story.connect("bob", "phone", asked=("e", 2), seq=1)
        self.assert_found("cursor")

    def test_begins_after_what_it_had(self) -> None:
        self.story.good("a", "b")
        self.story.connect("bob", "phone", seq=3)
        self.assert_found("cursor")

    def test_false_alarm(self) -> None:
        self.story.good("a")
        self.story.bob.events.append(Reset(self.story.step(), "f", 0))
        self.assert_found("false alarm")
        self.story = Story()
        self.story.connect("bob", "phone", asked=("e", 9), seq=0, recovered=False)
        self.assert_found("false alarm")

    def test_lost(self) -> None:
        story = self.story
        story.good("a")
        story.send("b")
        story.accept("b")
        story.archive("b")
        story.get(story.bob, 2, "b")
        self.assert_found("lost")

    def test_lost_and_not_told(self) -> None:
        story = self.story
        story.connect("bob", "phone", asked=("e", 0))
        story.connect("bob", "tablet", asked=("e", 0))
        story.stay("b")
        story.lose()
        story.history.read["bob"] = ["id-b"]
        self.assert_found("lost")

    def test_lost_and_cannot_be_told(self) -> None:
        """A device without a cursor that was away when Redis lost its data cannot be told of it."""
        for lived, found in ((1, []), (60, ["lost"])):
            self.story = story = Story()
            story.send("b")
            story.accept("b")
            story.archive("b")
            story.lose()
            story.bob.closed_at = story.tablet.closed_at = story.now + lived
            story.history.read["bob"] = ["id-b"]
            self.assert_found(*found)

    def test_lost_and_told_but_not_in_history(self) -> None:
        story = self.story
        story.stay("b")
        story.lose()
        for device in (story.bob, story.tablet):
            device.events.append(Reset(story.step(), "f", 0))
        self.assert_found("lost")

    def test_lost_between_two_connections(self) -> None:
        """A device that Redis forgot, and that names no cursor, starts with what the inbox still holds."""
        for connected, found in ((False, []), (True, ["lost"])):
            self.story = story = Story()
            story.lose()
            if not connected:
                story.bob.closed_at = story.tablet.closed_at = story.history.losses[0][0] - 0.5
            story.send("b")
            story.accept("b")
            story.archive("b")
            story.history.read["bob"] = ["id-b"]
            self.assert_found(*found)

    def test_lost_while_waiting_for_an_agent(self) -> None:
        """A visitor's message that was waiting when Redis lost its data stays the visitor's alone."""
        story = self.story
        story.send("a")
        story.history.messages["a"].desk = True
        story.accept("a")
        story.archive("a", participants=frozenset({"alice"}))
        story.history.read = {"alice": ["id-a"], "bob": []}
        self.assert_found("lost", "participants", "history")
        story.lose()
        for device in (story.bob, story.tablet):
            device.events.append(Reset(story.step(), "f", 0))
        self.assert_found()

    def test_twice(self) -> None:
        self.story.good("a")
        self.story.get(self.story.bob, 2, "a", "id-second")
        self.assert_found("twice")

    def test_stranger(self) -> None:
        story = self.story
        story.good("a")
        carol = story.connect("carol", "phone")
        story.get(carol, 1, "a")
        self.assert_found("stranger")

    def test_content(self) -> None:
        self.story.send("a")
        self.story.accept("a")
        self.story.get(self.story.bob, 1, "a", text="else")
        self.story.get(self.story.tablet, 1, "a")
        self.story.archive("a")
        self.assert_found("content")

    def test_order(self) -> None:
        story = self.story
        story.stay("a", "b")
        story.get(story.bob, 1, "b")
        story.get(story.bob, 2, "a")
        story.get(story.tablet, 1, "b")
        story.get(story.tablet, 2, "a")
        self.assert_found("order")

    def test_thrown_out(self) -> None:
        story = self.story
        story.bob.close_code = 4003
        story.bob.closed_at = story.step()
        story.connect("bob", "phone")
        self.assert_found("thrown out")
        story.bob.closed_at = story.step()
        self.assert_found()

    # what a sender gets

    def test_answers_out_of_order(self) -> None:
        story = self.story
        story.good("a")
        story.send("b")
        story.send("c")
        story.refuse("c")
        self.assert_found("answers", "never accepted")

    def test_answered_twice(self) -> None:
        self.story.good("a")
        self.story.accept("a")
        self.assert_found("answers")

    def test_given_up(self) -> None:
        """Its last try may have no answer yet. Others that were sent behind it are due."""
        self.story.send("a")
        self.story.history.messages["a"].given_up = True
        self.assert_found()
        self.story.send("b")
        self.assert_found("unanswered", "never accepted")

    def test_unanswered(self) -> None:
        self.story.send("a")
        self.assert_found("unanswered", "never accepted")

    def test_never_accepted(self) -> None:
        self.story.send("a")
        self.story.refuse("a")
        self.assert_found("never accepted")

    def test_refused_for_no_fault(self) -> None:
        self.story.good("a")
        self.story.send("b")
        self.story.refuse("b", "invalid_message")
        self.assert_found("refused", "never accepted")

    def test_id_changed(self) -> None:
        story = self.story
        story.good("a")
        again = story.connect("alice", "phone")
        story.send("a", again)
        story.accept("a", "id-second", again)
        story.archive("a", "id-second")
        self.assert_found("id changed", "archived twice")

    # what stays

    def test_not_archived(self) -> None:
        self.story.good("a")
        self.story.history.archive.clear()
        self.assert_found("not archived")

    def test_archived_otherwise(self) -> None:
        self.story.good("a")
        document = self.story.history.archive[0]
        for changed, kind in (
            (document._replace(text="else"), "content"),
            (document._replace(participants=frozenset({"alice"})), "participants"),
            (document._replace(key="z"), "unknown document"),
        ):
            self.story.history.archive = [document, changed._replace(message_id="id-a")]
            kinds = {violation.kind for violation in check(self.story.history)}
            self.assertIn(kind, kinds)

    def test_more_than_a_text(self) -> None:
        """Data, mentions or the answered message are lost on the way to a device, or to the archive."""
        self.story.good("a")
        self.story.history.messages["a"].extras = '{"data": {"x": 1}}'
        self.assert_found("content")
        for connection in (self.story.bob, self.story.tablet):
            got = connection.events[-1]
            assert type(got) is Got
            connection.events[-1] = got._replace(extras='{"data": {"x": 1}}')
        self.assert_found("content")
        [document] = self.story.history.archive
        self.story.history.archive = [document._replace(extras='{"data": {"x": 1}}')]
        self.assert_found()

    def test_dead(self) -> None:
        self.story.good("a")
        self.story.history.dead.append("a")
        self.assert_found("dead")

    def test_history(self) -> None:
        self.story.good("a", "b")
        for read in (["id-a"], ["id-b", "id-a"], ["id-a", "id-a", "id-b"]):
            self.story.history.read["bob"] = read
            self.assert_found("history")

    def test_all_kinds_are_tested(self) -> None:
        """Each kind that the checker knows is in a test of this file, or of those for events and state."""
        names = ("checker", "events", "state")
        text = "".join((Path(__file__).parent / f"test_drill_{name}.py").read_text() for name in names)
        self.assertEqual([kind for kind in KINDS if f'"{kind}"' not in text], [])
