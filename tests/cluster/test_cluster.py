"""Features that only a cluster has: delivery between nodes, and its data in Redis and MongoDB."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import msgspec
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.cluster.across import AcrossNodes
from tests.protocol.clusters import Cluster
from tests.support.group_end import group_cache
from tests.support.nodes import NodeServer
from tests.support.rabbit import Broker


@group_cache
def cluster() -> Cluster:
    return Cluster("c")


@group_cache
def three_nodes() -> list[NodeServer]:
    return cluster().start(3)


class ClusterTests(AcrossNodes, unittest.TestCase):
    """Nodes that search."""

    def cluster(self) -> Cluster:
        return cluster()

    def nodes(self, kind: str) -> list[NodeServer]:
        return three_nodes()

    def spare_node(self) -> NodeServer:
        return cluster().node()

    def listen_to_searches(self) -> tuple[Broker, str]:
        """A queue of one's own at the fanout exchange."""
        # They have made the exchange.
        three_nodes()
        broker = Broker(cluster().amqp_url)
        self.addCleanup(broker.close)
        queue = broker.channel.queue_declare("", exclusive=True).method.queue
        broker.channel.queue_bind(queue, "imd.all")
        return broker, queue

    def searches(self, broker: Broker, queue: str, wanted: str) -> int:
        """How many of the fanout messages since the last call look for the channel `wanted`."""
        count = 0
        while (found := broker.take(queue)) is not None:
            _, body = found
            msgspec.msgpack.decode(body)
            count += wanted.encode() in body
        return count

    async def test_search_once_per_channel(self) -> None:
        """The fanout is asked once per channel and asking node; later messages go straight to its node."""
        broker, queue = self.listen_to_searches()
        bob = await self.login(self.name("bob"), url=self.at(1), ack=True)
        to, wanted = bob.connected["userId"], bob.connected["channel"]
        for number, expected in ((0, 1), (2, 1), (0, 0), (1, 0)):
            node = three_nodes()[number]
            before = node.metric("imd_channel_searches_total")
            sender = await self.login(self.name("alice"), url=node.url)
            for text in range(20):
                await sender.say(to, str(text))
                if text == 0:
                    await bob.take("message")
            self.assertEqual(len(await bob.messages(19)), 19)
            self.assertEqual(node.metric("imd_channel_searches_total") - before, expected)
            self.assertEqual(self.searches(broker, queue, wanted), expected)
        self.assertGreater(three_nodes()[1].metric("imd_delivered_messages_total"), 0)

    async def test_visitor_that_never_wrote(self) -> None:
        """Its keys last an hour, anew while it is connected; from its first message on they last for days."""
        node = cluster().node({"node": {"lease_seconds": 3}, "inbox": {"reconcile_seconds": 1}})
        self.addCleanup(node.kill)
        await deferToThread(node.start)
        visitor = await self.login(None, url=node.url, loginType=None, isVisitor=True)

        def names() -> list[str]:
            found = cluster().redis("KEYS", f"imd:{{{visitor.connected['userId']}}}:*")
            return [key.decode() for key in found]

        def ends() -> list[int]:
            return [cluster().redis("TTL", key) for key in keys]

        keys = names()

        self.assertEqual(len(keys), 5)
        self.assertTrue(all(0 < seconds <= 3600 for seconds in ends()), ends())
        for key in keys:
            cluster().redis("EXPIRE", key, 100)

        async def renewed() -> bool:
            return min(ends()) > 3000

        await self.eventually(renewed)
        visitor.send({"msg": "hello"})
        await visitor.take("accepted")
        keys = names()
        self.assertEqual([key for key in keys if "newcomer" in key], [])
        self.assertGreater(min(ends()), 20 * 86_400)
        # Answered, or the agents of other tests get its question.
        agent = await self.login(self.name("agent"), url=self.at(0), isCustomerService=True, ack=True)
        self.assertEqual((await agent.take("message"))["msg"], "hello")
        await agent.say(visitor.connected["userId"], "hello to you")

    async def test_search_under_load(self) -> None:
        """Also when many messages come before the answer: one search, everything arrives in order."""
        broker, queue = self.listen_to_searches()
        bob = await self.login(self.name("bob"), url=self.at(1), ack=True)
        sender = await self.login(self.name("alice"), url=self.at(0))
        for number in range(150):
            sender.send({"to": bob.connected["userId"], "msg": str(number)})
        messages = await bob.messages(150)
        self.assert_seqs(messages, 1)
        self.assertEqual([message["msg"] for message in messages], [str(n) for n in range(150)])
        self.assertEqual(self.searches(broker, queue, bob.connected["channel"]), 1)

    async def test_no_search_on_the_same_node(self) -> None:
        """A recipient here, or nowhere, is not searched for."""
        node = three_nodes()[2]
        before = node.metric("imd_channel_searches_total")
        bob = await self.login(self.name("bob"), url=node.url)
        sender = await self.login(self.name("alice"), url=node.url)
        for number in range(10):
            await sender.say(bob.connected["userId"], str(number))
            await sender.say(self.name("nobody"), str(number))
        await bob.messages(10)
        self.assertEqual(node.metric("imd_channel_searches_total"), before)

    async def test_offline_messages_are_in_the_zset(self) -> None:
        """The seed's ZSET: seq as score, the message as JSON; pulled in pages, and gone when acknowledged."""
        user = self.name("bob")
        sender = await self.login(self.name("alice"), url=self.at(0))
        ids = []
        for number in range(180):
            sender.send({"clientMsgId": f"c-{number}", "to": user, "msg": str(number)})
        for _ in range(180):
            ids.append((await sender.take("accepted"))["id"])
        key = f"imd:{{{user}}}:inbox"
        self.assertEqual(cluster().redis("TYPE", key), b"zset")
        flat = cluster().redis("ZRANGE", key, 0, -1, "WITHSCORES")
        self.assertEqual([int(score) for score in flat[1::2]], list(range(1, 181)))
        self.assertEqual(int(cluster().redis("HGET", f"imd:{{{user}}}:head", "seq")), 180)
        for number, member in enumerate(flat[::2]):
            body = json.loads(member[member.index(b"{") :])
            self.assertEqual((body["id"], body["msg"], body["to"]), (ids[number], str(number), user))
        node = three_nodes()[2]
        before = node.metric("imd_pulled_messages_total")
        client = await self.login(user, url=node.url, ack=True)
        messages = await client.messages(180)
        self.assert_seqs(messages, 1)
        self.assertEqual([message["id"] for message in messages], ids)
        self.assertEqual(node.metric("imd_pulled_messages_total") - before, 180)

        async def trimmed() -> bool:
            return cluster().redis("ZCARD", key) == 0

        await self.eventually(trimmed)

    async def test_unusual_ids_in_keys(self) -> None:
        """Ids in keys are percent-encoded except [A-Za-z0-9._@-]: none can leave its hash tag."""
        suffix = self.name("")
        sender = await self.login(self.name("alice"))
        for user, encoded in (
            ("{x}:*", "%7Bx%7D%3A%2A"),
            ("ö#%7B ", "%C3%B6%23%257B%20"),
            ("a.b_c@d-E9", "a.b_c@d-E9"),
            ("~", "%7E"),
        ):
            await sender.say(user + suffix, "hi")
            self.assertEqual(cluster().redis("ZCARD", f"imd:{{{encoded}{suffix}}}:inbox"), 1, user)

    async def test_registered_channel(self) -> None:
        """A channel stands in the registry with its lease's end, and is gone when it has left."""
        user = self.name("bob")
        key = f"imd:{{{user}}}:channels"
        clients = [await self.login(user, url=self.at(n), device=f"d{n}") for n in range(3)]
        now = int(cluster().redis("TIME")[0])
        entries = cluster().redis("HGETALL", key)
        found = {entries[i].decode(): entries[i + 1].decode() for i in range(0, len(entries), 2)}
        self.assertEqual(set(found), {"d0", "d1", "d2"})
        for number, client in enumerate(clients):
            channel, _, lease_end = found[f"d{number}"].partition(" ")
            self.assertEqual(channel, client.connected["channel"])
            self.assertTrue(now + 60 <= int(lease_end) <= now + 91, found)
        await clients[0].close()
        await self.dropped(clients[1])

        async def gone() -> bool:
            return sorted(cluster().redis("HKEYS", key)) == [b"d2"]

        await self.eventually(gone)

    async def test_archive(self) -> None:
        """Every accepted message once in im_message, with the seed's fields; its indexes are there."""
        alice, bob = self.name("alice"), self.name("bob")
        senders = [
            await self.login(alice, url=self.at(0), loginType="customer"),
            await self.login(bob, url=self.at(1), isCustomerService=True),
        ]
        accepted: dict[str, int] = {}
        for number in range(100):
            for sender, to in zip(senders, (bob, alice), strict=True):
                sender.send({"clientMsgId": f"c-{number}", "to": to, "msg": str(number)})
                if number % 10 == 0:
                    sender.send({"clientMsgId": f"c-{number}", "to": to, "msg": str(number)})
        for sender in senders:
            for _ in range(110):
                answer = await sender.take("accepted")
                accepted[answer["id"]] = answer["sendTime"]
        senders[0].send({"group": [bob], "msg": "group", "contentType": "text/x"})
        group_id = (await senders[0].take("accepted"))["id"]
        self.assertEqual(len(accepted), 200)

        async def documents() -> list[dict[str, Any]] | None:
            found = [doc for doc in cluster().archive()[0] if doc["userId"] in (alice, bob)]
            return found if len(found) >= 201 else None

        found = {doc["_id"]: doc for doc in await self.eventually(documents)}
        self.assertEqual(set(found), {*accepted, group_id})
        conversations = set()
        for message_id, send_time in accepted.items():
            doc = found[message_id]
            conversations.add(doc["conversation"])
            other = alice if doc["userId"] == bob else bob
            self.assertEqual(doc["to"], other)
            self.assertEqual(sorted(doc["participants"]), sorted([alice, bob]))
            self.assertEqual(doc["loginType"], "CUSTOMER_TYPE" if doc["userId"] == alice else "USER_TYPE")
            self.assertIs(doc["isCustomerService"], doc["userId"] == bob)
            self.assertEqual((doc["isVisitor"], doc["isConnect"]), (False, False))
            self.assertIsInstance(doc["sendTime"], datetime)
            self.assertIsInstance(doc["createTime"], datetime)
            self.assertEqual(
                round((doc["sendTime"] - datetime(1970, 1, 1)).total_seconds() * 1000), send_time
            )
        self.assertEqual(len(conversations), 1)
        self.assertEqual(found[group_id]["group"], [bob])
        self.assertFalse(found[group_id]["to"])
        indexes = cluster().archive()[1]
        for keys in (
            [("userId", 1), ("_id", 1)],
            [("to", 1), ("_id", 1)],
            [("conversation", 1), ("_id", 1)],
            [("participants", 1), ("_id", 1)],
        ):
            self.assertIn(keys, indexes)

    async def test_one_clock(self) -> None:
        """serverTime and sendTime of all nodes are Redis' time."""

        def now() -> int:
            seconds, micros = cluster().redis("TIME")
            return int(seconds) * 1000 + int(micros) // 1000

        for number in range(3):
            before = now()
            client = await self.login(self.name("alice"), url=self.at(number))
            accepted = await client.say(client.connected["userId"], "hi")
            # A node knows Redis' time to within a round trip.
            for told in (client.connected["serverTime"], accepted["sendTime"]):
                self.assertGreater(told, before - 1000)
                self.assertLess(told, now() + 1000)
            self.assertLess(abs(before - time.time() * 1000), 60_000)
