"""The contract of blocks: between the two nothing passes, lists leave out, rooms and recalls are exempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imd.contracts.blocks import BlockStore
from imd.contracts.inbox import (
    Conflict,
    Duplicate,
    Failed,
    NotAllowed,
    Outcome,
    Placed,
    PlacedPartly,
    Sent,
    Submission,
)
from imd.protocol.errors import Refused
from imd.protocol.events import Edit, React, Recall, encode_event
from tests.contract.room_contract import RoomHarness
from tests.contract.support import ids_of, submission_of

USERS = [f"u{n}" for n in range(12)]


class BlockHarness(RoomHarness):
    """Short words for what tests of blocks do over and over."""

    blocks: BlockStore

    async def make_blocks(self) -> BlockStore:
        """Called after `make_rooms`."""
        raise NotImplementedError

    async def begin_blocks(self, **options: Any) -> None:
        await self.begin_rooms(**options)
        self.blocks = await self.make_blocks()

    async def block(self, user: str, other: str, on: bool = True) -> Any:
        return await self.blocks.block(user, other, on)

    async def try_to_send(self, sender: str, to: str, **more: Any) -> type:
        """The kind of the outcome."""
        (outcome,) = await self.send(self.message(sender, to, **more))
        return type(outcome)

    async def ids_in(self, user: str) -> list[str]:
        return ids_of(await self.read(user, 0, 1000))

    def event(
        self, kind: type, user: str, of: str, recipients: Sequence[str], *, of_list: bool = False, **more: Any
    ) -> Submission:
        """An event about a message to these users."""
        event_id, now = self.ids.next()
        group = None if len(recipients) == 1 and not of_list else list(recipients)
        event = kind(
            id=event_id,
            of=of,
            user_id=user,
            from_user_type="USER_TYPE",
            to=recipients[0] if group is None else "",
            group=group,
            send_time=now,
            **more,
        )
        name = kind.__name__.lower()
        body = encode_event(event)
        submission = Submission(user, "phone", None, "-", event_id, now, recipients, body, kind=name)
        submission.of_list = of_list
        return submission

    async def put(self, *submissions: Submission) -> list[Outcome]:
        return await self.inbox.accept(submissions)


class BlockContract(BlockHarness):
    """Blocks of a store."""

    blocks_module: str
    """the module that bounds the length of lists"""
    assertNotIn: Any

    async def test_both_directions(self) -> None:
        """Once a block is answered nothing passes, and both hear the same; others do not notice."""
        await self.begin_blocks()
        self.assertEqual(await self.try_to_send("eve", "alice"), Placed)
        self.assertEqual(await self.block("alice", "eve"), True)
        outcomes = await self.send(
            self.message("eve", "alice"),
            self.message("alice", "eve"),
            self.message("eve", "bob"),
            self.message("alice", "bob"),
            self.message("bob", "alice"),
            self.message("bob", "eve"),
        )
        self.assertEqual([type(one) for one in outcomes], [NotAllowed] * 2 + [Placed] * 4)
        self.assertEqual(outcomes[0], outcomes[1])
        self.assertEqual([len(await self.ids_in(user)) for user in ("alice", "eve", "bob")], [2, 1, 2])
        self.assertEqual(await self.block("alice", "eve", False), True)
        self.assertEqual(await self.try_to_send("eve", "alice"), Placed)
        self.assertEqual(await self.try_to_send("alice", "eve"), Placed)

    async def test_each_for_itself(self) -> None:
        """Where each blocks the other, both have to end it."""
        await self.begin_blocks()
        await self.block("alice", "eve")
        await self.block("eve", "alice")
        await self.block("alice", "eve", False)
        self.assertEqual(await self.try_to_send("alice", "eve"), NotAllowed)
        self.assertEqual(await self.try_to_send("eve", "alice"), NotAllowed)
        await self.block("eve", "alice", False)
        self.assertEqual(await self.try_to_send("alice", "eve"), Placed)

    async def test_lists_are_told(self) -> None:
        """A list has each user once, by id; saying a thing again changes nothing."""
        await self.begin_blocks()
        self.assertEqual(await self.blocks.of("alice"), [])
        for other in ("mallory", "eve", "eve"):
            await self.block("alice", other)
        self.assertEqual(await self.block("alice", "eve"), False)
        self.assertEqual(await self.blocks.of("alice"), ["eve", "mallory"])
        self.assertEqual(await self.blocks.of("eve"), [])
        self.assertEqual(await self.block("alice", "bob", False), False)
        self.assertEqual(await self.block("alice", "eve", False), True)
        self.assertEqual(await self.blocks.of("alice"), ["mallory"])
        self.assertEqual(await self.blocks.among("mallory", ["alice", "bob"]), {"alice"})
        self.assertEqual(await self.blocks.among("alice", ["mallory", "bob"]), set())
        self.assertEqual(await self.blocks.among("alice", []), set())

    async def test_bound(self) -> None:
        """A list has a bound; past it the answer says so, and what is in the list stays there."""
        self.patch(__import__(self.blocks_module, fromlist=["x"]), "MAX_BLOCKED", 2)
        await self.begin_blocks()
        await self.block("alice", "one")
        await self.block("alice", "two")
        refused = await self.block("alice", "three")
        self.assertIsInstance(refused, Refused)
        self.assertEqual(refused.code, "too_large")
        self.assertEqual(await self.block("alice", "two"), False)
        self.assertEqual(await self.try_to_send("three", "alice"), Placed)
        self.assertEqual(await self.try_to_send("two", "alice"), NotAllowed)

    async def test_strange_names(self) -> None:
        """Names may hold what separates or quotes elsewhere, and do not mix."""
        await self.begin_blocks()
        names = ["a b", "a:b", "{a}", "ä%41", "'a\"", ">a", "<a", "a,b", "😀", "a\\b", "b"]
        for name in names:
            await self.block("o'neil {x}", name)
        self.assertEqual(await self.blocks.of("o'neil {x}"), sorted(names))
        for name in names:
            self.assertEqual(await self.try_to_send(name, "o'neil {x}"), NotAllowed)
            self.assertEqual(await self.try_to_send(name, "a"), Placed)
        (outcome,) = await self.send(self.message("o'neil {x}", group=[*names, "a"], client_msg_id="c-1"))
        self.assertEqual((outcome.without, [d.user for d in outcome.deliveries]), (tuple(names), ["a"]))
        (again,) = await self.send(self.message("o'neil {x}", group=[*names, "a"], client_msg_id="c-1"))
        self.assertEqual(sorted(again.without), sorted(names))

    async def test_resends_come_first(self) -> None:
        """A message that was placed before is answered as it was; one that was refused is judged anew."""
        await self.begin_blocks()
        first = self.message("eve", "alice", client_msg_id="c-1")
        await self.send(first)
        await self.block("alice", "eve")
        outcomes = await self.send(
            self.message("eve", "alice", client_msg_id="c-1"),
            self.message("eve", "alice", "other", client_msg_id="c-1"),
            self.message("eve", "alice", client_msg_id="c-2"),
        )
        self.assertEqual(outcomes[:2], [Duplicate(first.id, first.send_time), Conflict()])
        self.assertIsInstance(outcomes[2], NotAllowed)
        self.assertEqual(await self.ids_in("alice"), [first.id])
        await self.block("alice", "eve", False)
        self.assertEqual(await self.try_to_send("eve", "alice", client_msg_id="c-2"), Placed)

    async def test_own_devices_get_no_copy_of_the_refused(self) -> None:
        """A refused message is in no inbox, also not in that of one's own other device."""
        await self.begin_blocks()
        await self.connect("eve", "tablet", sync=True)
        await self.block("alice", "eve")
        await self.connect("eve", "laptop", sync=True)
        self.assertEqual(await self.try_to_send("eve", "alice"), NotAllowed)
        self.assertEqual(await self.ids_in("eve"), [])
        message = self.message("eve", "bob")
        await self.send(message)
        self.assertEqual(await self.ids_in("eve"), [message.id])
        await self.block("alice", "eve", False)
        message = self.message("eve", "alice")
        (outcome,) = await self.send(message)
        self.assertEqual([d.user for d in outcome.deliveries], ["alice", "eve"])

    # lists

    async def test_lists_leave_out(self) -> None:
        """The other is left out, whichever of the two sends; the node alone is told who."""
        await self.begin_blocks()
        await self.block("alice", "eve")
        by_eve = self.message("eve", group=["bob", "alice", "carol"])
        by_alice = self.message("alice", group=["eve", "bob"])
        by_bob = self.message("bob", group=["alice", "eve"])
        outcomes = await self.send(by_eve, by_alice, by_bob)
        self.assertEqual([type(one) for one in outcomes], [PlacedPartly, PlacedPartly, Placed])
        self.assertEqual([one.without for one in outcomes[:2]], [("alice",), ("eve",)])
        told = [[(d.user, d.seq) for d in one.deliveries] for one in outcomes]
        self.assertEqual(told, [[("bob", 1), ("carol", 1)], [("bob", 2)], [("alice", 1), ("eve", 1)]])
        self.assertEqual(await self.ids_in("alice"), [by_bob.id])
        self.assertEqual(await self.ids_in("eve"), [by_bob.id])
        self.assertEqual(await self.ids_in("bob"), [by_eve.id, by_alice.id])

    async def test_nobody_is_left(self) -> None:
        """A list of blocked users alone is accepted, and gets to nobody but the sender's other device."""
        await self.begin_blocks()
        await self.connect("alice", "tablet", sync=True)
        await self.block("alice", "eve")
        await self.block("mallory", "alice")
        message = self.message("alice", group=["eve", "mallory"])
        (outcome,) = await self.send(message)
        self.assertEqual((type(outcome), outcome.without), (PlacedPartly, ("eve", "mallory")))
        self.assertEqual([d.user for d in outcome.deliveries], ["alice"])
        self.assertEqual(await self.ids_in("alice"), [message.id])
        self.assertEqual(await self.ids_in("eve"), [])

    async def test_long_lists(self) -> None:
        """Messages of several senders to one long list, in one batch, keep their order and their numbers."""
        await self.begin_blocks()
        await self.connect("eve", "tablet", sync=True)
        await self.block("u3", "eve")
        await self.block("eve", "u11")
        senders = ["bob", "eve", "eve", "bob", "carol", "eve", "bob"]
        messages = [self.message(sender, group=USERS) for sender in senders]
        outcomes = await self.send(*messages)
        kinds = [PlacedPartly if sender == "eve" else Placed for sender in senders]
        self.assertEqual([type(one) for one in outcomes], kinds)
        every = [message.id for message in messages]
        others = [message.id for message in messages if message.user_id != "eve"]
        for user in USERS:
            self.assertEqual(await self.ids_in(user), others if user in ("u3", "u11") else every)
        self.assertEqual(await self.ids_in("eve"), [one for one in every if one not in others])
        heads = {user: (await self.read(user, 0, 1000)).head for user in USERS}
        told = [{d.user: d.seq for d in one.deliveries} for one in outcomes]
        for user in USERS:
            numbers = [one[user] for one in told if user in one]
            self.assertEqual(numbers, list(range(1, heads[user] + 1)))

    async def test_resends_to_lists(self) -> None:
        """A resend says who was left out the first time, whatever is blocked now, as often as it comes."""
        await self.begin_blocks()
        await self.block("alice", "eve")
        first = self.message("eve", group=["alice", "bob"], client_msg_id="c-1")
        await self.send(first)
        await self.block("alice", "eve", False)
        for _ in range(2):
            (again,) = await self.send(self.message("eve", group=["alice", "bob"], client_msg_id="c-1"))
            self.assertIsInstance(again, Duplicate)
            self.assertEqual((again.message_id, again.send_time), (first.id, first.send_time))
            self.assertEqual((tuple(again.without), again.version), (("alice",), 0))
            sent = await self.inbox.sent_before("eve", "phone", "c-1")
            self.assertEqual(type(sent), Sent)
            self.assertEqual((sent.message_id, tuple(sent.without)), (first.id, ("alice",)))
        whole = self.message("eve", group=["alice", "bob"], client_msg_id="c-2")
        await self.send(whole)
        await self.block("alice", "eve")
        (again,) = await self.send(self.message("eve", group=["alice", "bob"], client_msg_id="c-2"))
        self.assertEqual(again, Duplicate(whole.id, whole.send_time))
        self.assertEqual(await self.ids_in("alice"), [whole.id])

    # events

    async def test_recalls_pass(self) -> None:
        """One's own earlier message can be recalled; edits and reactions are stopped as messages are."""
        await self.begin_blocks()
        message = self.message("eve", "alice")
        await self.send(message)
        await self.block("alice", "eve")
        outcomes = await self.put(
            self.event(Edit, "eve", message.id, ["alice"], msg="new"),
            self.event(React, "eve", message.id, ["alice"], reaction="👍"),
            self.event(React, "alice", message.id, ["eve"], reaction="👍"),
            self.event(Recall, "eve", message.id, ["alice"]),
        )
        self.assertEqual([type(one) for one in outcomes], [NotAllowed] * 3 + [Placed])
        self.assertEqual(len(await self.ids_in("alice")), 2)

    async def test_events_in_lists(self) -> None:
        """Events of a list leave out as messages do; a recall goes to all whom the message was for."""
        await self.begin_blocks()
        message = self.message("eve", group=["alice", "bob"])
        await self.send(message)
        await self.block("alice", "eve")
        edit = self.event(Edit, "eve", message.id, ["alice", "bob"], msg="new")
        recall = self.event(Recall, "eve", message.id, ["alice", "bob"])
        outcomes = await self.put(edit, recall)
        self.assertEqual([type(one) for one in outcomes], [PlacedPartly, Placed])
        self.assertEqual(outcomes[0].without, ("alice",))
        self.assertEqual(await self.ids_in("alice"), [message.id, recall.message_id])
        self.assertEqual(await self.ids_in("bob"), [message.id, edit.message_id, recall.message_id])

    async def test_events_of_lists_with_few_left(self) -> None:
        """Blocks leave out the last recipient, too; an event that nobody gets is no visitor's."""
        await self.begin_blocks()
        await self.connect("eve", "tablet", sync=True)
        await self.block("alice", "eve")
        message = self.message("eve", group=["alice", "bob"])
        await self.send(message)
        await self.block("bob", "eve")
        # The node knows that alice was left out of the message, and does not name her again.
        edits = [self.event(Edit, "eve", message.id, ["bob"], of_list=True, msg="new") for _ in range(2)]
        recall = self.event(Recall, "eve", message.id, ["bob"], of_list=True)
        left = [self.event(React, "eve", message.id, [], of_list=True, reaction="👍") for _ in range(2)]
        last = self.event(Recall, "eve", message.id, [], of_list=True)
        events = [*edits, recall, *left, last]
        outcomes = await self.put(*events)
        kinds = [PlacedPartly, PlacedPartly, Placed, Placed, Placed, Placed]
        self.assertEqual([type(one) for one in outcomes], kinds)
        self.assertEqual([one.without for one in outcomes[:2]], [("bob",)] * 2)
        told = [[d.user for d in one.deliveries] for one in outcomes]
        self.assertEqual(told, [["eve"], ["eve"], ["bob", "eve"], ["eve"], ["eve"], ["eve"]])
        self.assertEqual([one.agent for one in outcomes], [""] * 6)
        self.assertEqual(await self.ids_in("bob"), [message.id, recall.message_id])
        self.assertEqual(await self.ids_in("eve"), [message.id, *(one.message_id for one in events)])

    # what is not affected

    async def test_rooms(self) -> None:
        """In a room both hear each other; only nobody is added by whom they block."""
        await self.begin_blocks()
        room = await self.make("alice", "eve")
        await self.block("alice", "eve")
        await self.block("alice", "olga")
        self.assertIsInstance(await self.write(room, "eve", "hi"), Placed)
        self.assertIn("hi", await self.told("alice"))
        await self.change(room, "olga", "remove", ["alice"])
        unchanged = await self.change(room, "olga", "add", ["alice"])
        self.assertEqual(type(unchanged).__name__, "Unchanged")
        added = await self.change(room, "olga", "add", ["alice", "bob"])
        self.assertIsNone(await self.rooms.membership(room, "alice"))
        self.assertEqual((added.version, (await self.rooms.membership(room, "bob")).joined), (3, 3))
        other = await self.make("alice", "bob")
        self.assertIsNone(await self.rooms.membership(other, "alice"))
        await self.block("alice", "olga", False)
        await self.change(room, "olga", "add", ["alice"])
        self.assertEqual((await self.rooms.membership(room, "alice")).joined, 4)

    async def test_visitors(self) -> None:
        """Visitors and agents do not notice whom the agent blocks."""
        await self.begin_blocks()
        await self.agent("anna")
        await self.block("anna", "eve")
        _, outcome = await self.ask("visitor-1")
        self.assertEqual(outcome.agent, "anna")
        self.assertEqual(await self.try_to_send("anna", "visitor-1"), Placed)
        self.assertEqual(await self.try_to_send("anna", "eve"), NotAllowed)

    async def test_unknown_users(self) -> None:
        """Users who have never been here can be blocked, and nothing is made of them for it."""
        await self.begin_blocks()
        await self.block("alice", "eve")
        self.assertEqual(await self.try_to_send("alice", "eve"), NotAllowed)
        outcome = await self.connect("eve")
        self.assertEqual((outcome.seq, outcome.recovered, outcome.page.head), (0, True, 0))
        self.assertEqual(await self.try_to_send("eve", "alice"), NotAllowed)
        message = self.message("bob", "eve")
        await self.send(message)
        self.assertEqual(await self.ids_in("eve"), [message.id])

    async def test_one_after_the_other(self) -> None:
        """Blocks and messages are asked for without waiting: each message has one of the two outcomes, and
        the inbox holds what was placed."""
        await self.begin_blocks()
        calls = []
        sent: list[str] = []
        for n in range(12):
            calls.append(self.blocks.block("alice", "eve", n % 2 == 0))
            message = self.message("eve", "alice")
            sent.append(message.id)
            calls.append(self.inbox.accept([submission_of(message)]))
        results = [await call for call in calls]
        outcomes = [one for (one,) in results[1::2]]
        self.assertNotIn(Failed, [type(one) for one in outcomes])
        placed = [one for one, outcome in zip(sent, outcomes, strict=True) if type(outcome) is Placed]
        self.assertEqual(await self.ids_in("alice"), placed)
