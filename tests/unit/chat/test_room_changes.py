"""Room frames: answered in their turn, when their event is archived, and settled only then."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import ensureDeferred, succeed

from imd.chat import room_changes
from imd.chat.batch import COLD
from imd.chat.room_changes import LATE_MS, SWEPT, RoomChanges
from imd.chat.room_sweep import RoomSweep
from imd.chat.slow import SLOW_SECONDS
from imd.contracts.inbox import NoRoom, Sent
from imd.contracts.rooms import Changed, Leftover, Unchanged
from imd.observe.trace import Trace
from imd.protocol.errors import CONFLICT, Refused, Unavailable
from imd.protocol.events import RoomEvent, encode_event
from tests.unit.chat.support import ConnectionTestCase

ROOM = f"r-{'5' * 32}"
BODY = b'{"kind":"room","id":"x"}'


def event(event_id: str) -> bytes:
    return encode_event(RoomEvent(id=event_id, room=ROOM, user_id="alice"))


class RoomChangesTests(ConnectionTestCase):
    """A client's room frames; the store answers when the test says so."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.connected("alice")
        self.client.take()

    def frame(self, client_msg_id: str = "r-1", **fields: Any) -> None:
        """Send a room frame; the inbox says that its clientMsgId is new."""
        frame = {"type": "room", "clientMsgId": client_msg_id, "action": "set", "room": ROOM, "name": "x"}
        self.client.send(**{**frame, **fields})
        self.inbox.settle()

    def made_ms(self) -> int:
        """The time of the change that the store was asked for last."""
        (_, _, (_, made_ms)), _ = self.rooms.asked[-1]
        return int(made_ms)

    def turn(self) -> None:
        """Do all that was to be done soon."""
        soon, self.soon[:] = list(self.soon), []
        for function in soon:
            function()

    def answered(self, *outcome: Any) -> None:
        self.rooms.answer(*outcome)
        self.turn()

    def test_accepted_when_archived(self) -> None:
        """First the store, then the queue, then the answer; the event is settled behind the queue."""
        self.frame()
        made_ms = self.made_ms()
        changes = self.services.room_changes
        self.assertEqual(changes.oldest_ms(made_ms), made_ms)
        self.answered(Changed(ROOM, 7, "an id", made_ms, [BODY], [7]))
        self.assertEqual((self.client.take(), self.rooms.settled), ([], []))
        self.assertEqual(changes.oldest_ms(made_ms), made_ms)
        self.assertEqual(self.queue.bodies(), [BODY])
        self.queue.confirm()
        self.turn()
        self.assertEqual(self.rooms.settled, [(ROOM, [7])])
        self.assertIsNone(changes.oldest_ms(made_ms))
        (answer,) = self.client.take()
        self.assertEqual(
            answer,
            {
                "type": "accepted",
                "clientMsgId": "r-1",
                "id": "an id",
                "sendTime": made_ms,
                "room": ROOM,
                "version": 7,
            },
        )

    def test_traced(self) -> None:
        """A change has its lines, also one that is not archived, or that was made before."""
        trace = Trace()
        trace.start(["alice"], 0)
        self.patch(room_changes, "TRACE", trace)
        steps: list[tuple[str, str]] = []
        self.patch(trace, "_line", lambda step, event_id, **fields: steps.append((event_id, step)))
        for event_id, bodies in (("1", [event("1")]), ("2", [event("2")]), ("1", [])):
            self.frame()
            self.answered(Changed(ROOM, 7, event_id, self.made_ms(), bodies))
            if event_id == "2":
                self.queue.fail(-1)
            elif bodies:
                self.queue.confirm(-1)
            self.turn()
        failed = [step for event_id, step in steps if event_id == "2"]
        self.assertEqual(failed, ["placed", "published", "not confirmed"])
        done = [step for event_id, step in steps if event_id == "1"]
        self.assertEqual(done, ["placed", "published", "confirmed", "accepted", "placed", "accepted"])

    def test_behind_the_messages_before(self) -> None:
        """A change waits until the frames before it are answered: it must not overtake them on their way."""
        for asked, fails in enumerate((False, True)):
            self.client.send(clientMsgId="1", to="bob", msg="x")
            self.frame()
            self.assertEqual(len(self.rooms.asked), asked)
            self.turn()
            self.inbox.settle()
            self.assertEqual(len(self.rooms.asked), asked)
            if fails:
                self.queue.fail(-1)
            else:
                self.queue.confirm(-1)
            self.turn()
            first = ("error", "1", "unavailable") if fails else ("accepted", "1", None)
            self.assertEqual(self.client.brief(), [first])
            self.inbox.settle()
            self.answered(Unchanged(ROOM, 7))
            self.assertEqual(self.client.brief(), [("accepted", "r-1", None)])

    def test_no_answer_to_the_messages_before(self) -> None:
        """A change is given up like any that takes too long."""
        self.client.send(clientMsgId="1", to="bob", msg="x")
        self.frame()
        self.clock.advance(SLOW_SECONDS)
        self.turn()
        self.inbox.settle()
        self.queue.confirm()
        self.turn()
        self.assertEqual(self.client.brief(), [("accepted", "1", None), ("error", "r-1", "unavailable")])
        self.assertEqual(self.rooms.asked, [])

    def test_not_archived(self) -> None:
        """Without the queue's confirm the answer is `unavailable`, and the event stays unsettled."""
        self.frame()
        self.answered(Changed(ROOM, 7, "an id", 123, [BODY], [7]))
        self.queue.fail()
        self.turn()
        self.assertEqual(self.client.brief(), [("error", "r-1", "unavailable")])
        self.assertEqual(self.rooms.settled, [])

    def test_change_that_failed(self) -> None:
        """Nothing vouches for its time for a while: MongoDB may make it yet. A refused one is over."""
        changes = self.services.room_changes
        self.frame("r-0")
        self.answered(Refused(CONFLICT, "closed"))
        self.frame()
        made_ms = self.made_ms()
        self.rooms.fail(Unavailable("down"))
        self.turn()
        self.assertEqual(changes.oldest_ms(made_ms + LATE_MS), made_ms)
        self.assertIsNone(changes.oldest_ms(made_ms + LATE_MS + 1))

    def test_resend_of_an_older_change(self) -> None:
        """An event from long before is archived by its resend, and settled by the next sweep."""
        self.frame()
        self.answered(Changed(ROOM, 7, "an id", self.made_ms() - 5_000, [BODY], [7]))
        self.queue.confirm()
        self.turn()
        self.assertEqual(self.client.brief(), [("accepted", "r-1", None)])
        self.assertEqual(self.rooms.settled, [])
        looked = ensureDeferred(self.services.room_changes.finish_leftovers())
        self.assertEqual(self.rooms.settled, [(ROOM, [7])])
        self.rooms.answer(None)
        self.rooms.answer([])
        self.successResultOf(looked)

    def test_other_answers(self) -> None:
        """Nothing changed; refused; the store does not answer."""
        for outcome, brief in (
            (Unchanged(ROOM, 7), ("accepted", "r-1", None)),
            (Refused(CONFLICT, "closed"), ("error", "r-1", "conflict")),
        ):
            self.frame()
            self.answered(outcome)
            self.assertEqual(self.client.brief(), [brief])
        self.frame()
        self.rooms.fail(Unavailable("down"))
        self.turn()
        self.assertEqual(self.client.brief(), [("error", "r-1", "unavailable")])
        self.frame()
        self.clock.advance(2.1)
        self.turn()
        self.assertEqual(self.client.brief(), [("error", "r-1", "unavailable")])

    def test_refused_before_mongodb(self) -> None:
        """While the inbox or the queue has a problem, the store is not asked."""
        self.queue.down = "down"
        self.frame()
        self.turn()
        self.assertEqual(self.client.brief(), [("error", "r-1", "unavailable")])
        self.assertEqual(self.rooms.asked, [])

    def test_clientmsgid_of_a_message(self) -> None:
        """A clientMsgId that a message has used is no change's."""
        self.inbox.sent_before = lambda *key: succeed(Sent("other", "an id", 1))
        self.frame()
        self.turn()
        self.assertEqual(self.client.brief(), [("error", "r-1", "invalid_message")])
        self.assertEqual(self.rooms.asked, [])

    def test_messages_to_cold_rooms(self) -> None:
        """The first message waits for the room, and those behind it for the message; one is loaded once."""
        for number in range(3):
            self.client.send(clientMsgId=f"c-{number}", room=ROOM, msg="hi")
        self.assertEqual([question for question, _ in self.rooms.asked], [("warm", ROOM)])
        self.rooms.sizes[ROOM] = 30
        submitted: list[str] = []
        self.patch(self.services.acceptor, "submit", lambda entry: submitted.append(entry.client_msg_id))
        self.rooms.answer(True)
        self.assertEqual(submitted, ["c-0", "c-1", "c-2"])

    def test_ids_rise_in_the_order_of_submission(self) -> None:
        """A frame that waits gets its id when it is submitted, so the first id of a batch is its lowest."""
        ids: list[str] = []
        self.patch(self.services.acceptor, "submit", lambda entry: ids.append(entry.message_id))
        other = self.connected("bob")
        self.client.send(clientMsgId="c-1", room=ROOM, msg="it waits for its room")
        self.client.send(clientMsgId="c-2", to="bob", msg="it waits for the first")
        other.send(clientMsgId="c-1", to="alice", msg="it waits for nobody")
        self.clock.advance(1)
        self.rooms.sizes[ROOM] = 30
        self.rooms.answer(True)
        other.send(clientMsgId="c-2", room=ROOM, msg="the room is there")
        self.assertEqual((len(ids), ids), (4, sorted(ids)))

    def test_message_to_no_room(self) -> None:
        """A room that does not exist is not found; one that cannot be loaded, unavailable."""
        for answer, code in ((False, "not_found"), (Unavailable("down"), "unavailable")):
            self.client.send(clientMsgId="c-1", room=ROOM, msg="hi")
            if isinstance(answer, Exception):
                self.rooms.fail(answer)
            else:
                self.rooms.answer(answer)
            self.turn()
            self.assertEqual(self.client.brief(), [("error", "c-1", code)])

    def test_refused_messages_are_counted(self) -> None:
        """Each once: its room could not be loaded, or not in time, or the store had forgotten it."""
        before = COLD._value.get()
        for client_msg_id in ("c-1", "c-2"):
            self.client.send(clientMsgId=client_msg_id, room=ROOM, msg="hi")
        self.rooms.fail(Unavailable("1000 wait to be loaded"))
        self.turn()
        self.assertEqual(COLD._value.get() - before, 1)
        self.clock.advance(SLOW_SECONDS)
        self.turn()
        self.assertEqual(COLD._value.get() - before, 2)
        self.rooms.sizes[ROOM] = 30
        accept = self.inbox.accept
        self.inbox.accept = lambda batch: succeed([NoRoom()] * len(batch))
        self.client.send(clientMsgId="c-3", room=ROOM, msg="hi")
        self.turn()
        self.assertEqual([code for _, _, code in self.client.brief()], ["unavailable"] * 3)
        self.assertEqual(COLD._value.get() - before, 3)
        self.inbox.accept = accept
        self.rooms.heard(ROOM, 0)
        self.client.send(clientMsgId="c-4", room=ROOM, msg="hi")
        self.rooms.answer(False)
        self.turn()
        self.assertEqual(self.client.brief(), [("error", "c-4", "not_found")])
        self.assertEqual(COLD._value.get() - before, 3)


class RoomSweepTests(ConnectionTestCase):
    """Events that a dead node has left."""

    def test_sweep(self) -> None:
        """Leftovers are archived; the next look settles them first."""
        changes = RoomChanges(self.rooms, self.inbox, self.queue, self.services.ids.next)
        sweep = RoomSweep(changes, self.clock.callLater)
        sweep.start()
        self.clock.advance(8)
        self.rooms.answer([Leftover(ROOM, [BODY], [3])])
        self.assertEqual((self.queue.bodies(), self.rooms.settled), ([BODY], []))
        self.queue.confirm()
        self.clock.advance(4.9)
        self.assertEqual(self.rooms.settled, [])
        self.clock.advance(3)
        self.assertEqual(self.rooms.settled, [(ROOM, [3])])
        self.rooms.answer(None)
        self.assertEqual(self.rooms.asked[-1][0], ("leftovers",))
        self.rooms.fail(Unavailable("down"))
        self.clock.advance(8)
        self.assertEqual(len([1 for question, _ in self.rooms.asked if question == ("leftovers",)]), 3)
        sweep.stop()
        self.assertEqual(self.timers(), [])

    def test_counted_when_settled(self) -> None:
        """Not while the queue takes nothing, nor if settling fails."""
        changes = RoomChanges(self.rooms, self.inbox, self.queue, self.services.ids.next)
        before = SWEPT._value.get()

        def look(left: list[Leftover]) -> Any:
            looked = ensureDeferred(changes.finish_leftovers())
            if self.rooms.asked[-1][0][0] == "settle":
                self.rooms.answer(None)
            self.rooms.answer(left)
            return looked

        left = Leftover(ROOM, [event("f" * 28)], [3])
        for _ in range(3):
            looked = look([left])
            self.queue.fail(-1)
            self.failureResultOf(looked, Unavailable)
        looked = look([left])
        self.queue.confirm(-1)
        self.successResultOf(looked)
        self.assertEqual(SWEPT._value.get(), before)
        looked = ensureDeferred(changes.finish_leftovers())
        self.rooms.fail(Unavailable("MongoDB is away"))
        self.rooms.answer([left])
        self.queue.confirm(-1)
        self.successResultOf(looked)
        self.assertEqual(SWEPT._value.get(), before)
        self.successResultOf(look([]))
        self.assertEqual(SWEPT._value.get(), before + 1)

    def test_own_events_are_not_counted(self) -> None:
        """A node that could not archive the event of its own change finishes with it later."""
        client = self.connected("alice")
        changes = self.services.room_changes
        before = SWEPT._value.get()
        client.send(type="room", clientMsgId="r-1", action="set", room=ROOM, name="x")
        self.inbox.settle()
        (_, _, (event_id, made_ms)), _ = self.rooms.asked[-1]
        body = event(event_id)
        self.rooms.answer(Changed(ROOM, 7, event_id, made_ms, [body], [7]))
        self.queue.fail()
        for left, counted in ((body, 0), (event("f" * 28), 1)):
            looked = ensureDeferred(changes.finish_leftovers())
            self.rooms.answer([Leftover(ROOM, [body, left], [7, 8])])
            self.queue.confirm(-1)
            self.successResultOf(looked)
            looked = ensureDeferred(changes.finish_leftovers())
            self.rooms.answer(None)
            self.rooms.answer([])
            self.successResultOf(looked)
            self.assertEqual(SWEPT._value.get() - before, counted)
