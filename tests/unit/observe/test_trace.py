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
from imd.contracts.inbox import Conflict, ConnectRequest, Delivery, Duplicate, Placed, Submission
from imd.observe.trace import MAX_AWAITED, MAX_LINES_PER_SECOND, TRACE, Trace
from imd.protocol.errors import INVALID_MESSAGE, Refused, Unavailable
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
