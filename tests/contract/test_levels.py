"""The stores of the cluster's level, on real servers."""

from __future__ import annotations

from typing import Any

import pymongo
from twisted.internet import reactor
from twisted.trial import unittest

from imd.contracts.inbox import InboxOptions
from imd.contracts.level import LevelStore
from imd.protocol.errors import Unavailable
from imd.protocol.ids import ServerClock
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.level import MongoLevel
from imd.store.redis.inbox import RedisInbox
from imd.store.redis.level import RedisLevel
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
        """Runs and the table of nodes are written before the level is known."""
        store = await self.make_store()
        self.assertEqual(await self.redis.command("EXISTS", "imd:run"), 1)
        await self.redis.command("HSET", "imd:nodes", "east", "row")
        await self.redis.command("HSET", "imd:nodes:wishes", "east", "drain")
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
