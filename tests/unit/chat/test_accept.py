"""Group commit: what goes in together, in which order it is answered, and what is never published."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial import unittest

from imd.chat import accept
from imd.chat.accept import Acceptor
from imd.chat.batch import Answer, Refusal
from imd.chat.compose import compose
from imd.chat.room_messages import compose_in_room
from imd.contracts.archive import ArchiveRecord, Record
from imd.contracts.inbox import (
    Closed,
    Delivery,
    Duplicate,
    Failed,
    NoRoom,
    NotAllowed,
    NotMember,
    Outcome,
    Placed,
    RoomAim,
    Submission,
    TooManyNew,
)
from imd.protocol import events, frames
from imd.protocol.author import Author
from imd.protocol.errors import (
    CONFLICT,
    FORBIDDEN,
    INVALID_MESSAGE,
    NOT_FOUND,
    RATE_LIMITED,
    TOO_LARGE,
    UNAVAILABLE,
    Refused,
)
from imd.protocol.frames import MessageFrame
from imd.protocol.ids import MessageIds, ServerClock
from imd.protocol.message import FromUserType, decode_message
from imd.store.rabbit import archive_queue as rabbit_archive_queue
from tests.support.doubles import InboxDouble, QueueDouble


class Writer:
    """A sender: what it sent and what it was answered, in order."""

    def __init__(self, acceptor: Acceptor, ids: MessageIds, name: str = "alice") -> None:
        self._acceptor = acceptor
        self._ids = ids
        self._author = Author(name, "phone", FromUserType.USER_TYPE)
        self.answers: list[tuple[str | None, str]] = []
        """clientMsgId, and `accepted` or the code of the error"""
        self.accepted: dict[str | None, tuple[str, int]] = {}
        self.refused: dict[str | None, Refused] = {}

    def send(self, client_msg_id: str | None, to: str = "bob", msg: str = "hi") -> Submission:
        frame = MessageFrame(client_msg_id=client_msg_id, to=to, msg=msg)
        submission = compose(frame, self._author, self._ids)
        submission.origin = self
        self._acceptor.submit(submission)
        return submission

    def send_group(self, members: int) -> None:
        frame = MessageFrame(group=[f"user{n}" for n in range(members)], msg="hi")
        submission = compose(frame, self._author, self._ids)
        submission.origin = self
        self._acceptor.submit(submission)

    def send_to_room(self, room: str, members: int, *, to_nobody: bool = False) -> None:
        """A message to a room whose node has heard last that it has so many members."""
        frame = MessageFrame(room=room, msg="hi")
        submission = compose_in_room(frame, self._author, self._ids, members)
        assert submission.room is not None
        submission.room.to_nobody = to_nobody
        submission.origin = self
        self._acceptor.submit(submission)

    def send_refused(self, client_msg_id: str) -> None:
        """A frame that was refused already, and waits for its turn to be told."""
        self._acceptor.submit(Refusal(self, client_msg_id, Refused(INVALID_MESSAGE, "no")))

    def message_accepted(self, client_msg_id: str | None, message_id: str, send_time: int) -> None:
        self.answers.append((client_msg_id, "accepted"))
        self.accepted[client_msg_id] = (message_id, send_time)

    def message_refused(self, client_msg_id: str | None, refused: Refused) -> None:
        self.answers.append((client_msg_id, refused.code))
        self.refused[client_msg_id] = refused

    def frame_answered(self, payload: bytes) -> None:
        self.answers.append((None, payload.decode()))


class AcceptorTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.inbox = InboxDouble()
        self.queue = QueueDouble()
        self.patch(self.queue, "publish", self.publish)
        self.delivered: list[Delivery] = []
        self.soon: list[Callable[[], None]] = []
        self.log: list[str] = []
        clock = ServerClock(lambda: 1_764_000_000.0, lambda: self.now)
        self.handed_over: list[ArchiveRecord] = []
        self.acceptor = Acceptor(
            self.inbox, self.queue, self.deliver, clock, self.soon.append, self.handed_over.extend
        )
        self.ids = MessageIds(clock)
        self.alice = Writer(self.acceptor, self.ids)

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        self.log.append("hints")
        self.delivered += deliveries

    def publish(self, records: Sequence[Record]) -> Deferred[None]:
        self.log.append("archive")
        return QueueDouble.publish(self.queue, records)

    def turn(self) -> None:
        """The reactor's next turn."""
        soon, self.soon[:] = list(self.soon), []
        for call in soon:
            call()

    def place(self) -> None:
        """The inbox does and answers what it was asked."""
        self.inbox.settle()

    def confirm_all(self) -> None:
        for _, confirmed in self.queue.published:
            if not confirmed.called:
                confirmed.callback(None)

    def batches(self) -> list[int]:
        """How many messages went into each script call."""
        return [len(batch) for name, batch in self.inbox.asked if name == "accept"]

    def bodies(self, which: int = 0) -> list[Any]:
        """The messages that a batch brought to the archive."""
        return [decode_message(body) for body in self.queue.bodies(which)]

    def submit_event(self, client_msg_id: str, event: events.Event, **more: Any) -> Submission:
        """An event for bob by alice."""
        event.id, event.send_time = self.ids.next()
        event.client_msg_id, event.user_id, event.from_user_type = client_msg_id, "alice", "USER_TYPE"
        body = events.encode_event(event)
        submission = Submission(
            "alice",
            "phone",
            client_msg_id,
            event.checksum(),
            event.id,
            event.send_time,
            ["bob"],
            body,
            **more,
        )
        submission.origin = self.alice
        self.acceptor.submit(submission)
        return submission


class PathTests(AcceptorTestCase):
    def test_too_many_new_recipients(self) -> None:
        """They say when the message may be sent again, or that it never may."""
        self.inbox.refusals = {"new": TooManyNew(5000), "user0": TooManyNew(None)}
        self.alice.send("c-1", "new")
        self.alice.send_group(3)
        self.turn()
        self.place()
        self.assertEqual(self.alice.answers, [("c-1", RATE_LIMITED), (None, TOO_LARGE)])
        refused = self.alice.refused["c-1"]
        self.assertEqual((refused.temporary, refused.retry_after_ms), (True, 5000))
        self.assertEqual((self.alice.refused[None].temporary, self.queue.published), (False, []))

    def test_what_came_along_at_the_desk(self) -> None:
        """A message is archived with its agent; for older ones that came along it does not wait."""
        older = Delivery("anna", "e", 1, ["c"], b"{}")
        mine = self.alice.send("c-1", "desk")
        self.inbox.refusals = {"desk": Placed([older, Delivery("anna", "e", 2, ["c"], mine.body)], "anna")}
        self.turn()
        self.place()
        self.assertEqual(self.queue.published[0][0], [ArchiveRecord(mine.body, "anna")])
        self.assertEqual(self.handed_over, [ArchiveRecord(b"{}", "anna")])
        self.assertEqual([delivery.seq for delivery in self.delivered], [1, 2])

    def test_one_message(self) -> None:
        """Placed, then hinted at, then published, then confirmed, then accepted: in this order."""
        sent = self.alice.send("c-1")
        self.assertEqual(self.inbox.names(), [])
        self.turn()
        self.assertEqual((self.inbox.names(), self.queue.published), (["accept"], []))
        self.inbox.perform()
        self.assertEqual((self.delivered, self.queue.published), ([], []), "before the script's answer")
        self.inbox.answer()
        self.assertEqual([(d.user, d.seq, d.body) for d in self.delivered], [("bob", 1, sent.body)])
        self.assertEqual(self.queue.bodies(), [sent.body])
        self.assertEqual(self.log, ["hints", "archive"])
        self.assertEqual(self.alice.answers, [], "before the confirm")
        self.queue.confirm()
        self.assertEqual(self.alice.accepted, {"c-1": (sent.message_id, sent.send_time)})

    def test_lost_script_answer(self) -> None:
        """A message that may be in the inboxes is unavailable; it is neither archived nor tried again."""
        self.alice.send("c-1")
        self.turn()
        self.inbox.perform()
        self.inbox.lose_answer()
        self.assertEqual(self.alice.answers, [("c-1", UNAVAILABLE)])
        self.assertTrue(self.alice.refused["c-1"].temporary)
        self.assertIsNotNone(self.alice.refused["c-1"].retry_after_ms)
        self.assertEqual((self.queue.published, self.delivered, self.batches()), ([], [], [1]))

    def test_lost_confirm(self) -> None:
        """A message that is in the inboxes and may not be archived is unavailable."""
        self.alice.send("c-1")
        self.turn()
        self.place()
        self.queue.fail()
        self.assertEqual(self.alice.answers, [("c-1", UNAVAILABLE)])

    def test_resend(self) -> None:
        """A resend is answered with the first id and time, archived under them, and not delivered again."""
        first = self.alice.send("c-1")
        self.turn()
        self.place()
        self.queue.fail()
        self.now += 5
        again = self.alice.send("c-1")
        self.assertNotEqual(first.message_id, again.message_id)
        self.turn()
        self.place()
        self.assertEqual(self.alice.answers, [("c-1", UNAVAILABLE)])
        [message] = self.bodies(1)
        self.assertEqual((message.id, message.send_time), (first.message_id, first.send_time))
        self.assertEqual((message.msg, message.client_msg_id), ("hi", "c-1"))
        self.queue.confirm(1)
        self.assertEqual(self.alice.accepted["c-1"], (first.message_id, first.send_time))
        self.assertEqual(len(self.delivered), 1)

    def test_event(self) -> None:
        """An event is delivered as it is, and archived with what only the archive needs behind it."""
        edit = events.Edit(of="0" * 28, to="bob", msg="hello")
        submission = self.submit_event("c-1", edit, kind="edit", archived=b'"ofVersion":3')
        self.turn()
        self.place()
        self.assertEqual([delivery.body for delivery in self.delivered], [submission.body])
        [record] = self.queue.bodies(0)
        self.assertEqual(record, submission.body[:-1] + b',"ofVersion":3}')
        self.confirm_all()
        self.assertEqual(self.alice.accepted["c-1"], (edit.id, edit.send_time))

    def test_event_sent_again(self) -> None:
        """Its archive record is that of the first time."""
        first = self.submit_event(
            "c-1", events.Recall(of="0" * 28, to="bob"), kind="recall", archived=b'"a":1'
        )
        self.turn()
        self.place()
        self.queue.fail()
        self.now += 5
        self.submit_event("c-1", events.Recall(of="0" * 28, to="bob"), kind="recall", archived=b'"a":1')
        self.turn()
        self.place()
        self.assertEqual(self.queue.bodies(1), [first.body[:-1] + b',"a":1}'])
        self.queue.confirm(1)
        self.assertEqual(self.alice.accepted["c-1"], (first.message_id, first.send_time))
        self.assertEqual(len(self.delivered), 1)

    def test_message_of_a_room(self) -> None:
        """The archive gets the body with the version that it was placed under, a resend with the first."""
        outcomes: list[Outcome] = [Placed([], "", 7), Duplicate("1" * 28, 5, "", 4)]
        self.patch(self.inbox, "accept", lambda batch: succeed(outcomes))
        for client_msg_id in ("c-1", "c-2"):
            message = events.RoomMessage(
                "2" * 28, client_msg_id, "alice", "USER_TYPE", "r-1", 0, "hi", send_time=9
            )
            aim = RoomAim("r-1", *events.split_at_version(message))
            submission = Submission("alice", "phone", client_msg_id, "x", message.id, 9, (), aim.body(0))
            submission.kind, submission.room, submission.origin = "message", aim, self.alice
            self.acceptor.submit(submission)
        self.turn()
        told = [json.loads(body) for body in self.queue.bodies(0)]
        self.assertEqual([(one["id"], one["sendTime"]) for one in told], [("2" * 28, 9), ("1" * 28, 5)])
        self.assertEqual([one["roomVersion"] for one in told], [7, 4])

    def test_finished_answers_wait_for_their_turn(self) -> None:
        """A frame that changed nothing is answered behind the messages before it, and kept by a failure."""
        self.alice.send("c-1")
        self.acceptor.submit(Answer(self.alice, "c-2", frames.unchanged("c-2")))
        self.alice.send("c-3")
        self.turn()
        self.assertEqual(self.alice.answers, [])
        self.place()
        self.queue.fail()
        unchanged = (None, '{"type":"accepted","clientMsgId":"c-2","changed":false}')
        self.assertEqual(self.alice.answers, [("c-1", UNAVAILABLE), unchanged, ("c-3", UNAVAILABLE)])

    def test_room_that_refuses(self) -> None:
        """Each reason of a room has its error."""
        self.inbox.refusals = {"r1": NoRoom(), "r2": NotMember(), "r3": Closed()}
        for room in self.inbox.refusals:
            self.alice.send(room, to=room)
        self.turn()
        self.place()
        self.assertEqual(self.alice.answers, [("r1", UNAVAILABLE), ("r2", NOT_FOUND), ("r3", CONFLICT)])

    def test_refused_one_by_one(self) -> None:
        """A bad message fails alone; a message that is in no inbox is not archived."""
        self.inbox.refusals = {"nobody": NotAllowed("not yours"), "broken": Failed("wrong type")}
        self.alice.send("c-1")
        self.turn()
        self.place()
        self.confirm_all()
        self.alice.send("c-1", msg="something else")
        self.alice.send("c-2", to="nobody")
        self.alice.send("c-3", to="broken")
        self.alice.send("c-4")
        self.turn()
        self.place()
        self.assertEqual([message.client_msg_id for message in self.bodies(1)], ["c-4"])
        self.confirm_all()
        expected = [("c-1", INVALID_MESSAGE), ("c-2", FORBIDDEN), ("c-3", UNAVAILABLE), ("c-4", "accepted")]
        self.assertEqual(self.alice.answers[1:], expected)

    def test_nothing_to_archive(self) -> None:
        """A batch of refusals is answered without the archive."""
        self.inbox.refusals = {"nobody": NotAllowed("not yours")}
        self.alice.send("c-1", to="nobody")
        self.turn()
        self.place()
        self.assertEqual((self.alice.answers, self.queue.published), ([("c-1", FORBIDDEN)], []))


class BatchTests(AcceptorTestCase):
    def test_together(self) -> None:
        """Messages of one turn go in as one call, and to the archive as one batch."""
        bob = Writer(self.acceptor, self.ids, "bob")
        for number in range(10):
            self.alice.send(f"a-{number}")
            bob.send(f"b-{number}", to="alice")
        self.turn()
        self.place()
        self.confirm_all()
        self.assertEqual((self.batches(), len(self.queue.published)), ([20], 1))
        self.assertEqual(self.alice.answers, [(f"a-{n}", "accepted") for n in range(10)])
        self.assertEqual(bob.answers, [(f"b-{n}", "accepted") for n in range(10)])

    def test_while_scripts_are_under_way(self) -> None:
        """A few calls are in flight; what arrives meanwhile is the next batch."""
        few = accept.MAX_SCRIPTS_IN_FLIGHT
        for number in range(few + 5):
            self.alice.send(f"c-{number}")
            self.turn()
        self.assertEqual(self.batches(), [1] * few)
        self.inbox.perform()
        self.inbox.answer()
        self.assertEqual(self.batches(), [*[1] * few, 5])
        self.place()
        self.confirm_all()
        self.assertEqual(self.alice.answers, [(f"c-{n}", "accepted") for n in range(few + 5)])

    def test_next_batch_goes_before_the_hints(self) -> None:
        """The inbox is given what waits before this node delivers what it has just placed."""
        self.patch(accept, "MAX_SCRIPTS_IN_FLIGHT", 1)
        for number in range(3):
            self.alice.send(f"c-{number}")
            self.turn()
        asked_when_told: list[list[int]] = []
        self.acceptor._deliver = lambda deliveries: asked_when_told.append(self.batches())
        self.inbox.perform()
        self.inbox.answer()
        self.assertEqual(asked_when_told, [[1, 2]])

    def test_confirms_hold_nothing_back(self) -> None:
        """The next batch is placed and delivered while the last one's confirm is still to come."""
        for number in range(3):
            self.alice.send(f"c-{number}")
            self.turn()
            self.place()
        self.assertEqual((len(self.delivered), self.alice.answers), (3, []))

    def test_bound_by_deliveries(self) -> None:
        """A batch opens so many inboxes; a message to more goes alone."""
        for members in (1000, 166, 1, 3000, 1400):
            self.alice.send_group(members)
        self.turn()
        self.place()
        self.assertEqual(self.batches(), [2, 1, 1, 1])
        self.confirm_all()
        self.assertEqual(len(self.alice.answers), 5)

    def test_bound_by_members(self) -> None:
        """A room counts with the members that were heard of last."""
        for room, members in (("r-1", 1000), ("r-2", 600), ("r-3", 400), ("r-4", 1)):
            self.alice.send_to_room(room, members)
        self.alice.send("c-1")
        self.turn()
        self.assertEqual(self.batches(), [1, 4])

    def test_inboxes_that_are_open(self) -> None:
        """Messages of a batch to the same list or room find its inboxes open: a sixth of the work."""
        for _ in range(10):
            self.alice.send_group(500)
        for _ in range(10):
            self.alice.send_to_room("r-1", 500)
        self.turn()
        self.assertEqual(self.batches(), [9, 1 + 3, 7])

    def test_no_inbox(self) -> None:
        """An event that no inbox gets takes the place of one to a user."""
        for _ in range(20):
            self.alice.send_to_room("r-1", 1000, to_nobody=True)
        self.turn()
        self.assertEqual(self.batches(), [20])

    def test_bound_by_bytes(self) -> None:
        """A batch has so many bytes at most; one message that has more goes alone."""
        for size in (600_000, 300_000, 300_000, 1_500_000, 10):
            self.alice.send(None, msg="x" * size)
        self.turn()
        self.place()
        self.assertEqual(self.batches(), [2, 1, 1, 1])

    def test_time_from_the_oldest(self) -> None:
        """Behind others a message waits for batches before its own: the metric tells all of its wait."""
        self.patch(accept, "MAX_SCRIPTS_IN_FLIGHT", 1)
        self.patch(accept, "MARK_EVERY", 2)
        observed: list[float] = []
        self.patch(accept.ACCEPT_SECONDS, "observe", observed.append)
        for _ in range(4):
            self.alice.send(None, msg="x" * 600_000)
            self.now += 1
        self.turn()
        for _ in range(4):
            self.now += 10
            self.inbox.perform()
            self.inbox.answer()
            self.confirm_all()
        self.assertEqual(self.batches(), [1] * 4)
        # They came at 0, 1, 2 and 3; of two neighbours the first one's time is noted.
        self.assertEqual(observed, [14, 24, 32, 42])
        self.alice.send(None)
        self.turn()
        self.place()
        self.confirm_all()
        self.assertEqual(observed[4:], [0], "what has waited is forgotten with it")

    def test_bound_of_the_queue(self) -> None:
        """Past what may wait, messages are refused, in their turn."""
        self.patch(accept, "MAX_WAITING", 5)
        self.patch(accept, "MAX_SCRIPTS_IN_FLIGHT", 2)
        for number in range(4):
            self.alice.send(f"c-{number}")
            self.turn()
        for number in range(4, 10):
            self.alice.send(f"c-{number}")
        self.assertEqual(self.alice.answers, [])
        self.place()
        self.confirm_all()
        expected = [(f"c-{n}", "accepted" if n < 7 else UNAVAILABLE) for n in range(10)]
        self.assertEqual(self.alice.answers, expected)

    def test_bound_of_the_queue_by_bytes(self) -> None:
        """So it is when those that wait are large; there is room again when they are on their way."""
        self.patch(accept, "MAX_WAITING_BYTES", 1500)
        self.alice.send("c-1", msg="x" * 900)
        self.alice.send("c-2", msg="x" * 900)
        self.alice.send("c-3", msg="x")
        self.turn()
        self.alice.send("c-4", msg="x" * 900)
        self.place()
        self.confirm_all()
        codes = ["accepted", "accepted", UNAVAILABLE, "accepted"]
        self.assertEqual(self.alice.answers, [(f"c-{n}", code) for n, code in enumerate(codes, 1)])


class OrderTests(AcceptorTestCase):
    def test_confirms_out_of_order(self) -> None:
        """Each sender is answered in the order it sent, whichever confirm comes first."""
        for number in range(3):
            self.alice.send(f"c-{number}")
            self.turn()
            self.place()
        self.queue.confirm(2)
        self.queue.fail(1)
        self.assertEqual(self.alice.answers, [])
        self.queue.confirm(0)
        self.assertEqual(self.alice.answers, [("c-0", "accepted"), ("c-1", UNAVAILABLE), ("c-2", "accepted")])

    def test_refused_in_turn(self) -> None:
        """An earlier refusal is answered in its turn, between the others; alone it makes no call."""
        self.alice.send("c-1")
        self.alice.send_refused("c-2")
        self.alice.send("c-3")
        self.turn()
        self.alice.send_refused("c-4")
        self.turn()
        self.assertEqual((self.batches(), self.alice.answers), ([2], []))
        self.place()
        self.confirm_all()
        codes = ["accepted", INVALID_MESSAGE, "accepted", INVALID_MESSAGE]
        expected = [(f"c-{number}", code) for number, code in enumerate(codes, 1)]
        self.assertEqual(self.alice.answers, expected)

    def test_failed_batch_in_between(self) -> None:
        """A batch that fails at once is answered after the one before it."""
        for number in range(2):
            self.alice.send(f"c-{number}")
            self.turn()
        self.inbox.perform()
        self.inbox.answer()
        self.inbox.refuse()
        self.assertEqual(self.alice.answers, [])
        self.queue.confirm()
        self.assertEqual(self.alice.answers, [("c-0", "accepted"), ("c-1", UNAVAILABLE)])

    def test_one_answer_each(self) -> None:
        """Thousands of messages, answers lost at both ends: each message gets one answer, in order."""
        sent = 0
        for step in range(300):
            for _ in range(step % 4):
                self.alice.send(f"c-{sent}")
                sent += 1
            self.turn()
            if step % 5 == 0 and self.inbox.perform():
                self.inbox.lose_answer() if step % 3 == 0 else self.inbox.answer()
            open_ones = [one for one in self.queue.published if not one[1].called]
            if open_ones and step % 7 == 0:
                which = self.queue.published.index(open_ones[step % len(open_ones)])
                self.queue.fail(which) if step % 2 else self.queue.confirm(which)
        while self.inbox.calls or self.inbox.answers:
            self.place()
            self.confirm_all()
            self.turn()
        self.confirm_all()
        answered = [client_msg_id for client_msg_id, _ in self.alice.answers]
        self.assertEqual(answered, [f"c-{n}" for n in range(sent)])
        self.assertEqual({answer for _, answer in self.alice.answers}, {"accepted", UNAVAILABLE})


class BreakerTests(AcceptorTestCase):
    def test_nothing_is_placed(self) -> None:
        """While the archive queue or the inbox is down, messages are refused before the script."""
        for backend in (self.queue, self.inbox):
            backend.down = "redis: down (not connected)"
            self.alice.send("c-1")
            self.turn()
            self.assertEqual(self.alice.answers.pop(), ("c-1", UNAVAILABLE))
            self.assertEqual(self.alice.refused["c-1"].reason, "Redis is not available")
            backend.down = None
        self.assertEqual(self.inbox.asked, [])
        self.alice.send("c-1")
        self.turn()
        self.place()
        self.confirm_all()
        self.assertEqual(self.alice.answers, [("c-1", "accepted")])

    def test_many_refused_behind_one_that_waits(self) -> None:
        """When the batch that all others wait behind is answered, what waited for room goes on too."""
        self.alice.send("c-0")
        self.turn()
        self.place()
        self.queue.down = "no confirm"
        count = accept.MAX_BATCHES_IN_FLIGHT + 20
        for number in range(1, count):
            self.alice.send(f"c-{number}")
            self.turn()
        self.assertEqual(self.alice.answers, [])
        drained = self.acceptor.drained()
        self.queue.fail()
        self.assertEqual(self.alice.answers, [(f"c-{n}", UNAVAILABLE) for n in range(count)])
        self.successResultOf(drained)

    def test_all_that_is_placed_has_room_in_the_archive_queue(self) -> None:
        """While confirms are slow nothing goes to an inbox that the queue would then not take."""
        self.assertLessEqual(accept.MAX_BATCHES_IN_FLIGHT, rabbit_archive_queue.IN_FLIGHT_BATCHES)
        text = "x" * (accept.BATCH_BYTES - 1000)
        for number in range(20):
            self.alice.send(f"c-{number}", msg=text)
            self.turn()
            self.place()
        placed = sum(
            len(body) for which in range(len(self.queue.published)) for body in self.queue.bodies(which)
        )
        self.assertLess(placed + accept.BATCH_BYTES, rabbit_archive_queue.IN_FLIGHT_BYTES)
        self.assertLess(len(self.queue.published), 20)
        while len(self.alice.answers) < 20:
            self.confirm_all()
            self.place()
        self.assertEqual(self.alice.answers, [(f"c-{n}", "accepted") for n in range(20)])

    def test_confirms_from_last_to_first(self) -> None:
        """With as many batches in flight as may be, the last confirm to come lets the waiting ones in."""
        count = accept.MAX_BATCHES_IN_FLIGHT + 3
        for number in range(count):
            self.alice.send(f"c-{number}")
            self.turn()
            self.place()
        self.assertEqual(len(self.queue.published), accept.MAX_BATCHES_IN_FLIGHT)
        for which in reversed(range(accept.MAX_BATCHES_IN_FLIGHT)):
            self.queue.confirm(which)
        self.place()
        self.confirm_all()
        self.assertEqual(self.alice.answers, [(f"c-{n}", "accepted") for n in range(count)])


class DrainTests(AcceptorTestCase):
    def test_idle(self) -> None:
        """With nothing under way it is drained already."""
        self.successResultOf(self.acceptor.drained())

    def test_all_answered(self) -> None:
        """It is drained when the last answer is given, not before."""
        self.alice.send("c-1")
        first = self.acceptor.drained()
        self.turn()
        self.alice.send("c-2")
        second = self.acceptor.drained()
        self.turn()
        self.place()
        self.queue.confirm(0)
        self.assertNoResult(first)
        self.queue.confirm(1)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(len(self.alice.answers), 2)


class MishapTests(AcceptorTestCase):
    def test_backend_that_breaks_its_word(self) -> None:
        """A script answer that does not fit its batch is logged, and everybody is answered."""
        answer: Deferred[Any] = Deferred()
        self.patch(self.inbox, "accept", lambda batch: answer)
        self.alice.send("c-1")
        self.alice.send("c-2")
        self.turn()
        answer.callback([])
        self.assertEqual(self.alice.answers, [("c-1", UNAVAILABLE), ("c-2", UNAVAILABLE)])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.successResultOf(self.acceptor.drained())

    def test_sender_that_fails(self) -> None:
        """A sender that cannot take its answer costs no other sender its own."""
        broken = Writer(self.acceptor, self.ids, "carol")
        self.patch(broken, "message_accepted", lambda *_: 1 / 0)
        broken.send("c-1")
        self.alice.send("c-2")
        self.turn()
        self.place()
        self.confirm_all()
        self.assertEqual(self.alice.answers, [("c-2", "accepted")])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.successResultOf(self.acceptor.drained())
