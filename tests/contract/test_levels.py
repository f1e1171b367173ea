"""The stores of the cluster's level, on real servers."""

from __future__ import annotations

from typing import Any, cast

import pymongo
from twisted.internet import reactor
from twisted.trial import unittest

from imd.contracts.inbox import InboxOptions
from imd.contracts.level import FIRST, NEWEST, LevelStore
from imd.protocol.errors import Unavailable
from imd.protocol.ids import ServerClock
from imd.protocol.message import encode_message
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.level import MongoLevel
from imd.store.redis.blocks import KNOWN, LOADER
from imd.store.redis.inbox import RedisInbox
from imd.store.redis.level import RedisLevel
from tests.contract.accept_contract import AcceptContract
from tests.contract.desk_contract import DeskContract
from tests.contract.device_contract import DeviceContract
from tests.contract.level_contract import LevelContract
from tests.contract.redis_harness import RedisHarness
from tests.support.servers import shared


class RedisLevelTests(LevelContract, RedisHarness):
    async def make_store(self) -> LevelStore:
        self.inbox = await self.make_inbox(InboxOptions())
        return RedisLevel(self.inbox.command)

    async def spoil(self) -> None:
        await self.redis.command("SET", "imd:level", "two")

    async def fill(self) -> None:
        # Among many keys of others, so that it takes several looks.
        for start in range(0, 5000, 500):
            pairs = [word for number in range(start, start + 500) for word in (f"other:{number}", "x")]
            await self.redis.command("MSET", *pairs)
        await self.redis.command("HSET", "imd:{alice}:head", "epoch", "e", "seq", 1)

    async def test_a_start_is_no_data(self) -> None:
        """Runs, the table of nodes and the walk over blocks are noted before the level is known."""
        store = await self.make_store()
        self.assertEqual(await self.redis.command("EXISTS", "imd:run"), 1)
        await self.redis.command("HSET", "imd:nodes", "east", "row")
        await self.redis.command("HSET", "imd:nodes:wishes", "east", "drain")
        await self.redis.command("SET", LOADER, "a node")
        await self.redis.command("HSET", KNOWN, "run", 1)
        self.assertEqual(await store.is_empty(), True)
        await self.redis.command("SET", "imd:era", "of a node of 0.1")
        self.assertEqual(await store.is_empty(), False)

    async def test_without_scan(self) -> None:
        """A user who may not SCAN finds a running cluster of 0.1 by the key that it always has."""
        store = await self.make_store()
        await self.redis.command("ACL", "SETUSER", "default", "-scan")
        self.addCleanup(self.redis.command, "ACL", "SETUSER", "default", "+@all")
        self.assertEqual(await store.is_empty(), True)
        await self.redis.command("SET", "imd:era", "of a node of 0.1")
        self.assertEqual(await store.is_empty(), False)

    async def test_silent(self) -> None:
        """Without Redis each call fails, and says why."""
        inbox = RedisInbox(reactor, "redis://127.0.0.1:1", InboxOptions(), ServerClock())
        store = RedisLevel(inbox.command)
        for call in (store.read(), store.begin(1), store.is_empty()):
            await self.assertFailure(call, Unavailable)


class MongoLevelTests(LevelContract, unittest.TestCase):
    async def make_store(self) -> LevelStore:
        self.url = shared().mongo_url()
        self.archive = MongoArchive(reactor, self.url)
        self.addCleanup(self.archive.stop)
        await self.archive.start()
        self.client: Any = pymongo.MongoClient(self.url)
        self.addCleanup(self.client.close)
        return MongoLevel(self.archive)

    async def spoil(self) -> None:
        self.client.get_default_database()["im_cluster"].insert_one({"_id": "level", "level": "two"})

    async def fill(self) -> None:
        self.client.get_default_database()["im_message"].insert_one({"_id": "x"})

    async def test_silent(self) -> None:
        """Without MongoDB each call fails at once, and says why."""
        store = MongoLevel(MongoArchive(reactor, shared().mongo_url()))
        for call in (store.read(), store.begin(1), store.is_empty()):
            error = await self.assertFailure(call, Unavailable)
            self.assertIn("MongoDB", str(error))


class FirstLevelHarness(RedisHarness):
    """Inboxes at the first level."""

    async def make_inbox(self, options: InboxOptions, *, lossless: bool = False) -> RedisInbox:
        inbox = await super().make_inbox(options, lossless=lossless)
        inbox.set_level(FIRST)
        return inbox


class FirstLevelDeskTests(DeskContract, FirstLevelHarness):
    """The desk at the first level, with the lists that 0.1 has."""

    async def test_lists(self) -> None:
        """A message that an agent has got is in its inbox, and in no list that 0.1 does not know."""
        await self.begin()
        await self.agent("anna")
        await self.ask("visitor-1")
        keys = {key.decode() for key in await self.redis.command("KEYS", "imd:{visitor-1}:*")}
        self.assertEqual(keys - {"imd:{visitor-1}:head"}, {"imd:{visitor-1}:agent"})

    async def test_what_waits_stays_bounded(self) -> None:
        """Messages that come back from an agent count as well, before the visitor writes again."""
        await self.begin(desk_grace_seconds=1, max_messages=20)
        # One call gives an agent a mebibyte, and the rest waits.
        messages = [self.message("visitor-1", msg="x" * 65_536) for _ in range(40)]
        for start in (0, 20):
            await self.send(*messages[start : start + 20])
            if not start:
                await self.agent("anna")
        self.assertEqual((await self.read("anna")).head, 16)
        newest = [encode_message(message) for message in messages[20:]]
        self.assertEqual(await self.redis.command("LRANGE", "imd:{visitor-1}:waiting", 0, -1), newest)
        await self.go_for_good("anna")
        await self.serve()
        self.assertEqual(await self.redis.command("LRANGE", "imd:{visitor-1}:waiting", 0, -1), newest)


class FirstLevelTests(AcceptContract, DeviceContract, FirstLevelHarness):
    """At the first level an inbox does the same, and its keys are those of 0.1."""

    async def head(self, user: str) -> dict[str, str]:
        flat = [part.decode() for part in await self.redis.command("HGETALL", f"imd:{{{user}}}:head")]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def test_heads_of_both_versions(self) -> None:
        """A new head names run and process; one of 0.1 keeps its epoch, one of another process does not."""
        await self.begin()
        await self.send_many("alice", "bob", 1)
        info = (await self.redis.command("INFO", "server")).decode()
        (line,) = (line for line in info.splitlines() if line.startswith("run_id:"))
        run_id = line.removeprefix("run_id:")
        head = await self.head("bob")
        self.assertEqual((head["run"], "unopened" in head), (run_id, False))
        old = ("epoch", "e0", "seq", 7)
        await self.redis.command("HSET", "imd:{carol}:head", *old, "run", run_id)
        await self.redis.command("HSET", "imd:{dave}:head", *old, "run", "0" * 40)
        await self.send_many("alice", "carol", 1)
        await self.send_many("alice", "dave", 1)
        carol, dave = await self.head("carol"), await self.head("dave")
        self.assertEqual((carol["epoch"], carol["seq"], carol["n"]), ("e0", "8", head["n"]))
        self.assertNotEqual(dave["epoch"], "e0")
        self.assertEqual((dave["run"], dave["n"]), (run_id, head["n"]))

    async def test_raised(self) -> None:
        """A head that only 0.1 has touched gets a new epoch at the higher level; one with a run keeps it."""
        await self.begin()
        await self.send_many("alice", "bob", 1)
        epoch = (await self.head("bob"))["epoch"]
        old = {"epoch": "e0", "seq": 7, "run": (await self.head("bob"))["run"]}
        await self.redis.command("HSET", "imd:{carol}:head", *[word for pair in old.items() for word in pair])
        cast(RedisInbox, self.inbox).set_level(NEWEST)
        await self.send_many("alice", "bob", 1)
        await self.send_many("alice", "carol", 1)
        self.assertEqual((await self.head("bob"))["epoch"], epoch)
        self.assertNotEqual((await self.head("carol"))["epoch"], "e0")

    async def test_tokens_of_visitors(self) -> None:
        """A token stands where 0.1 looks for it."""
        await self.begin()
        await self.inbox.remember_visitor("visitor-1", "hash")
        self.assertEqual(await self.redis.command("GET", "imd:{visitor-1}:visitor"), b"hash")
        self.assertTrue(await self.inbox.knows_visitor("visitor-1", "hash"))
