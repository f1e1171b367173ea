"""The contract of an Inbox: inboxes that no device has ever opened, mostly of typos."""

from __future__ import annotations

from typing import Any

from imd.contracts.inbox import Duplicate, Placed, TooManyNew
from imd.store.shared_metrics import OPENED
from tests.contract.support import InboxHarness, numbers_of

HOUR_MS = 3_600_000


class OpeningContract(InboxHarness):
    """How much they hold, and how many a sender may begin."""

    assertEqual: Any
    assertIsInstance: Any
    assertTrue: Any

    async def kinds(self, *messages: Any) -> list[type]:
        return [type(outcome) for outcome in await self.send(*messages)]

    async def traces_of(self, user: str) -> int:
        """How much the store holds of the user."""
        raise NotImplementedError

    # how much they hold

    async def test_holds_less(self) -> None:
        """It holds unopened_messages; its first device is told of the others until it has read that."""
        await self.begin(unopened_messages=3, max_messages=10)
        for _ in range(2):
            await self.send_many("alice", "bob", 4)
        outcome = await self.connect("bob")
        self.assertEqual((outcome.seq, outcome.recovered), (5, False))
        self.assertEqual(numbers_of(outcome.page), [6, 7, 8])
        await self.leave("bob", start_confirmed=False)
        again = await self.connect("bob")
        self.assertEqual((again.seq, again.recovered), (5, False))
        await self.ack("bob", 6, start_confirmed=True)
        again = await self.connect("bob")
        self.assertEqual((again.seq, again.recovered), (6, True))

    async def test_list(self) -> None:
        """So it is with messages to lists."""
        await self.begin(unopened_messages=3, max_messages=10)
        users = [f"u{n}" for n in range(9)]
        await self.send(*(self.message("alice", group=users) for _ in range(5)))
        outcome = await self.connect("u8")
        self.assertEqual((outcome.seq, outcome.recovered, numbers_of(outcome.page)), (2, False, [3, 4, 5]))

    async def test_whole(self) -> None:
        """Its first device is not told anything when nothing is missing."""
        await self.begin(unopened_messages=3)
        await self.send_many("alice", "bob", 3)
        outcome = await self.connect("bob")
        self.assertEqual((outcome.seq, outcome.recovered, numbers_of(outcome.page)), (0, True, [1, 2, 3]))

    async def test_second_device(self) -> None:
        """A later device starts before the oldest message, as ever."""
        await self.begin(unopened_messages=3)
        await self.send_many("alice", "bob", 5)
        await self.connect("bob", "phone")
        outcome = await self.connect("bob", "tablet")
        self.assertEqual((outcome.seq, outcome.recovered), (2, True))

    async def test_opened(self) -> None:
        """Once a device has been there max_messages counts, even with the device gone."""
        await self.begin(unopened_messages=3, max_messages=5)
        await self.connect("bob", ephemeral=True)
        await self.leave("bob", ephemeral=True)
        await self.send_many("alice", "bob", 4)
        await self.connect("bob", "tablet")
        await self.send_many("alice", "bob", 2)
        self.assertEqual(numbers_of(await self.read("bob")), [2, 3, 4, 5, 6])

    async def test_max_messages_is_less(self) -> None:
        """The lower of the two bounds counts."""
        await self.begin(unopened_messages=1000, max_messages=2)
        await self.send_many("alice", "bob", 3)
        self.assertEqual(numbers_of((await self.connect("bob")).page), [2, 3])

    # how many

    async def test_so_many_an_hour(self) -> None:
        """A sender begins new_ids of them in an hour; others, and what exists, are no concern of that."""
        await self.begin(new_ids=2)
        await self.connect("bob")
        before = OPENED._value.get()
        first = self.message("alice", "new-1", client_msg_id="c-1")
        self.assertEqual(await self.kinds(first, self.message("alice", "new-2")), [Placed, Placed])
        third = self.message("alice", "new-3", client_msg_id="c-3")
        (refused,) = await self.send(third)
        self.assertIsInstance(refused, TooManyNew)
        self.assertTrue(0 < (refused.retry_after_ms or 0) <= HOUR_MS, refused)
        self.assertEqual(await self.traces_of("new-3"), 0)
        kinds = await self.kinds(
            *(self.message("alice", to) for to in ("bob", "new-1", "new-2", "new-4")),
            self.message("eve", "new-5"),
            first,
        )
        self.assertEqual(kinds, [Placed, Placed, Placed, TooManyNew, Placed, Duplicate])
        self.assertEqual(OPENED._value.get() - before, 3)
        await self.advance(1800)
        third = self.message("alice", "new-3", client_msg_id="c-3")
        (refused,) = await self.send(third)
        self.assertTrue(0 < refused.retry_after_ms <= HOUR_MS / 2, refused)  # type: ignore[union-attr]
        await self.advance(1801)
        third = self.message("alice", "new-3", client_msg_id="c-3")
        self.assertEqual(await self.kinds(third), [Placed])

    async def test_once_each(self) -> None:
        """Many messages to one of them are one; and one that has connected, or was written to, is none."""
        await self.begin(new_ids=2)
        await self.connect("bob")
        batch = [self.message("alice", to) for to in ("new-1", "new-1", "bob", "new-1", "new-2", "new-2")]
        self.assertEqual(await self.kinds(*batch, *batch), [Placed] * 12)

    async def test_lists_count_each(self) -> None:
        """A list counts all that it begins, and is placed whole or not at all."""
        await self.begin(new_ids=3)
        kinds = await self.kinds(
            self.message("alice", group=["new-1", "new-2"]),
            self.message("alice", group=["new-1", "new-3", "new-4"]),
            self.message("alice", group=["new-2", "new-3"]),
            self.message("alice", group=["new-3", "new-1"]),
        )
        self.assertEqual(kinds, [Placed, TooManyNew, Placed, Placed])
        self.assertEqual(await self.traces_of("new-4"), 0)
        self.assertEqual((await self.read("new-1")).head, 2)

    async def test_list_that_is_too_large_for_good(self) -> None:
        """One that begins more than may ever be begun cannot be tried again."""
        await self.begin(new_ids=3)
        group = [f"new-{n}" for n in range(4)]
        self.assertEqual(await self.send(self.message("alice", group=group)), [TooManyNew(None)])
        self.assertEqual(await self.kinds(self.message("alice", group=group[:3])), [Placed])

    async def test_same_list_from_two(self) -> None:
        """Messages to the same list, one behind the other: each sender's limit is its own."""
        await self.begin(new_ids=2)
        await self.send(self.message("alice", "old-1"))
        group = ["new-1", "new-2"]
        kinds = await self.kinds(*(self.message(sender, group=group) for sender in ("alice", "eve", "alice")))
        self.assertEqual(kinds, [TooManyNew, Placed, Placed])
        self.assertEqual((await self.read("new-1")).head, 2)

    async def test_senders_with_any_name(self) -> None:
        """Senders that differ in anything share nothing."""
        await self.begin(new_ids=1)
        names = ["{a}", "%7Ba%7D", "ä", 'quote"', "back\\slash", "a b", "\U0001f600"]
        for n, sender in enumerate(names):
            kinds = await self.kinds(*(self.message(sender, f"new-{n}-{i}") for i in (1, 2)))
            self.assertEqual(kinds, [Placed, TooManyNew], sender)

    async def test_no_limit(self) -> None:
        """With new_ids = 0 there is none."""
        await self.begin(new_ids=0)
        batch = [self.message("alice", f"new-{n}") for n in range(30)]
        self.assertEqual(await self.kinds(*batch, self.message("alice", group=["x", "y"])), [Placed] * 31)
