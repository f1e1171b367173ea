"""The contract of an Inbox: what a user sends also reaches the user's other devices that want it."""

from __future__ import annotations

from typing import Any

from imd.chat.session import Session
from imd.contracts.inbox import ConnectRequest, Duplicate, Head, Placed, Sent
from tests.contract.support import InboxHarness, ids_of, numbers_of, submission_of
from tests.support.doubles import WireDouble


class OwnDevicesContract(InboxHarness):
    """`sync`, and looking clientMsgIds up."""

    assertEqual: Any

    async def copied(self, *, device: str = "phone", **more: Any) -> bool:
        """Whether alice's own inbox gets what she sends from a device now. Checks that it is told so."""
        before = (await self.read("alice")).head
        message = self.message("alice", "bob", **more)
        (outcome,) = await self.send(message, device=device)
        page = await self.read("alice")
        told = [(d.user, d.seq) for d in outcome.deliveries]  # type: ignore[union-attr]
        self.assertEqual(ids_of(await self.read("bob"))[-1], message.id)
        if page.head == before:
            self.assertEqual([user for user, _ in told], ["bob"])
            return False
        self.assertEqual((page.head, ids_of(page)[-1]), (before + 1, message.id))
        self.assertEqual((told[0][0], told[1:]), ("bob", [("alice", before + 1)]))
        return True

    async def test_nobody_wants_it(self) -> None:
        """Without another device that has `sync`, one's own inbox gets nothing."""
        await self.begin()
        self.assertEqual(await self.copied(), False)
        await self.connect("alice", "phone", sync=True)
        await self.connect("alice", "tablet")
        self.assertEqual(await self.copied(), False)

    async def test_another_device_wants_it(self) -> None:
        """Another device's `sync` brings the message into one's own inbox, for all of its channels."""
        await self.begin()
        await self.connect("alice", "phone", sync=True)
        await self.connect("alice", "tablet", sync=True)
        self.assertEqual(await self.copied(), True)
        self.assertEqual(await self.copied(device="tablet"), True)
        self.assertEqual(await self.copied(device="elsewhere"), True)
        (outcome,) = await self.send(self.message("alice", "bob"))
        own = outcome.deliveries[1]  # type: ignore[union-attr]
        self.assertEqual(sorted(own.channels), sorted(channel for channel, _ in self.held.values()))
        self.assertEqual((await self.read("alice")).messages[-1][1], own.body)

    async def test_without_client_message_id_and_with(self) -> None:
        """It does not matter whether the message has a clientMsgId; a resend is copied once."""
        await self.begin()
        await self.connect("alice", "tablet", sync=True)
        self.assertEqual(await self.copied(client_msg_id="c-1"), True)
        (outcome,) = await self.send(self.message("alice", "bob", client_msg_id="c-1"))
        self.assertEqual(type(outcome), Duplicate)
        self.assertEqual(numbers_of(await self.read("alice")), [1])

    async def test_newest_connect_counts(self) -> None:
        """A device that connects without `sync` does not want it any more, and the other way round."""
        await self.begin()
        await self.connect("alice", "tablet", sync=True)
        self.assertEqual(await self.copied(), True)
        await self.connect("alice", "tablet")
        self.assertEqual(await self.copied(), False)
        await self.connect("alice", "tablet", sync=True)
        self.assertEqual(await self.copied(), True)

    async def test_forgotten(self) -> None:
        """A device that the store has forgotten still wants it, once its session has registered again."""
        await self.begin()
        registered = await self.connect("alice", "phone")
        self.assertEqual(await self.copied(), False)
        request = ConnectRequest("alice", "tablet", "channel-t", sync=True)
        session = Session(self.inbox, WireDouble(), request, acknowledges=True, window=8)
        session.begin(registered)
        session.head_seen(Head(False, session.epoch, 0))
        # Calls are done in order.
        await self.read("alice")
        self.assertEqual(await self.copied(), True)

    async def test_remembered(self) -> None:
        """A device that has gone still wants it, until it is forgotten."""
        await self.begin(keep_days=1, lease_seconds=60)
        await self.connect("alice", "phone")
        await self.connect("alice", "tablet", sync=True)
        await self.leave("alice", "tablet", 0)
        await self.advance(120)
        self.assertEqual(await self.copied(), True)
        await self.advance(86_400)
        await self.connect("alice", "phone")
        self.assertEqual(await self.copied(), False)

    async def test_dropped_for_others(self) -> None:
        """A device that had to give way to newer ones does not count."""
        await self.begin(devices=1)
        await self.visit("alice", "tablet", 0, sync=True)
        self.assertEqual(await self.copied(), True)
        await self.connect("alice", "phone")
        self.assertEqual(await self.copied(), True)
        await self.advance(2)
        await self.connect("alice", "watch")
        self.assertEqual(await self.copied(), False)

    async def test_ephemeral(self) -> None:
        """An ephemeral device wants it while it is connected: until it leaves, or its lease ends."""
        await self.begin(lease_seconds=60)
        await self.connect("alice", "phone")
        await self.connect("alice", "tab", sync=True, ephemeral=True)
        self.assertEqual(await self.copied(), True)
        await self.leave("alice", "tab", 0, ephemeral=True)
        self.assertEqual(await self.copied(), False)
        await self.connect("alice", "tab", sync=True, ephemeral=True)
        await self.advance(50)
        await self.renew("alice", "tab")
        await self.advance(50)
        self.assertEqual(await self.copied(), True)
        await self.advance(61)
        self.assertEqual(await self.copied(), False)

    async def test_recipient_anyway(self) -> None:
        """A sender who is a recipient gets one number."""
        await self.begin()
        await self.connect("alice", "tablet", sync=True)
        for more in ({"to": "alice"}, {"group": ["bob", "alice", "carol"]}):
            before = (await self.read("alice")).head
            (outcome,) = await self.send(self.message("alice", **more))
            told = [d.user for d in outcome.deliveries]  # type: ignore[union-attr]
            self.assertEqual(told.count("alice"), 1)
            self.assertEqual((await self.read("alice")).head, before + 1)

    async def test_not_for_everything(self) -> None:
        """A submission that is not to be mirrored is not."""
        await self.begin()
        await self.connect("alice", "tablet", sync=True)
        submission = submission_of(self.message("alice", "bob"))
        submission.mirror = False
        (outcome,) = await self.inbox.accept([submission])
        self.assertEqual([d.user for d in outcome.deliveries], ["bob"])  # type: ignore[union-attr]

    async def test_lists(self) -> None:
        """Lists of any length, from several senders in one batch: each copy is in order, and told last."""
        await self.begin()
        await self.connect("alice", "tablet", sync=True)
        await self.connect("carol", "phone", sync=True)
        for size in (2, 20):
            users = [f"u{size}-{n}" for n in range(size)]
            start = (await self.read("alice")).head
            messages = [self.message(name, group=users) for name in ("alice", "carol", "alice", "dora")]
            outcomes = await self.send(*messages)
            for n, outcome in enumerate(outcomes):
                told = [(d.user, d.seq) for d in outcome.deliveries]  # type: ignore[union-attr]
                self.assertEqual(told[:size], [(user, n + 1) for user in users])
                own = {0: [("alice", start + 1)], 2: [("alice", start + 2)]}.get(n, [])
                self.assertEqual(told[size:], own)
            page = await self.read("alice", start)
            self.assertEqual(ids_of(page), [messages[0].id, messages[2].id])
            self.assertEqual(ids_of(await self.read(users[-1])), [message.id for message in messages])
            await self.ack("alice", page.head, "tablet")
            # The inboxes of others still have what one's own has let go.
            self.assertEqual(ids_of(await self.read(users[0])), [message.id for message in messages])
        self.assertEqual(numbers_of(await self.read("carol")), [])

    async def test_visitors(self) -> None:
        """A visitor's other devices get what it writes to the desk, agent or not; so do an agent's."""
        await self.begin()
        await self.connect("visitor-1", "tablet", sync=True)
        waiting, outcome = await self.ask("visitor-1")
        self.assertEqual([d.user for d in outcome.deliveries], ["visitor-1"])  # type: ignore[union-attr]
        await self.agent("anna", device="desktop", sync=True)
        await self.serve()
        asked, outcome = await self.ask("visitor-1")
        self.assertEqual(
            [d.user for d in outcome.deliveries],  # type: ignore[union-attr]
            ["anna", "visitor-1"],
        )
        answer = self.message("anna", "visitor-1")
        (outcome,) = await self.send(answer)
        self.assertEqual(
            [d.user for d in outcome.deliveries],  # type: ignore[union-attr]
            ["visitor-1", "anna"],
        )
        self.assertEqual(ids_of(await self.read("visitor-1")), [waiting.id, asked.id, answer.id])
        self.assertEqual(ids_of(await self.read("anna")), [waiting.id, asked.id, answer.id])

    async def test_answer_is_an_answer(self) -> None:
        """An agent's answer settles what a visitor wrote, though the agent's other devices get it, too."""
        await self.begin(desk_grace_seconds=60)
        await self.agent("anna", device="phone")
        await self.connect("anna", "tablet", sync=True)
        await self.ask("visitor-1")
        await self.send(self.message("anna", "visitor-1"))
        await self.leave("anna", "phone", 1)
        await self.leave("anna", "tablet", 1)
        await self.advance(90)
        await self.agent("bert")
        await self.serve()
        self.assertEqual(numbers_of(await self.read("bert")), [])

    async def test_strange_names(self) -> None:
        """Names of users and devices may hold what separates or quotes elsewhere."""
        await self.begin()
        for user in ("a b", "a:b", "ä%41", "{x}"):
            await self.connect(user, "d:1 %41", sync=True)
            (outcome,) = await self.send(self.message(user, "bob"), device="d:1 %41")
            self.assertEqual(len(outcome.deliveries), 1)  # type: ignore[union-attr]
            (outcome,) = await self.send(self.message(user, "bob"), device="d")
            self.assertEqual(outcome.deliveries[1].user, user)  # type: ignore[union-attr]

    # looking up

    async def test_sent_before(self) -> None:
        """A used clientMsgId tells its message, to that device only, and as long as it is remembered."""
        await self.begin(dedup_seconds=30)
        message = self.message("alice", "bob", client_msg_id="c:1 ")
        self.assertEqual(await self.inbox.sent_before("alice", "phone", "c:1 "), None)
        (outcome,) = await self.send(message)
        self.assertEqual(type(outcome), Placed)
        found = await self.inbox.sent_before("alice", "phone", "c:1 ")
        self.assertEqual(found, Sent(message.checksum(), message.id, message.send_time))
        for asked in (("alice", "tablet", "c:1 "), ("carol", "phone", "c:1 "), ("alice", "phone", "c:1")):
            self.assertEqual(await self.inbox.sent_before(*asked), None)
        await self.advance(20)
        later = await self.inbox.sent_before("alice", "phone", "c:1 ")
        self.assertEqual(later and later.message_id, message.id)
        await self.advance(15)
        # Looking it up was no use of it.
        self.assertEqual(await self.inbox.sent_before("alice", "phone", "c:1 "), None)

    async def test_sent_before_many(self) -> None:
        """Many are looked up at a time, each with its own answer."""
        await self.begin()
        messages = [self.message("alice", "bob", client_msg_id=f"c-{n}") for n in range(40)]
        await self.send(*messages)
        asked = [self.inbox.sent_before("alice", "phone", f"c-{n}") for n in range(60)]
        found = [await answer for answer in asked]
        self.assertEqual([sent and sent.message_id for sent in found], [m.id for m in messages] + [None] * 20)
