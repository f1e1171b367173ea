"""Running nodes notice what a policy takes out of the archive queue while MongoDB stands still."""

from __future__ import annotations

from typing import Any

import pymongo
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.store.mongo.ledger import count_missing
from imd.store.rabbit.archive_queue import ARCHIVE_QUEUE
from tests.command import imd
from tests.protocol.clusters import Cluster
from tests.protocol.support import Rules
from tests.support.nodes import NodeServer
from tests.support.rabbit import Broker, own_mongo, until
from tests.support.servers import shared


class MissingTests(Rules, unittest.TestCase):
    timeout = 900

    def nodes(self, kind: str) -> list[NodeServer]:
        raise AssertionError("each test has its own")

    async def test_policy(self) -> None:
        """Two nodes, a `message-ttl` on all of imd's queues: metric, log line and doctor, in real time."""
        mongo = own_mongo(self)
        cluster = Cluster("m", {"mongodb": {"url": mongo.url}})
        nodes = [cluster.node(), cluster.node()]
        for node in nodes:
            self.addCleanup(deferToThread, node.kill)
            await deferToThread(node.start)
        client: Any = pymongo.MongoClient(mongo.url, serverSelectionTimeoutMS=60_000)
        self.addCleanup(client.close)
        database = client.get_default_database("imd")
        vhost = cluster.amqp_url.rsplit("/", 1)[1]
        policy = ("set_policy", "-p", vhost, "--apply-to", "queues", "tidy", "^imd", '{"message-ttl": 200}')
        await deferToThread(shared().rabbit.rabbitctl, *policy)
        broker = Broker(cluster.amqp_url)
        self.addCleanup(broker.close)
        alice = await self.login("alice", url=nodes[0].url)
        mongo.pause()
        self.addCleanup(mongo.resume)
        # Two writers hold 64 batches each.
        for number in range(160):
            alice.send({"to": "bob", "msg": f"text {number}"})
            await until(lambda: alice.frames, "an answer")
            self.assertEqual(alice.frames.popleft()["type"], "accepted")
        await until(lambda: broker.length(ARCHIVE_QUEUE) == 0, "the policy takes the others out")
        mongo.resume()

        def archived_or_missing() -> int:
            return int(database["im_message"].count_documents({})) + sum(count_missing(database).values())

        # Each message was a batch. A batch that only one node can tell of is noticed a round later.
        await until(lambda: sum(count_missing(database).values()), "it is noticed", 300)
        await until(lambda: archived_or_missing() == 160, "all are noticed", 300)
        found = sum(count_missing(database).values())
        await until(
            lambda: sum(node.metric("imd_archive_missing_total") for node in nodes) == found, "a count"
        )
        self.assertTrue(any("never came out of imd.archive" in node.log.read_text() for node in nodes))
        _, said, _ = await deferToThread(imd, "doctor", nodes[0].folder / "node.ini")
        self.assertIn(f"{found} confirmed batches are missing", " ".join(said.split()))
