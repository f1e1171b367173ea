"""What every Inbox must do, whatever it keeps its state in. Mixed into a TestCase that makes one."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from typing import Any

from imd.interfaces import (
    Ack,
    Conflict,
    ConnectRequest,
    Duplicate,
    InboxOptions,
    Lease,
    Leave,
    NotAllowed,
    Page,
    Placed,
    Registered,
    Submission,
    Superseded,
    TooManyChannels,
)
from imd.message import IMessage, encode_message
from tests.rabbit import pause

_numbers = itertools.count(1)


def submission(
    sender: str,
    recipients: Sequence[str],
    *,
    client_msg_id: str | None = None,
    msg: str = "hi",
    device: str = "default",
    visitor_to: str = "",
) -> Submission:
    """A message on its way in; without recipients it is a visitor's."""
    number = next(_numbers)
    message = IMessage(
        id=f"{number:028x}",
        client_msg_id=client_msg_id,
        user_id=sender,
        from_user_type="USER_TYPE" if recipients else "VISITOR_TYPE",
        to=visitor_to or (recipients[0] if len(recipients) == 1 else ""),
        group=list(recipients) if len(recipients) > 1 else None,
        msg=msg,
        send_time=int(time.time() * 1000) + number,
        is_visitor=not recipients,
    )
    return Submission(
        sender=sender,
        device=device,
        client_msg_id=client_msg_id,
        content=message.content(),
        message_id=message.id,
        send_time=message.send_time,
        recipients=recipients,
        body=encode_message(message),
        visitor_to=visitor_to,
    )


def texts(page: Page) -> list[tuple[int, str]]:
    return [(seq, json.loads(body)["msg"]) for seq, body in page.messages]


class InboxContract:
    # Mixed into a trial TestCase.
    assertEqual: Any
    assertTrue: Any
    assertFalse: Any
    assertIsInstance: Any

    """`make` gives a started Inbox with the given options, on a place of its own."""

    async def make(self, options: InboxOptions | None = None) -> Any:
        raise NotImplementedError

    def name(self, user: str) -> str:
        """A user name of this test's own."""
        return f"{user}.{self.id().rsplit('.', 1)[1]}"  # type: ignore[attr-defined]

    async def connect(self, inbox: Any, user: str, channel: str, device: str = "default", **more: Any) -> Any:
        return await inbox.connect(ConnectRequest(user, device, channel, **more))

    async def fill(self, inbox: Any, user: str, count: int) -> None:
        """Messages "1" to "count" in a fresh inbox."""
        batch = [submission("alice", [user], msg=str(number)) for number in range(1, count + 1)]
        outcomes = await inbox.accept(batch)
        assert all(isinstance(outcome, Placed) for outcome in outcomes), outcomes

    # messages on their way in

    async def test_numbers_rise_by_one(self) -> None:
        """Each inbox counts its own messages from 1, within a batch and over batches."""
        inbox = await self.make()
        bob, carol = self.name("bob"), self.name("carol")
        first = await inbox.accept([submission("a", [bob]), submission("a", [bob, carol])])
        second = await inbox.accept([submission("a", [carol])])
        seqs = [[(d.user, d.seq) for d in outcome.deliveries] for outcome in [*first, *second]]
        self.assertEqual(seqs, [[(bob, 1)], [(bob, 2), (carol, 1)], [(carol, 2)]])

    async def test_delivery_names_live_channels(self) -> None:
        """A delivery tells which channels may be told, of all devices of the recipient, and no others."""
        inbox = await self.make()
        bob = self.name("bob")
        await self.connect(inbox, bob, "c1", "phone")
        await self.connect(inbox, bob, "c2", "desktop")
        (outcome,) = await inbox.accept([submission("a", [bob])])
        self.assertEqual(sorted(outcome.deliveries[0].channels), ["c1", "c2"])
        page = await self.connect(inbox, bob, "c3", "tablet")
        self.assertEqual(page.page.epoch, outcome.deliveries[0].epoch)

    async def test_resend_is_found(self) -> None:
        """The same clientMsgId with the same content is answered with the first id, and placed once."""
        inbox = await self.make()
        bob = self.name("bob")
        one = submission(self.name("alice"), [bob], client_msg_id="c-1")
        (first,) = await inbox.accept([one])
        again = submission(one.sender, [bob], client_msg_id="c-1")
        outcomes = await inbox.accept([again, again])
        self.assertIsInstance(first, Placed)
        self.assertEqual(outcomes, [Duplicate(one.message_id, one.send_time, "")] * 2)
        registered = await self.connect(inbox, bob, "c")
        self.assertEqual(len(registered.page.messages), 1)

    async def test_resend_within_a_batch(self) -> None:
        """A resend is found even when it is in the same batch as the first."""
        inbox = await self.make()
        one = submission(self.name("alice"), [self.name("bob")], client_msg_id="c-1")
        first, second = await inbox.accept([one, one])
        self.assertIsInstance(first, Placed)
        self.assertEqual(second, Duplicate(one.message_id, one.send_time, ""))

    async def test_reused_client_msg_id(self) -> None:
        """The same clientMsgId with other content is a conflict; of another device or user it is free."""
        inbox = await self.make()
        alice, bob = self.name("alice"), self.name("bob")
        await inbox.accept([submission(alice, [bob], client_msg_id="c")])
        outcomes = await inbox.accept(
            [
                submission(alice, [bob], client_msg_id="c", msg="other"),
                submission(alice, [bob], client_msg_id="c", device="phone"),
                submission(self.name("zoe"), [bob], client_msg_id="c"),
            ]
        )
        self.assertEqual([type(o) for o in outcomes], [Conflict, Placed, Placed])

    async def test_client_msg_ids_are_forgotten(self) -> None:
        """After dedup_seconds a clientMsgId may be used again."""
        inbox = await self.make(InboxOptions(dedup_seconds=1))
        alice, bob = self.name("alice"), self.name("bob")
        await inbox.accept([submission(alice, [bob], client_msg_id="c", msg="0")])

        async def free() -> bool:
            outcome = await inbox.accept([submission(alice, [bob], client_msg_id="c", msg="1")])
            return isinstance(outcome[0], Placed)

        await self.eventually(free)

    async def test_oldest_leave_a_full_inbox(self) -> None:
        """Past max_messages the oldest leave, and a device that stopped before them is told so."""
        inbox = await self.make(InboxOptions(max_messages=5))
        bob = self.name("bob")
        registered = await self.connect(inbox, bob, "c")
        await self.fill(inbox, bob, 8)
        again = await self.connect(inbox, bob, "c2", epoch=registered.page.epoch, seq=0)
        self.assertEqual((again.seq, again.recovered), (3, False))
        self.assertEqual(texts(again.page), [(n, str(n)) for n in range(4, 9)])

    # devices and cursors

    async def test_new_device_starts_before_the_oldest(self) -> None:
        """A device that was never seen gets all that waits, page by page, in order."""
        inbox = await self.make()
        bob = self.name("bob")
        await self.fill(inbox, bob, 7)
        registered = await self.connect(inbox, bob, "c", page=3)
        self.assertEqual((registered.seq, registered.recovered, registered.page.head), (0, True, 7))
        self.assertEqual(texts(registered.page), [(1, "1"), (2, "2"), (3, "3")])
        rest = await inbox.pull(bob, registered.page.epoch, 3, 100)
        self.assertEqual(texts(rest), [(n, str(n)) for n in range(4, 8)])

    async def test_pull_of_another_epoch_is_empty(self) -> None:
        """Numbers mean nothing in another epoch."""
        inbox = await self.make()
        bob = self.name("bob")
        await self.fill(inbox, bob, 2)
        page = await inbox.pull(bob, "another", 0, 10)
        self.assertEqual((page.head, list(page.messages)), (2, []))

    async def test_client_cursor(self) -> None:
        """A cursor of the client's is continued from; one from elsewhere is not."""
        inbox = await self.make()
        bob = self.name("bob")
        await self.fill(inbox, bob, 4)
        epoch = (await self.connect(inbox, bob, "c0", "other")).page.epoch
        for number, (cursor_epoch, seq, start, recovered) in enumerate(
            [(epoch, 2, 2, True), (epoch, 4, 4, True), (epoch, 5, 4, False), ("zz", 2, 4, False)]
        ):
            registered = await self.connect(inbox, bob, f"c{number}", epoch=cursor_epoch, seq=seq)
            found = (registered.seq, registered.recovered)
            self.assertEqual(found, (start, recovered), (cursor_epoch, seq))

    async def test_own_cursor(self) -> None:
        """Without a cursor of the client's, the device goes on where it last acknowledged."""
        inbox = await self.make()
        bob = self.name("bob")
        await self.fill(inbox, bob, 4)
        registered = await self.connect(inbox, bob, "c1")
        epoch = registered.page.epoch
        head = await inbox.ack(Ack(bob, "default", "c1", epoch, 3))
        self.assertEqual((head.held, head.epoch, head.seq), (True, epoch, 4))
        again = await self.connect(inbox, bob, "c2")
        self.assertEqual((again.seq, again.recovered, texts(again.page)), (3, True, [(4, "4")]))
        self.assertEqual(again.replaced, "c1")

    async def test_inbox_is_trimmed_below_the_least_cursor(self) -> None:
        """What all devices have leaves the inbox; what one still lacks stays."""
        inbox = await self.make()
        bob = self.name("bob")
        await self.fill(inbox, bob, 4)
        epoch = (await self.connect(inbox, bob, "c1", "phone")).page.epoch
        await self.connect(inbox, bob, "c2", "desktop")
        await inbox.ack(Ack(bob, "phone", "c1", epoch, 4))
        self.assertEqual(len((await inbox.pull(bob, epoch, 0, 10)).messages), 4)
        await inbox.ack(Ack(bob, "desktop", "c2", epoch, 2))
        self.assertEqual(texts(await inbox.pull(bob, epoch, 0, 10)), [(3, "3"), (4, "4")])

    async def test_ack_of_a_stranger_counts_nothing(self) -> None:
        """Neither a channel that lost its device nor an old epoch moves a cursor."""
        inbox = await self.make()
        bob = self.name("bob")
        await self.fill(inbox, bob, 2)
        epoch = (await self.connect(inbox, bob, "c1")).page.epoch
        await self.connect(inbox, bob, "c2")
        self.assertFalse((await inbox.ack(Ack(bob, "default", "c1", epoch, 2))).held)
        self.assertTrue((await inbox.ack(Ack(bob, "default", "c2", "old", 2))).held)
        self.assertEqual(len((await inbox.pull(bob, epoch, 0, 10)).messages), 2)

    async def test_devices_past_the_limit_give_way(self) -> None:
        """Of more than `devices` others the one unseen longest loses its cursor."""
        inbox = await self.make(InboxOptions(devices=2))
        bob = self.name("bob")
        await self.fill(inbox, bob, 1)
        for number in range(4):
            registered = await self.connect(inbox, bob, f"c{number}", f"d{number}")
            ack = Leave(bob, f"d{number}", f"c{number}", registered.page.epoch, 1, False)
            if number:
                await inbox.leave(ack)
            else:
                await inbox.leave(ack._replace(seq=0))
        # d0 had acknowledged nothing and held the trim back; it is the one that went.
        page = await inbox.pull(bob, registered.page.epoch, 0, 10)
        self.assertEqual(list(page.messages), [])

    async def test_ephemeral_device_leaves_no_cursor(self) -> None:
        """An ephemeral device that goes holds nothing back."""
        inbox = await self.make()
        bob = self.name("bob")
        epoch = (await self.connect(inbox, bob, "c1", "phone")).page.epoch
        await self.connect(inbox, bob, "c2", "once", ephemeral=True)
        await self.fill(inbox, bob, 2)
        await inbox.ack(Ack(bob, "phone", "c1", epoch, 2))
        self.assertEqual(len((await inbox.pull(bob, epoch, 0, 10)).messages), 2)
        await inbox.leave(Leave(bob, "once", "c2", epoch, 0, True))
        self.assertEqual(list((await inbox.pull(bob, epoch, 0, 10)).messages), [])

    # channels

    async def test_older_attempt_is_superseded(self) -> None:
        """An older attempt of a device never replaces a newer channel."""
        inbox = await self.make()
        bob = self.name("bob")
        await self.connect(inbox, bob, "new", attempt=5)
        self.assertIsInstance(await self.connect(inbox, bob, "old", attempt=4), Superseded)
        self.assertEqual((await self.connect(inbox, bob, "newer", attempt=6)).replaced, "new")

    async def test_resuming_takes_nothing_away(self) -> None:
        """A channel that was there before comes back only if nobody else has the device."""
        inbox = await self.make()
        bob = self.name("bob")
        await self.connect(inbox, bob, "old")
        self.assertIsInstance(await self.connect(inbox, bob, "old", resume=True), Registered)
        await self.connect(inbox, bob, "new")
        self.assertIsInstance(await self.connect(inbox, bob, "old", resume=True), Superseded)

    async def test_too_many_channels(self) -> None:
        """A user has at most channels_per_user others; the device's own last channel does not count."""
        inbox = await self.make(InboxOptions(channels_per_user=2))
        bob = self.name("bob")
        await self.connect(inbox, bob, "c1", "d1")
        await self.connect(inbox, bob, "c2", "d2")
        self.assertIsInstance(await self.connect(inbox, bob, "c3", "d3"), TooManyChannels)
        self.assertIsInstance(await self.connect(inbox, bob, "c4", "d2"), Registered)

    async def test_leases(self) -> None:
        """A channel that is not renewed is no longer told; renewing never brings back what was replaced."""
        inbox = await self.make(InboxOptions(lease_seconds=1))
        bob = self.name("bob")
        await self.connect(inbox, bob, "c1")

        async def forgotten() -> bool:
            (outcome,) = await inbox.accept([submission("a", [bob])])
            return not outcome.deliveries[0].channels

        self.assertTrue((await inbox.renew(Lease(bob, "default", "c1", False, True))).held)
        await self.eventually(forgotten)
        await self.connect(inbox, bob, "c2")
        self.assertFalse((await inbox.renew(Lease(bob, "default", "c1", False, True))).held)
        (outcome,) = await inbox.accept([submission("a", [bob])])
        self.assertEqual(list(outcome.deliveries[0].channels), ["c2"])

    async def test_leaving_is_compare_and_delete(self) -> None:
        """A late goodbye does not remove the newer channel."""
        inbox = await self.make()
        bob = self.name("bob")
        epoch = (await self.connect(inbox, bob, "c1")).page.epoch
        await self.connect(inbox, bob, "c2")
        await inbox.leave(Leave(bob, "default", "c1", epoch, 0, False))
        (outcome,) = await inbox.accept([submission("a", [bob])])
        self.assertEqual(list(outcome.deliveries[0].channels), ["c2"])
        await inbox.leave(Leave(bob, "default", "c2", epoch, 1, False))
        (outcome,) = await inbox.accept([submission("a", [bob])])
        self.assertEqual(list(outcome.deliveries[0].channels), [])
        again = await self.connect(inbox, bob, "c3")
        self.assertEqual(again.seq, 1)

    async def test_ids_of_any_kind(self) -> None:
        """No character of an id gets out of its place."""
        inbox = await self.make()
        odd = ("{b}", "b}:inbox", "*", "b:c", "ü€😀", "a b", "%7B", "~", "'\"\\")
        names = [self.name(name) for name in odd]
        await inbox.accept([submission("a", [name]) for name in names])
        for name in names:
            registered = await self.connect(inbox, name, "c", device=name[:20])
            self.assertEqual(len(registered.page.messages), 1, name)

    # the desk

    async def test_visitor_gets_the_least_loaded_agent(self) -> None:
        """Agents online share visitors evenly, and each visitor keeps its own."""
        inbox = await self.make()
        await self.connect(inbox, "agent1", "a1", answers_visitors=True)
        await self.connect(inbox, "agent2", "a2", answers_visitors=True)
        visitors = [f"visitor-{number}" for number in range(4)]
        outcomes = await inbox.accept([submission(v, []) for v in visitors])
        agents = [outcome.agent for outcome in outcomes]
        self.assertEqual(sorted(agents), ["agent1", "agent1", "agent2", "agent2"])
        again = await inbox.accept([submission(v, []) for v in visitors])
        self.assertEqual([outcome.agent for outcome in again], agents)
        self.assertEqual(await inbox.agent_of("visitor-0"), agents[0])
        self.assertEqual([d.user for d in again[0].deliveries], [agents[0]])

    async def test_visitor_writes_to_its_agent_only(self) -> None:
        """`to` of a visitor is its agent or nobody."""
        inbox = await self.make()
        await self.connect(inbox, "agent1", "a1", answers_visitors=True)
        outcomes = await inbox.accept(
            [
                submission("visitor-1", [], visitor_to="bob"),
                submission("visitor-1", [], visitor_to="agent1"),
            ]
        )
        self.assertEqual([type(o) for o in outcomes], [NotAllowed, Placed])

    async def test_waiting_visitors_are_served_in_order(self) -> None:
        """With nobody online visitors wait, in order, and so do their messages; an agent gets them all."""
        inbox = await self.make()
        for visitor, msg in (("visitor-1", "1"), ("visitor-2", "2"), ("visitor-1", "3")):
            (outcome,) = await inbox.accept([submission(visitor, [], msg=msg)])
            self.assertEqual(outcome, Placed([], ""))
        self.assertEqual(await inbox.serve_desk(), [])
        await self.connect(inbox, "agent1", "a1", answers_visitors=True)
        deliveries = await inbox.serve_desk()
        last = deliveries[-1]
        self.assertEqual((last.user, last.seq, list(last.channels)), ("agent1", 3, ["a1"]))
        page = await inbox.pull("agent1", last.epoch, 0, 10)
        self.assertEqual(texts(page), [(1, "1"), (2, "3"), (3, "2")])
        self.assertEqual(await inbox.serve_desk(), [])
        self.assertEqual(await inbox.agent_of("visitor-2"), "agent1")

    async def test_visitors_of_an_agent_that_stays_away(self) -> None:
        """Past the grace period another agent gets the visitors, with what the first had not acknowledged."""
        inbox = await self.make(InboxOptions(desk_grace_seconds=1))
        epoch = (await self.connect(inbox, "agent1", "a1", answers_visitors=True)).page.epoch
        await inbox.accept([submission("visitor-1", [], msg=msg) for msg in ("1", "2", "3")])
        await inbox.leave(Leave("agent1", "default", "a1", epoch, 1, False))
        await self.connect(inbox, "agent2", "a2", answers_visitors=True)
        deliveries: list[Any] = []

        async def served() -> bool:
            deliveries.extend(await inbox.serve_desk())
            return bool(deliveries)

        await self.eventually(served)
        page = await inbox.pull("agent2", deliveries[-1].epoch, 0, 10)
        self.assertEqual((deliveries[-1].user, deliveries[-1].seq), ("agent2", 2))
        self.assertEqual(texts(page), [(1, "2"), (2, "3")])
        self.assertEqual(await inbox.agent_of("visitor-1"), "agent2")

    async def test_visitor_tokens(self) -> None:
        """A visitor is known by its own hash, and by no other."""
        inbox = await self.make()
        await inbox.remember_visitor("visitor-1", "aa")
        await inbox.remember_visitor("visitor-2", "bb")
        known = [
            await inbox.knows_visitor(visitor, token)
            for visitor, token in (("visitor-1", "aa"), ("visitor-1", "bb"), ("visitor-3", "aa"))
        ]
        self.assertEqual(known, [True, False, False])

    async def eventually(self, condition: Any) -> None:
        """Wait for an asynchronous condition, with a deadline."""
        end = time.monotonic() + 20
        while not await condition():
            assert time.monotonic() < end, "not in time"
            await pause(0.1)
