"""The contract of an Inbox: what was not placed within LATE_MS of getting its id is refused."""

from __future__ import annotations

from typing import Any

from imd.contracts.inbox import LATE_MS, Conflict, Duplicate, Late, NotMember, Placed
from imd.protocol.ids import MessageIds, ServerClock
from tests.contract.room_contract import RoomHarness
from tests.contract.support import ids_of, submission_of

OLD_SECONDS = LATE_MS / 1000 + 1


class LateContract(RoomHarness):
    """Messages with old ids."""

    async def begin_late(self) -> None:
        """`present` and `old` make ids of their times."""
        await self.begin_rooms()
        self.present = self.ids
        self.old = self.ids_of_before(OLD_SECONDS)

    def ids_of_before(self, seconds: float) -> MessageIds:
        """They are so old by the backend's clock, which may be one that a test steps."""
        clock = self.id_clock()
        return MessageIds(ServerClock(lambda: clock.now_ms() / 1000 - seconds, clock.monotonic))

    def old_message(self, *args: Any, **more: Any) -> Any:
        self.ids = self.old
        try:
            return self.message(*args, **more)
        finally:
            self.ids = self.present

    async def test_refused(self) -> None:
        """A message whose id is too old is not placed, whatever comes behind it. A resend has a new id."""
        await self.begin_late()
        late = [self.old_message("alice", "bob", client_msg_id=f"c-{n}") for n in range(2)]
        fresh = self.message("carol", "bob")
        self.assertEqual([type(one) for one in await self.send(*late, fresh)], [Late, Late, Placed])
        self.assertEqual(ids_of(await self.read("bob", 0, 100)), [fresh.id])
        again = self.message("alice", "bob", client_msg_id="c-0")
        self.assertEqual([type(one) for one in await self.send(again)], [Placed])

    async def test_in_time(self) -> None:
        """A message that took some seconds is placed."""
        await self.begin_late()
        self.ids = self.ids_of_before(OLD_SECONDS - 3)

        async def placed() -> bool:
            # On a busy machine it may have taken some more.
            return [type(one) for one in await self.send(self.message("alice", "bob"))] == [Placed]

        await self.until(placed)

    async def test_resends_come_first(self) -> None:
        """A late copy of a message that was placed is answered as the first."""
        await self.begin_late()
        first = self.message("alice", "bob", client_msg_id="c-1")
        await self.send(first)
        outcomes = await self.send(
            self.old_message("alice", "bob", client_msg_id="c-1"),
            self.old_message("alice", "bob", "other", client_msg_id="c-1"),
        )
        self.assertEqual(outcomes, [Duplicate(first.id, first.send_time), Conflict()])

    async def test_lists(self) -> None:
        """Of messages to one list in one batch the old ones are refused, the others keep their numbers."""
        await self.begin_late()
        users = [f"u{n}" for n in range(9)]
        late = [self.old_message("alice", group=users) for _ in range(2)]
        fresh = [self.message(sender, group=users) for sender in ("alice", "bob", "alice")]
        outcomes = await self.send(*late, *fresh)
        self.assertEqual([type(one) for one in outcomes], [Late, Late, Placed, Placed, Placed])
        for place, outcome in enumerate(outcomes[2:], 1):
            self.assertEqual([(d.user, d.seq) for d in outcome.deliveries], [(user, place) for user in users])
        self.assertEqual(ids_of(await self.read("u8", 0, 100)), [message.id for message in fresh])

    async def test_rooms(self) -> None:
        """A message to a room is refused like any other; the event of a change is placed at any age."""
        await self.begin_late()
        room = await self.make("mary")
        self.ids = self.old
        late = self.to_room(room, "olga")
        changed = await self.change(room, "olga", "set", name="late")
        self.ids = self.present
        self.assertEqual(await self.inbox.accept([late]), [Late()])
        self.assertLess(changed.event_id, room and self.ids.next()[0])
        self.assertEqual(await self.told("mary"), [("create", 1), ("set", 2)])
        (outcome,) = await self.inbox.accept([self.to_room(room, "eve")])
        self.assertEqual(outcome, NotMember())

    async def test_visitors(self) -> None:
        """A visitor's message is refused, too, and makes no visitor wait."""
        await self.begin_late()
        late = self.old_message("visitor-1", client_msg_id="c-1")
        self.assertEqual(await self.inbox.accept([submission_of(late)]), [Late()])
        await self.agent("anna")
        self.assertEqual(await self.inbox.serve_desk(), [])
        fresh = self.message("visitor-1", client_msg_id="c-1")
        (outcome,) = await self.inbox.accept([submission_of(fresh)])
        self.assertEqual(outcome.agent, "anna")
        again = self.old_message("visitor-1", client_msg_id="c-1")
        (outcome,) = await self.inbox.accept([submission_of(again)])
        self.assertEqual(outcome, Duplicate(fresh.id, fresh.send_time, "anna"))

    assertLess: Any
