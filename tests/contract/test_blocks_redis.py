"""Bringing Redis up to date with lists of blocked users: never back, from this run only, after a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults

import imd.store.blocks as cluster
from imd.contracts.inbox import NotAllowed, Placed
from imd.contracts.level import FIRST
from imd.protocol.errors import Unavailable
from imd.store.blocks import ClusterBlocks
from imd.store.mongo.blocks import BlockDocuments
from imd.store.redis.blocks import BlockCopies
from imd.store.redis.inbox import RedisInbox
from tests.contract.block_contract import BlockHarness
from tests.contract.test_blocks import ClusterBlocksHarness


class BlockCopyTests(ClusterBlocksHarness, BlockHarness):
    """`copies` are those of the node, `blocks` the node's; looks come quickly, one after the other."""

    blocks: ClusterBlocks
    assertNotIn: Any

    async def begin_copies(self, **options: Any) -> None:
        self.patch(cluster, "LOOK_SECONDS", 0.05)
        await self.begin_blocks(**options)
        assert isinstance(self.inbox, RedisInbox)
        self.copies = BlockCopies(self.inbox.calls)
        await self.loaded()

    async def loaded(self) -> None:
        await self.until(self.is_so(self.blocks.loaded))

    async def stop_looking(self) -> Any:
        """The node looks after Redis no more, until `restore` of the result is called."""

        async def hang() -> None:
            return None

        stopped = self.patch(self.blocks, "_look_after", hang)
        # A look that has begun would go on behind the test's back.
        await self.until(self.is_so(lambda: self.blocks._looking is None))
        return stopped

    def is_so(self, condition: Callable[[], bool]) -> Any:
        async def ask() -> bool:
            return condition()

        return ask

    async def document(self, user: str) -> Any:
        return await self.blocks._ask(BlockDocuments.read, user)

    async def bring(self, known: Any, seen: Any) -> bool:
        """Whether the list was refused as too old, or of another run."""
        return await self.copies.bring(known.user, known.version, known.users, seen)

    async def new_run(self) -> None:
        """Redis is another run, and the node knows."""
        await self.redis.command("DEL", "imd:run")
        self.assertEqual(await self.try_to_send("zoe", "bob"), Placed)

    async def test_older_lists_change_nothing(self) -> None:
        """A loader that hung between reading and putting does not undo a later change."""
        await self.begin_copies()
        await self.block("alice", "mallory")
        seen, old = self.copies.seen(), await self.document("alice")
        await self.block("alice", "eve")
        self.assertFalse(await self.bring(old, seen))
        self.assertEqual(await self.try_to_send("eve", "alice"), NotAllowed)
        seen, old = self.copies.seen(), await self.document("alice")
        await self.block("alice", "eve", False)
        await self.block("alice", "mallory", False)
        self.assertFalse(await self.bring(old, seen))
        self.assertEqual(await self.try_to_send("eve", "alice"), Placed)

    async def test_another_run(self) -> None:
        """Nothing that was read or written under another run counts; all lists are loaded anew."""
        await self.begin_copies()
        await self.block("alice", "eve")
        await self.block("mallory", "alice")
        seen, old = self.copies.seen(), await self.document("alice")
        stopped = await self.stop_looking()
        await self.new_run()
        self.assertFalse(self.blocks.loaded())
        self.assertTrue(await self.bring(old, seen))
        self.assertEqual(await self.try_to_send("eve", "alice"), Placed)
        self.assertEqual(await self.try_to_send("alice", "mallory"), Placed)
        stopped.restore()
        await self.loaded()
        self.assertEqual(await self.try_to_send("eve", "alice"), NotAllowed)
        self.assertEqual(await self.try_to_send("alice", "mallory"), NotAllowed)

    async def test_lost_memory(self) -> None:
        """After a loss a change brings its own list at once, and the rest follows."""
        await self.begin_copies()
        await self.block("alice", "eve")
        await self.block("bob", "eve")
        stopped = await self.stop_looking()
        await self.redis.command("FLUSHALL")
        self.assertEqual(await self.try_to_send("eve", "alice"), Placed)
        self.assertEqual(await self.block("alice", "eve"), False)
        self.assertEqual(await self.try_to_send("eve", "alice"), NotAllowed)
        self.assertEqual(await self.try_to_send("eve", "bob"), Placed)
        stopped.restore()
        await self.loaded()
        self.assertEqual(await self.try_to_send("eve", "bob"), NotAllowed)

    async def test_many_lists(self) -> None:
        """A load goes through all pages. One node loads; another sees that it is done."""
        self.patch(cluster, "PAGE", 3)
        await self.begin_copies()
        for n in range(10):
            await self.block(f"u{n}", "eve")
        other = await self.make_node_blocks()
        await self.redis.command("FLUSHALL")
        self.assertEqual(await self.try_to_send("zoe", "bob"), Placed)
        await self.loaded()
        await self.until(self.is_so(other.loaded))
        for n in range(10):
            self.assertEqual(await self.try_to_send("eve", f"u{n}"), NotAllowed)

    async def test_second_walk(self) -> None:
        """All lists are brought once more: a primary that was voted out may have answered the first time."""
        self.patch(cluster, "SECOND_WALK_MS", 300)
        await self.begin_copies()
        await self.block("alice", "eve")
        stopped = await self.stop_looking()
        await self.redis.command("DEL", "imd:{eve}:blocked", "imd:{alice}:blocked", "imd:blocks")
        self.assertEqual(await self.try_to_send("eve", "alice"), Placed)
        self.blocks._walked = cluster.Walked(self.copies.run, 1, 0)
        await self.redis.command("SET", "imd:blocks", f"{self.copies.run} 1 0")
        stopped.restore()

        async def refused() -> bool:
            return await self.try_to_send("eve", "alice") is NotAllowed

        await self.until(refused)
        await self.until(self.is_so(lambda: self.blocks._walked.times == cluster.WALKS))

    async def test_read_too_long_ago(self) -> None:
        """A list that was read half a minute ago is refused, so empty ones need not live for ever."""
        await self.begin_copies()
        await self.block("alice", "eve")
        known, seen = await self.document("alice"), self.copies.seen()
        self.assertTrue(await self.bring(known, seen._replace(at=seen.at - 31_000)))
        # Nor one of a time to come; not one that has come by then on a busy machine.
        self.assertTrue(await self.bring(known, seen._replace(at=seen.at + 90_000)))
        self.assertFalse(await self.bring(known, seen._replace(at=seen.at - 20_000)))
        await self.block("alice", "eve", False)
        left = await self.redis.command("TTL", "imd:{alice}:blocked")
        self.assertTrue(60 < left <= 3600, left)
        self.assertEqual(await self.redis.command("EXISTS", "imd:{eve}:blocked"), 0)
        self.assertEqual(await self.redis.command("HGET", "imd:{eve}:head", "sync"), None)

    async def test_node_died_before_redis_knew(self) -> None:
        """A list that was stored, and not brought, is brought by another node."""
        self.patch(cluster, "LEFT_AFTER_MS", 300)
        self.patch(cluster, "SWEEP_SECONDS", 0.1)
        await self.begin_copies()
        other = await self.make_node_blocks()

        async def die(known: Any, seen: Any) -> Any:
            raise Unavailable("died")

        self.patch(other, "_bring", die)
        await self.assertFailure(other.block("alice", "eve", True), Unavailable)
        self.assertEqual(await self.blocks.of("alice"), ["eve"])
        await other.stop()

        async def refused() -> bool:
            return await self.try_to_send("eve", "alice") is NotAllowed

        await self.until(refused)

        async def settled() -> bool:
            return not await self.blocks._ask(BlockDocuments.owed, self.copies.seen().at + 60_000)

        await self.until(settled)

    async def test_nodes_race(self) -> None:
        """Changes of one list from several nodes at a time are all made."""
        await self.begin_copies()
        nodes = [self.blocks, *[await self.make_node_blocks() for _ in range(2)]]

        async def until_done(node: ClusterBlocks, other: str) -> None:
            while True:
                try:
                    await node.block("alice", other, True)
                    return
                except Unavailable:
                    continue

        names = [f"u{n}" for n in range(9)]
        await gatherResults([ensureDeferred(until_done(nodes[n % 3], name)) for n, name in enumerate(names)])
        self.assertEqual(await self.blocks.of("alice"), names)
        for name in names:
            self.assertEqual(await self.try_to_send(name, "alice"), NotAllowed)

    async def test_heads(self) -> None:
        """A sender whose head had expired is held back when it is here again; devices keep their lines."""
        await self.begin_copies()
        await self.connect("eve", "phone", sync=True)
        await self.block("alice", "eve")
        self.assertEqual(await self.redis.command("HGET", "imd:{eve}:head", "sync"), b"b\ndphone")
        await self.redis.command("DEL", "imd:{eve}:head")
        await self.connect("eve", "tablet", sync=True)
        self.assertEqual(await self.redis.command("HGET", "imd:{eve}:head", "sync"), b"b\ndtablet")
        self.assertEqual(await self.try_to_send("eve", "alice"), NotAllowed)
        await self.connect("eve", "tablet")
        self.assertEqual(await self.redis.command("HGET", "imd:{eve}:head", "sync"), b"b")
        await self.connect("eve", "tablet", sync=True)
        await self.block("alice", "eve", False)
        self.assertEqual(await self.redis.command("HGET", "imd:{eve}:head", "sync"), b"dtablet")
        self.assertEqual(await self.try_to_send("eve", "alice"), Placed)

    async def test_broken_keys(self) -> None:
        """A user whose keys are broken hinders nobody else's block, and gets nothing through."""
        await self.begin_copies()
        await self.connect("eve", "phone")
        await self.block("eve", "zoe")
        await self.redis.command("SET", "imd:{bad}:blocked", "rubbish")
        await self.redis.command("HSET", "imd:{bad}:head", "sync", "b")
        for other in ("bad", "eve"):
            await self.block("alice", other)
        self.assertEqual(await self.try_to_send("eve", "alice"), NotAllowed)
        self.assertNotIn(await self.try_to_send("bad", "alice"), (Placed,))

    async def test_first_level(self) -> None:
        """At the first level scripts ask neither for blocks nor for the age of a message."""
        await self.begin_copies()
        await self.block("alice", "eve")
        assert isinstance(self.inbox, RedisInbox)
        self.inbox.set_level(FIRST)
        self.blocks.set_level(FIRST)
        message = self.message("eve", "alice")
        message.id = f"{1:012x}{message.id[12:]}"
        (outcome,) = await self.send(message)
        self.assertIsInstance(outcome, Placed)
