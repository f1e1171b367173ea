"""Tracing: the choice of messages, and their log lines."""

from __future__ import annotations

import importlib
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial import unittest

from imd.chat.accept import Refusal
from imd.chat.session import Session
from imd.contracts.archive import ArchiveRecord
from imd.contracts.bus import Hint
from imd.contracts.inbox import (
    Conflict,
    ConnectRequest,
    Delivery,
    Duplicate,
    Placed,
    RoomAim,
    Submission,
)
from imd.observe.trace import MAX_AWAITED, MAX_CONCERNED, MAX_LINES_PER_SECOND, TRACE, Trace
from imd.protocol.errors import INVALID_MESSAGE, Refused, Unavailable
from imd.protocol.events import MESSAGE, Concerned, RoomEvent, RoomMessage, encode_event, split_at_version
from imd.protocol.message import IMessage, encode_message
from tests.support.doubles import InboxDouble, WireDouble


def message(message_id: str, sender: str = "alice", to: str = "bob", **more: Any) -> bytes:
    return encode_message(IMessage(id=message_id, user_id=sender, to=to, msg="what nobody may log", **more))


def submission(body: bytes, message_id: str) -> Submission:
    return Submission("alice", "phone", None, "", message_id, 0, ["bob"], body)


class TraceTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.trace = Trace(lambda: self.now)
        self.trace.node = "node1"
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: Any) -> None:
        if event["log_namespace"] == "imd.observe.trace":
            self.events.append(event)

    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    def followed(self, *bodies: bytes) -> int:
        """The number of these messages that are followed."""
        before = len(self.events)
        self.trace.archived(bodies, ())
        return len(self.events) - before


class PolicyTests(TraceTestCase):
    def test_off(self) -> None:
        """Nothing is followed before a start and after a stop."""
        self.assertFalse(self.trace.on)
        self.assertFalse(TRACE.on)
        self.assertEqual(self.followed(message("1")), 0)
        self.trace.start(["bob"], 1)
        self.assertEqual(self.followed(message("1")), 1)
        self.trace.stop()
        self.assertEqual(self.followed(message("1")), 0)

    def test_users(self) -> None:
        """A message is followed for its sender, its recipient, and each user in its list."""
        self.trace.start(["bob"], 0)
        self.assertEqual(self.followed(message("1"), message("2", "bob", "carol")), 2)
        self.assertEqual(self.followed(message("3", to="", group=["carol", "bob"])), 1)
        self.assertEqual(self.followed(message("4", to="carol")), 0)

    def test_sample(self) -> None:
        """A sample has about its share, and the same messages on each node."""
        bodies = [message(f"{n:028x}") for n in range(2000)]
        self.now = 0.0
        self.trace.start([], 0.1)
        first = self.followed(*bodies)
        self.assertTrue(100 < first < 400, first)
        self.now += 1
        ids = [event["message_id"] for event in self.events]
        self.events.clear()
        other = Trace(lambda: self.now)
        other.start([], 0.1)
        other.archived(bodies, ())
        self.assertEqual([event["message_id"] for event in self.events], ids)

    def test_not_json(self) -> None:
        """A body that is not JSON is ignored."""
        self.trace.start([], 1)
        self.assertEqual(self.followed(b"", b"[]", b"{", b'{"id":5}', b"\xff"), 0)

    def test_too_many_lines(self) -> None:
        """Lines in one second are bounded; those left out are counted."""
        self.trace.start(["bob"], 0)
        self.followed(*[message(str(n)) for n in range(MAX_LINES_PER_SECOND + 7)])
        self.assertEqual((self.trace.lines, self.trace.left_out), (MAX_LINES_PER_SECOND, 7))
        self.now += 1
        self.assertEqual(self.followed(message("next")), 1)


class StepTests(TraceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.trace.start(["bob"], 0)
        self.body = message("m1")
        self.submission = submission(self.body, "m1")

    def steps(self) -> list[str]:
        return [event["step"] for event in self.events]

    def test_line(self) -> None:
        """A line has the id and the step first, then named fields. It never has the message's text."""
        self.trace.placed([self.submission], [Placed([Delivery("bob", "e1", 7, ["c"], self.body)], "")])
        self.assertEqual(self.lines(), ["m1 placed user='bob' seq=7 epoch='e1' node=node1"])
        [event] = self.events
        self.assertEqual(event["log_level"], LogLevel.debug)
        self.assertNotIn("nobody may log", repr(event))

    def test_what_the_inbox_said(self) -> None:
        """Outcomes: placed for each recipient, a resend under its first id, refused with the reason."""
        both = [Delivery("bob", "e1", 1, [], self.body), Delivery("carol", "e2", 5, [], self.body)]
        outcomes = [Placed(both, ""), Duplicate("m0", 5), Conflict(), Placed([], "")]
        self.submission.recipients = ()
        self.trace.placed([self.submission] * 4, outcomes)
        self.assertEqual(self.steps(), ["placed", "placed", "sent again", "refused", "waits at the desk"])
        self.assertEqual([event["message_id"] for event in self.events], ["m1", "m1", "m0", "m1", "m1"])

    def test_visitors_message(self) -> None:
        """A trace of an agent follows messages of its visitors, which name no recipient."""
        earlier, now = (message(n, "visitor-1", "", is_visitor=True) for n in ("m1", "m2"))
        deliveries = [Delivery("bob", "e", n, [], body) for n, body in enumerate((earlier, now), 1)]
        self.trace.placed([submission(now, "m2")], [Placed(deliveries, "bob")])
        self.assertEqual([event["message_id"] for event in self.events], ["m1", "m2"])
        self.trace.publishing([ArchiveRecord(now, "bob")], succeed(None))
        self.assertEqual(self.steps()[2:], ["published", "confirmed"])

    def test_archive_queue(self) -> None:
        """A batch's lines: published, then the broker's answer. A failure still reaches the caller."""
        confirmed: Deferred[None] = Deferred()
        self.trace.publishing([ArchiveRecord(self.body)], confirmed)
        self.assertEqual(self.steps(), ["published"])
        confirmed.callback(None)
        refused = fail(Unavailable("no"))
        self.trace.publishing([ArchiveRecord(self.body)], refused)
        self.assertEqual(self.steps()[1:], ["confirmed", "published", "not confirmed"])
        self.failureResultOf(refused, Unavailable)

    def test_answered(self) -> None:
        """The answer to a resend is logged under the first id."""
        refusal = Refusal(None, None, Refused(INVALID_MESSAGE, "no"))
        entries = [self.submission, self.submission, refusal, self.submission]
        self.trace.answered(entries, {1: Duplicate("m0", 5), 2: refusal.refused, 3: refusal.refused})
        lines = [(event["message_id"], event["step"]) for event in self.events]
        self.assertEqual(lines, [("m1", "accepted"), ("m0", "accepted")])

    def test_archived(self) -> None:
        """A message's last line: archived, or a dead letter."""
        self.trace.archived([self.body, message("m2")], {"m2"})
        self.assertEqual(self.steps(), ["archived", "dead letter"])

    def test_hints(self) -> None:
        """A hint's line has the other node's address. A hint without its message has no line."""
        self.trace.hints("hint sent", [Hint("c", "e", 2, self.body), Hint("c", "e", 3, None)], "node2")
        self.assertEqual(
            self.lines(), ["m1 hint sent channel='c' seq=2 epoch='e' peer='node2' node=node1"]
        )


class RoomTests(TraceTestCase):
    """A room's message names its sender and the room; who gets it is known where it is placed."""

    def setUp(self) -> None:
        super().setUp()
        self.trace.start(["bob"], 0)

    def lines_of(self, *fields: str) -> list[tuple[object, ...]]:
        return [tuple(event.get(field) for field in ("step", *fields)) for event in self.events]

    def written(self, message_id: str, sender: str = "alice") -> Submission:
        message = RoomMessage(id=message_id, user_id=sender, room="r-1", msg="what nobody may log")
        head, tail = split_at_version(message)
        aim = RoomAim("r-1", head, tail)
        return Submission(sender, "phone", None, "", message_id, 0, (), head + tail, kind=MESSAGE, room=aim)

    def placed(self, submission: Submission, *users: str) -> None:
        """Version 3 of the room has five members, and these are connected; the channel of u is u1."""
        assert submission.room is not None
        body = submission.room.body(3)
        deliveries = [Delivery(user, "e", seq, [f"{user}1"], body) for seq, user in enumerate(users, 7)]
        self.trace.placed([submission], [Placed(deliveries, "", 3, 5)])
        submission.body = body

    def test_followed_member(self) -> None:
        """All steps from `placed` on, one for the room and one for the member, and none for other members."""
        submission = self.written("m1")
        self.trace.received(submission, "alice1")
        self.placed(submission, "carol", "bob", "dave")
        hints = [Hint(f"{user}1", "e", 7, submission.body) for user in ("carol", "bob", "dave")]
        self.trace.hints("hint sent", hints, "node2")
        self.trace.publishing([submission.body], succeed(None))
        self.trace.answered([submission], {})
        self.trace.archived([submission.body], ())
        self.assertEqual(
            self.lines_of("user", "channel"),
            [
                ("placed", "bob", None),
                ("placed", None, None),
                ("hint sent", None, "bob1"),
                ("published", None, None),
                ("confirmed", None, None),
                ("accepted", "alice", None),
                ("archived", None, None),
            ],
        )
        self.assertEqual({event["message_id"] for event in self.events}, {"m1"})
        self.assertNotIn("nobody may log", repr(self.events))

    def test_other_messages_of_the_room(self) -> None:
        """A message that nobody who is followed gets has no lines, nor one that a member gets who is away."""
        submission = self.written("m1")
        self.placed(submission, "carol")
        self.trace.publishing([submission.body], succeed(None))
        self.trace.answered([submission], {})
        self.assertEqual(self.events, [])

    def test_followed_sender(self) -> None:
        """A line for the room, and one for each member who is connected; nobody waits at a desk."""
        submission = self.written("m1", "bob")
        self.trace.received(submission, "bob1")
        self.placed(submission)
        self.placed(submission, "alice", "carol")
        hints = [Hint("alice1", "e", 7, submission.body)]
        self.trace.hints("hint sent", hints, "node2")
        self.assertEqual(
            self.lines_of("user", "room", "version"),
            [
                ("received", "bob", None, None),
                ("placed", None, "r-1", 3),
                ("placed", "alice", None, None),
                ("placed", "carol", None, None),
                ("placed", None, "r-1", 3),
                ("hint sent", None, None, None),
            ],
        )

    def test_sent_again(self) -> None:
        """A resend of a message that a followed member got, under its first id."""
        self.placed(self.written("m1"), "bob")
        again = self.written("m2")
        self.trace.placed([again], [Duplicate("m1", 5)])
        self.trace.answered([again], {0: Duplicate("m1", 5)})
        lines = [(event["message_id"], event["step"]) for event in self.events[2:]]
        self.assertEqual(lines, [("m1", "sent again"), ("m1", "accepted")])

    def test_node_of_the_member(self) -> None:
        """Another node follows what comes for its channel, and what that was until it is archived."""
        body = encode_event(RoomMessage(id="m1", user_id="alice", room="r-1", room_version=3, msg="x"))
        request = ConnectRequest("bob", "phone", "bob1")
        session = Session(InboxDouble(), WireDouble(), request, acknowledges=True, window=8)
        hints = [Hint(channel, "e", 7, body) for channel in ("carol1", "bob1", "gone1")]
        self.trace.hints("hint received", hints, "node2", {"bob1": session})
        self.trace.sent("pushed", session, 7, body)
        self.trace.archived([body], ())
        self.assertEqual(
            self.lines_of("channel"), [("hint received", "bob1"), ("pushed", "bob1"), ("archived", None)]
        )

    def test_change_of_a_room(self) -> None:
        """It is followed for its actor, those whom it names, and the members who get it."""

        def steps(event: RoomEvent, *users: str) -> list[tuple[object, ...]]:
            self.events.clear()
            body = encode_event(event)
            self.trace.told([Delivery(user, "e", 7, [], body) for user in users])
            self.trace.publishing([body], succeed(None))
            return self.lines_of("user")

        both = [("published", None), ("confirmed", None)]
        about_carol = [Concerned("carol", "member")]
        made = {"room": "r-1", "user_id": "alice", "users": about_carol}
        self.assertEqual(steps(RoomEvent(id="1", **made), "carol"), [])
        self.assertEqual(steps(RoomEvent(id="2", **made), "carol", "bob"), [("placed", "bob"), *both])
        self.trace.start(["carol"], 0)
        self.assertEqual(
            steps(RoomEvent(id="3", **made), "carol", "bob"), [("placed", "carol"), ("placed", "bob"), *both]
        )
        self.trace.start(["alice"], 0)
        self.assertEqual(steps(RoomEvent(id="4", **made)), both)
        self.events.clear()
        self.trace.placed_in("r-1", 3, "4", "alice")
        self.trace.accepted("4", "alice", "phone")
        self.trace.accepted("5", "carol", "phone")
        self.assertEqual(
            self.lines_of("room", "version", "user"),
            [("placed", "r-1", 3, None), ("accepted", None, None, "alice")],
        )

    def test_bound(self) -> None:
        """The oldest are forgotten; all when it ends."""
        submissions = [self.written(f"m{n}") for n in range(MAX_CONCERNED + 1)]
        for submission in submissions:
            self.placed(submission, "bob")
        self.assertEqual(len(self.trace._concerned), MAX_CONCERNED)
        self.now += 1
        bodies = [submissions[0].body, submissions[-1].body]
        self.assertEqual(self.followed(*bodies), 1)
        self.trace.start(["carol"], 0)
        self.assertEqual(self.followed(*bodies), 0)


class SessionTests(TraceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch_trace()
        self.inbox = InboxDouble()

    def patch_trace(self) -> None:
        self.patch(importlib.import_module("imd.chat.session"), "TRACE", self.trace)
        self.trace.start(["bob"], 0)

    def begin(self) -> Session:
        request = ConnectRequest("bob", "phone", "c1")
        session = Session(self.inbox, WireDouble(), request, acknowledges=True, window=8)
        session.begin(self.inbox.register(request))
        return session

    def test_pushed_pulled_acknowledged(self) -> None:
        """Each number's lines: pushed or pulled, then acked, or not acked at the end."""
        self.inbox.place("bob", message("m1"))
        session = self.begin()
        for n in (2, 3):
            placed = self.inbox.place("bob", message(f"m{n}"))
            session.hint(placed.epoch, placed.seq, placed.body)
        session.acknowledge(2)
        session.leave(clean=True)
        steps = [(event["message_id"], event["step"], event["seq"]) for event in self.events]
        self.assertEqual(steps[:3], [("m1", "pulled", 1), ("m2", "pushed", 2), ("m3", "pushed", 3)])
        self.assertEqual(steps[3:], [("m1", "acked", 1), ("m2", "acked", 2), ("m3", "not acked", 3)])
        self.assertEqual({event["channel"] for event in self.events}, {"c1"})

    def test_reset(self) -> None:
        """Numbers of an old epoch are not confused with the new one's."""
        session = self.begin()
        for n in (1, 2):
            placed = self.inbox.place("bob", message(f"m{n}"))
            session.hint(placed.epoch, placed.seq, placed.body)
        self.inbox.go_back("bob", 1)
        session.resynchronise()
        self.inbox.settle()
        session.acknowledge(1, session.epoch)
        acked = [event for event in self.events if event["step"] == "acked"]
        self.assertEqual([(event["seq"], event["epoch"]) for event in acked], [(1, "e2")])

    def test_bound(self) -> None:
        """The number of awaited acknowledgements is bounded."""
        session = self.begin()
        for seq in range(1, MAX_AWAITED + 10):
            self.trace.sent("pushed", session, seq, message("m"))
        self.assertEqual(self.trace._awaiting, MAX_AWAITED)
        self.trace.left(session)
        self.assertEqual((self.trace._awaiting, self.trace._awaited), (0, {}))
