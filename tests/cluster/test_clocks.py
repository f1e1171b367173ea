"""Clocks that were set since: a node's ids go on above those of the archive."""

from __future__ import annotations

import time

import pymongo
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.protocol.clusters import Cluster
from tests.protocol.support import Rules
from tests.support.nodes import NodeServer


class ClockTests(Rules, unittest.TestCase):
    def nodes(self, kind: str) -> list[NodeServer]:
        return []

    async def test_above_the_newest_in_the_archive(self) -> None:
        """Redis' clock was ahead when the newest was stored. Ids rise all the same; sendTime is right."""
        own = Cluster("clocks")
        newest = f"{int(time.time() * 1000) + 3_600_000:012x}000007" + "0" * 10
        with pymongo.MongoClient(own.mongo_url) as client:
            client.get_default_database()["im_message"].insert_one({"_id": newest})
        node = own.node()
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        alice = await self.login(self.name("alice"), url=node.url)
        answers = [await alice.say("bob", str(number)) for number in range(3)]
        ids = [answer["id"] for answer in answers]
        self.assertEqual([newest, *ids], sorted({newest, *ids}))
        for answer in answers:
            self.assertLess(abs(answer["sendTime"] / 1000 - time.time()), 60)
