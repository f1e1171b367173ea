"""The desk's data in Redis: moved in pieces, bounded, expiring, and readable as older versions left them."""

from __future__ import annotations

from typing import Any

from imd.contracts.inbox import InboxOptions
from imd.protocol.message import IMessage
from tests.contract.desk_contract import DeskWords
from tests.contract.redis_harness import RedisHarness
from tests.contract.support import ids_of


class RedisDeskKeysTests(DeskWords, RedisHarness):
    """The keys of a visitor, and how much one call moves."""

    async def wait_in_line(self, count: int, msg: str = "hi", visitor: str = "visitor-1") -> list[IMessage]:
        """A visitor writes while nobody is there."""
        messages = [self.message(visitor, msg=msg) for _ in range(count)]
        for start in range(0, count, 500):
            await self.send(*messages[start : start + 500])
        return messages

    async def pieces(self) -> list[int]:
        """How many messages each call of serving moves, until there is nothing left."""
        sizes = []
        while deliveries := await self.inbox.serve_desk():
            sizes.append(len(deliveries))
        return sizes

    async def test_many_messages_go_in_pieces(self) -> None:
        """No call moves more than a thousand messages; what is written meanwhile goes behind them."""
        await self.begin()
        messages = await self.wait_in_line(2500)
        await self.agent("anna")
        self.assertEqual(len(await self.inbox.serve_desk()), 1000)
        message, outcome = await self.ask("visitor-1")
        self.assertEqual((outcome.agent, len(outcome.deliveries)), ("anna", 1000))
        self.assertEqual(await self.pieces(), [501])
        page = await self.read("anna", limit=1000)
        found = ids_of(page)
        while len(found) < page.head:
            found += ids_of(await self.read("anna", after=len(found)))
        self.assertEqual(found, [m.id for m in [*messages, message]])
        self.assertEqual(await self.redis.command("EXISTS", "imd:desk:waiting"), 0)

    async def test_large_messages_go_in_pieces(self) -> None:
        """Nor more than about a mebibyte, of what waits and of what another agent has read."""
        await self.begin(desk_grace_seconds=1)
        messages = await self.wait_in_line(40, msg="x" * 65_536)
        await self.agent("anna")
        self.assertEqual(await self.pieces(), [16, 16, 8])
        await self.go_for_good("anna", seq=40)
        await self.agent("bert")
        self.assertEqual(await self.pieces(), [16, 16, 8])
        self.assertEqual(ids_of(await self.read("bert"))[:3], [m.id for m in messages[:3]])
        self.assertEqual((await self.read("bert")).head, 40)

    async def test_agent_goes_between_pieces(self) -> None:
        """The next one gets what is still to be given, and what was given."""
        await self.begin(desk_grace_seconds=1)
        messages = await self.wait_in_line(1030)
        await self.agent("anna")
        await self.inbox.serve_desk()
        await self.go_for_good("anna", seq=1000)
        await self.agent("bert")
        self.assertEqual(await self.pieces(), [50])
        self.assertEqual(ids_of(await self.read("bert")), [m.id for m in messages[-50:]])
        await self.go_for_good("bert")
        await self.agent("anna")
        self.assertEqual(await self.pieces(), [30])
        self.assertEqual((await self.read("anna")).head, 1030)

    async def test_everything_expires(self) -> None:
        """A visitor's keys go by themselves, and so do a sender's counts; lists stay bounded."""
        await self.begin(desk_grace_seconds=1, max_messages=20)
        await self.agent("anna")
        await self.send(*(self.message("visitor-1") for _ in range(70)))
        await self.send_many("alice", "nobody", 1)
        await self.wait_in_line(30, visitor="visitor-1")
        self.assertEqual(await self.redis.command("LLEN", "imd:{visitor-1}:unanswered"), 50)
        await self.go_for_good("anna")
        await self.serve()
        await self.wait_in_line(30, visitor="visitor-1")
        self.assertEqual(await self.redis.command("LLEN", "imd:{visitor-1}:waiting"), 20)
        keys = await self.redis.command("KEYS", "imd:{*}:*")
        self.assertIn(b"imd:{alice}:opened", keys)
        for key in keys:
            self.assertGreater(await self.redis.command("TTL", key), 0, key)
        self.assertLessEqual(await self.redis.command("TTL", "imd:{alice}:opened"), 3600)

    async def test_visitor_without_an_account(self) -> None:
        """A visitor from before there was one: what its agent has not read is given on, as it was then."""
        for writes_again in (False, True):
            await self.redis.command("FLUSHALL")
            await self.begin(desk_grace_seconds=1)
            await self.agent("anna")
            for n in range(3):
                await self.ask(f"visitor-{n % 2}", msg='"userId":"visitor-1"')
            asked = [(await self.ask("visitor-1"))[0].id for _ in range(2)]
            for visitor in ("visitor-0", "visitor-1"):
                await self.redis.command("DEL", f"imd:{{{visitor}}}:given", f"imd:{{{visitor}}}:unanswered")
            await self.ack("anna", 2)
            if writes_again:
                asked.append((await self.ask("visitor-1"))[0].id)
            await self.go_for_good("anna", seq=2)
            await self.agent("bert")
            await self.until(lambda: self.served_to("visitor-1", "bert"))
            found = [id for id in ids_of(await self.read("bert")) if id in asked]
            self.assertEqual(found, asked)
            self.assertEqual((await self.read("bert")).head, len(asked) + 1)

    async def test_broken_account(self) -> None:
        """Where a visitor's account is rubbish, an answer gets through, and other visitors are served."""
        await self.begin(desk_grace_seconds=1)
        await self.agent("anna")
        await self.ask("visitor-1")
        await self.redis.command("DEL", "imd:{visitor-1}:given")
        await self.redis.command("SET", "imd:{visitor-1}:given", "rubbish")
        outcomes: list[Any] = await self.send(
            self.message("visitor-1"), self.message("visitor-2"), self.message("anna", "visitor-1")
        )
        self.assertEqual([type(outcome).__name__ for outcome in outcomes], ["Failed", "Placed", "Placed"])
        self.assertEqual((await self.read("visitor-1")).head, 1)
        await self.go_for_good("anna")
        await self.agent("bert")
        await self.until(lambda: self.served_to("visitor-2", "bert"))

    async def test_heads_from_before(self) -> None:
        """An inbox that was there before unopened ones were marked keeps max_messages."""
        await self.begin(unopened_messages=2)
        await self.send_many("alice", "bob", 1)
        await self.redis.command("HDEL", "imd:{bob}:head", "unopened")
        await self.send_many("alice", "bob", 4)
        outcome = await self.connect("bob")
        self.assertEqual((outcome.seq, outcome.recovered, len(outcome.page.messages)), (0, True, 5))

    async def test_two_nodes(self) -> None:
        """Inboxes that a sender has begun count on all nodes."""
        await self.begin(new_ids=1)
        other = self.inbox
        await self.send_many("alice", "new-1", 1)
        self.inbox = await self.make_inbox(InboxOptions(new_ids=1))
        self.assertIsNot(self.inbox, other)
        (outcome,) = await self.send(self.message("alice", "new-2"))
        self.assertEqual(type(outcome).__name__, "TooManyNew")
