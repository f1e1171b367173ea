"""The contract of an Inbox: messages on their way in, and reading."""

from __future__ import annotations

from typing import Any

from imd.contracts.inbox import Conflict, Duplicate, Placed
from imd.protocol.message import decode_message, encode_message
from tests.contract.support import InboxHarness, ids_of, numbers_of, submission_of


class AcceptContract(InboxHarness):
    """`accept` and `pull`."""

    assertEqual: Any
    assertNotEqual: Any
    assertIsInstance: Any
    assertRegex: Any
    assertLess: Any

    async def test_numbers_rise_by_one(self) -> None:
        """The first message of an inbox has number 1, the next 2, in one epoch, and the bodies as given."""
        await self.begin()
        first, second = self.message("alice", "bob"), self.message("carol", "bob", "höhö 😀")
        outcomes = await self.send(first) + await self.send(second)
        deliveries = [outcome.deliveries[0] for outcome in outcomes]
        self.assertEqual([(d.user, d.seq) for d in deliveries], [("bob", 1), ("bob", 2)])
        self.assertEqual([d.body for d in deliveries], [encode_message(first), encode_message(second)])
        self.assertEqual(deliveries[0].epoch, deliveries[1].epoch)
        self.assertRegex(deliveries[0].epoch, "^[0-9a-f]{8,}$")
        page = await self.read("bob")
        self.assertEqual(page.messages, [(d.seq, d.body) for d in deliveries])

    async def test_inboxes_count_apart(self) -> None:
        """Each user has numbers, and an epoch, of its own."""
        await self.begin()
        await self.send_many("alice", "bob", 3)
        (outcome,) = await self.send(self.message("alice", "carol"))
        self.assertEqual(outcome.deliveries[0].seq, 1)
        self.assertNotEqual(outcome.deliveries[0].epoch, (await self.read("bob")).epoch)

    async def test_group_list(self) -> None:
        """A group message gets a number in each recipient's inbox, told in the order of the recipients."""
        await self.begin()
        await self.send_many("alice", "carol", 2)
        message = self.message("alice", group=["dora", "bob", "carol"])
        (outcome,) = await self.send(message)
        self.assertIsInstance(outcome, Placed)
        self.assertEqual(outcome.agent, "")
        numbers = [(d.user, d.seq) for d in outcome.deliveries]
        self.assertEqual(numbers, [("dora", 1), ("bob", 1), ("carol", 3)])
        for user in ("dora", "bob", "carol"):
            self.assertEqual(ids_of(await self.read(user))[-1], message.id)

    async def test_recipient_may_be_the_sender(self) -> None:
        """A message to oneself is in one's own inbox."""
        await self.begin()
        message = self.message("alice", "alice")
        await self.send(message)
        self.assertEqual(ids_of(await self.read("alice")), [message.id])

    async def test_strange_names(self) -> None:
        """Names may hold what separates or quotes elsewhere, and do not mix."""
        await self.begin()
        names = ["a b", "a:b", "{a}", "a}b{", "ä%41", "'a\"", "a*", "A B", "😀", "a\\b"]
        for name in names:
            await self.send(self.message("o'neil {x}", name, msg=name))
        for name in names:
            page = await self.read(name)
            self.assertEqual(numbers_of(page), [1])
            self.assertEqual((await self.connect(name, device="d:{} '")).page.messages, page.messages)

    async def test_overlapping_calls_are_done_in_order(self) -> None:
        """Batches that are asked for without waiting get their numbers in the order of the calls."""
        await self.begin()
        batches = [[self.message("alice", "bob") for _ in range(7)] for _ in range(40)]
        calls = [self.inbox.accept([submission_of(m) for m in batch]) for batch in batches]
        numbers = [outcome.deliveries[0].seq for call in calls for outcome in await call]
        self.assertEqual(numbers, list(range(1, 281)))
        self.assertEqual(ids_of(await self.read("bob")), [m.id for batch in batches for m in batch])

    async def test_empty_batch(self) -> None:
        """Nothing to place gives no outcomes."""
        await self.begin()
        self.assertEqual(await self.inbox.accept([]), [])

    # resends

    async def test_resend(self) -> None:
        """The same message again is answered with the first one's id and time, and placed once."""
        await self.begin()
        first = self.message("alice", "bob", client_msg_id="c-1")
        again = self.message("alice", "bob", client_msg_id="c-1")
        await self.send(first)
        (outcome,) = await self.send(again)
        self.assertEqual(outcome, Duplicate(first.id, first.send_time))
        self.assertEqual(ids_of(await self.read("bob")), [first.id])

    async def test_resend_within_a_batch(self) -> None:
        """Two copies in one batch are one message."""
        await self.begin()
        first = self.message("alice", "bob", client_msg_id="c-1")
        again = self.message("alice", "bob", client_msg_id="c-1")
        last = self.message("alice", "bob")
        outcomes = await self.send(first, again, last)
        self.assertEqual(outcomes[1], Duplicate(first.id, first.send_time))
        self.assertEqual(ids_of(await self.read("bob")), [first.id, last.id])

    async def test_client_message_id_for_another_message(self) -> None:
        """Another text or recipient under a used clientMsgId is a conflict, and not placed."""
        await self.begin()
        first = self.message("alice", "bob", client_msg_id="c-1")
        outcomes = await self.send(
            first,
            self.message("alice", "bob", "other", client_msg_id="c-1"),
            self.message("alice", "carol", client_msg_id="c-1"),
        )
        self.assertEqual(outcomes[1:], [Conflict(), Conflict()])
        self.assertEqual(ids_of(await self.read("bob")), [first.id])
        self.assertEqual(ids_of(await self.read("carol")), [])

    async def test_client_message_ids_belong_to_a_device(self) -> None:
        """The same clientMsgId of another user or device is another message."""
        await self.begin()
        one, two, three = (self.message(n, "bob", client_msg_id="c-1") for n in ("alice", "alice", "carol"))
        outcomes = [*await self.send(one), *await self.send(two, device="tablet"), *await self.send(three)]
        self.assertEqual([type(outcome) for outcome in outcomes], [Placed] * 3)
        self.assertEqual(ids_of(await self.read("bob")), [one.id, two.id, three.id])

    async def test_no_client_message_id(self) -> None:
        """Without a clientMsgId equal messages are several messages."""
        await self.begin()
        await self.send(self.message("alice", "bob"), self.message("alice", "bob"))
        self.assertEqual(numbers_of(await self.read("bob")), [1, 2])

    async def test_client_message_ids_are_forgotten(self) -> None:
        """A clientMsgId is remembered for dedup_seconds after its last use, and no longer."""
        await self.begin(dedup_seconds=30)

        async def again() -> Any:
            return (await self.send(self.message("alice", "bob", client_msg_id="c-1")))[0]

        self.assertIsInstance(await again(), Placed)
        await self.advance(20)
        self.assertIsInstance(await again(), Duplicate)
        await self.advance(20)
        self.assertIsInstance(await again(), Duplicate)
        await self.advance(45)
        self.assertIsInstance(await again(), Placed)

    # the bound

    async def test_oldest_leave_a_full_inbox(self) -> None:
        """Past max_messages the oldest leave; numbers go on."""
        await self.begin(max_messages=5)
        messages = await self.send_many("alice", "bob", 4) + await self.send_many("alice", "bob", 4)
        page = await self.read("bob")
        self.assertEqual(page.head, 8)
        self.assertEqual(numbers_of(page), [4, 5, 6, 7, 8])
        self.assertEqual(ids_of(page), [message.id for message in messages[3:]])

    # pulling

    async def test_pull_pages(self) -> None:
        """A page begins after the number given, and holds no more than the limit; head is the last number."""
        await self.begin()
        await self.send_many("alice", "bob", 10)
        page = await self.read("bob", after=3, limit=4)
        self.assertEqual((page.head, numbers_of(page)), (10, [4, 5, 6, 7]))
        self.assertEqual(numbers_of(await self.read("bob", after=8, limit=4)), [9, 10])
        self.assertEqual(numbers_of(await self.read("bob", after=10, limit=4)), [])
        self.assertEqual(numbers_of(await self.read("bob", after=99, limit=4)), [])

    async def test_large_group(self) -> None:
        """A message to many is in every inbox, whole, between others, until its own device has it."""
        await self.begin()
        members = [f"member{i}" for i in range(20)]
        await self.send(self.message("alice", "member3", "before"))
        message = self.message("alice", group=members)
        await self.send(message)
        await self.send(self.message("alice", "member3", "after"))
        for member in members:
            page = await self.read(member)
            self.assertIn(encode_message(message), [body for _, body in page.messages])
        self.assertEqual(
            [decode_message(body).msg for _, body in (await self.read("member3")).messages],
            ["before", message.msg, "after"],
        )

    async def test_one_list_again_and_again(self) -> None:
        """Messages to the same list, new ones and resends and other things between them, in one batch."""
        await self.begin()
        members = [f"member{i}" for i in range(9)]
        first = self.message("alice", group=members, client_msg_id="c-1")
        await self.send(first)
        again = self.message("alice", group=members, client_msg_id="c-1")
        other = self.message("alice", group=members[:5])
        single = self.message("alice", "member3")
        visitor = self.message("visitor-1", msg="hello?")
        new = [self.message("alice", group=members, client_msg_id=f"c-{n}") for n in (2, 3, 3, 4)]
        outcomes = await self.send(again, new[0], single, new[1], visitor, other, new[2], new[3])
        self.assertEqual(outcomes[0], Duplicate(first.id, first.send_time))
        self.assertEqual(outcomes[6], Duplicate(new[1].id, new[1].send_time))
        self.assertEqual([type(o) for o in outcomes].count(Placed), 6)
        for number, member in enumerate(members):
            mine = [first, new[0], *([single] if number == 3 else []), new[1]]
            mine += [*([other] if number < 5 else []), new[3]]
            page = await self.read(member)
            self.assertEqual(ids_of(page), [message.id for message in mine])
            self.assertEqual(numbers_of(page), list(range(1, len(mine) + 1)))
        told = outcomes[7].deliveries
        self.assertEqual([d.user for d in told], members)
        self.assertEqual([d.seq for d in told], [6 if n == 3 else 5 if n < 5 else 4 for n in range(9)])

    async def test_pull_of_another_epoch(self) -> None:
        """A page of an epoch that is not the inbox's is empty, and names the one that is."""
        await self.begin()
        (outcome,) = await self.send(self.message("alice", "bob"))
        page = await self.inbox.pull("bob", "feedc0de", 0, 10)
        self.assertEqual(page.epoch, outcome.deliveries[0].epoch)
        self.assertEqual((page.head, list(page.messages)), (1, []))

    async def test_pull_of_nobody(self) -> None:
        """A user who never got anything has an empty inbox, and keeps its epoch."""
        await self.begin()
        page = await self.read("nobody")
        self.assertEqual((page.head, list(page.messages)), (0, []))
        (outcome,) = await self.send(self.message("alice", "nobody"))
        self.assertEqual((outcome.deliveries[0].epoch, outcome.deliveries[0].seq), (page.epoch, 1))

    async def test_pages_are_bounded_in_bytes(self) -> None:
        """A page holds about 256 KiB at most, but one message if there is one; page by page all comes."""
        await self.begin()
        sizes = [100_000] * 6 + [400_000] + [100_000] * 2
        for size in sizes:
            await self.send(self.message("alice", "bob", "x" * size))
        seen: list[int] = []
        while len(seen) < len(sizes):
            page = await self.read("bob", after=len(seen), limit=100)
            self.assertNotEqual(numbers_of(page), [])
            if len(page.messages) > 1:
                self.assertLess(sum(len(body) for _, body in page.messages), 300_000)
            seen += numbers_of(page)
        self.assertEqual(seen, list(range(1, 10)))
