"""Redis fails over and back under running nodes: devices are told, connected or away, at whichever node."""

from __future__ import annotations

from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.protocol.clusters import Cluster
from tests.protocol.support import Rules, new_folder
from tests.support.nodes import NodeServer
from tests.support.primaries import Address, Primary
from tests.support.ws_client import WsClient


class FailoverTests(Rules, unittest.TestCase):
    """Two servers of each test's own, and nodes that know one address."""

    timeout = 300

    async def servers(self) -> None:
        self.r1, self.r2 = Primary(new_folder()), Primary(new_folder())
        for server in (self.r1, self.r2):
            self.addCleanup(deferToThread, server.kill)
            await deferToThread(server.start)

    async def address(self) -> Address:
        address = Address(self.r1)
        self.addCleanup(address.end)
        return address

    async def node(self, cluster: Cluster, address: Address) -> NodeServer:
        node = cluster.node({"redis": {"url": address.url}})
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        return node

    async def begin(self, count: int, lossless: str = "no") -> None:
        """r2 has half of what r1 has; one device at the first node and one that is away have all of it."""
        await self.servers()
        self.place = await self.address()
        cluster = Cluster("failover", {"inbox": {"reconcile_seconds": 1}, "redis": {"lossless": lossless}})
        self.nodes_ = [await self.node(cluster, self.place) for _ in range(count)]
        self.here = await self.login(self.name("here"), url=self.nodes_[0].url, ack=True)
        self.away = await self.login(self.name("away"), url=self.nodes_[0].url, ack=True)
        self.writer = await self.login(self.name("alice"), url=self.nodes_[-1].url)
        await self.say_to_both(5)
        await deferToThread(self.r2.follow, self.r1)
        self.r2.lead()
        await self.say_to_both(5)
        for client in (self.here, self.away):
            self.assert_seqs(await client.messages(10), 1)
        await self.end(self.away)

    async def say_to_both(self, count: int) -> list[str]:
        to = [client.connected["userId"] for client in (self.here, self.away)]
        ids = []
        for _ in range(count):
            ids.append((await self.say_until_accepted(self.writer, {"group": to, "msg": "hi"}))["id"])
        return ids

    async def say_until_accepted(self, client: WsClient, frame: dict[str, Any]) -> Any:
        frame["clientMsgId"] = self.name("c")

        async def accepted() -> Any:
            client.send(frame)
            answer = await client.answer(frame["clientMsgId"])
            return answer if answer["type"] == "accepted" else None

        return await self.eventually(accepted)

    async def both_are_told(self) -> None:
        """And nothing accepted since is missed; whatever was lost is in the history."""
        ids = set(await self.say_to_both(5))
        reset = await self.here.take("reset")
        self.assertNotEqual(reset["epoch"], self.here.connected["epoch"])
        user, epoch = self.away.connected["userId"], self.away.connected["epoch"]
        back = await self.login(user, url=self.nodes_[-1].url, ack=True, cursor={"epoch": epoch, "seq": 10})
        self.assertIs(back.connected["recovered"], False)
        self.assertNotEqual(back.connected["epoch"], epoch)
        for client, seen in ((self.here, set[str]()), (back, set[str]())):
            while not ids <= seen:
                frame = await client.next()
                if "id" in frame:
                    seen.add(frame["id"])
            await self.archived(client, 15, all=True)

    async def nobody_is_told(self) -> None:
        await self.say_to_both(5)
        user, epoch = self.away.connected["userId"], self.away.connected["epoch"]
        back = await self.login(user, url=self.nodes_[-1].url, ack=True, cursor={"epoch": epoch, "seq": 10})
        self.assertIs(back.connected["recovered"], True)
        for client in (self.here, back):
            frames = [await client.next() for _ in range(5)]
            self.assertEqual([frame.get("seq") for frame in frames], list(range(11, 16)))
            await client.quiet()
            self.assertEqual(list(client.frames), [])

    def flip(self) -> None:
        self.r1.follow(self.r2)
        self.r1.lead()

    async def test_flip(self) -> None:
        """One node: r1 follows r2 and leads again, in milliseconds."""
        await self.begin(1)
        self.flip()
        await self.both_are_told()
        self.assertEqual(self.nodes_[0].metric("imd_redis_runs_total"), 1)

    async def test_flip_under_three_nodes(self) -> None:
        await self.begin(3, "yes")
        self.flip()
        await self.both_are_told()

    async def test_failover_and_failback(self) -> None:
        """Three nodes follow to r2, and come back to an r1 that has followed r2 meanwhile."""
        await self.begin(3)
        self.place.lead_to(self.r2)
        self.place.cut()
        await self.both_are_told()
        run = int(self.r2.ask("GET", "imd:run").split()[0])
        await deferToThread(self.r1.follow, self.r2)
        self.place.lead_to(self.r1)
        self.place.cut()
        self.r1.lead()
        head = f"imd:{{{self.here.connected['userId']}}}:head"

        async def told_of_the_last() -> bool:
            # Each node that comes soon after another may start a run.
            epoch, number = self.r1.ask("HMGET", head, "epoch", "n")
            resets = [frame for frame in self.here.frames if frame.get("type") == "reset"]
            return int(number) > run and bool(resets) and resets[-1]["epoch"].encode() == epoch

        await self.eventually(told_of_the_last)

    async def test_failback_while_no_node_runs(self) -> None:
        await self.begin(1, "yes")
        user, epoch = self.here.connected["userId"], self.here.connected["epoch"]
        await deferToThread(self.nodes_[0].stop)
        self.flip()
        await deferToThread(self.nodes_[0].start)
        self.writer = await self.login(self.name("alice"), url=self.nodes_[0].url)
        await self.say_to_both(5)
        back = await self.login(user, url=self.nodes_[0].url, ack=True, cursor={"epoch": epoch, "seq": 10})
        self.assertIs(back.connected["recovered"], False)

    async def test_first_replica_and_restart_without_loss(self) -> None:
        """Nothing was lost, and nobody is told: a replica attaches, and Redis is restarted."""
        await self.begin(1, "yes")
        await deferToThread(self.r2.follow, self.r1)
        await deferToThread(self.r2.kill)
        await deferToThread(self.r1.restart)
        await self.nobody_is_told()
        self.assertEqual(self.nodes_[0].metric("imd_redis_runs_total"), 0)

    async def test_two_primaries(self) -> None:
        """A device that the new primary has told already is told again, for what the old one took since."""
        await self.servers()
        old, new = await self.address(), await self.address()
        cluster = Cluster("two", {"inbox": {"reconcile_seconds": 1}})
        a, b = [await self.node(cluster, address) for address in (old, new)]
        bob = await self.login(self.name("bob"), url=b.url, ack=True)
        alice = await self.login(self.name("alice"), url=a.url)
        await deferToThread(self.r2.follow, self.r1)
        self.r2.lead()
        new.lead_to(self.r2)
        new.cut()
        first = await bob.take("reset")
        lost = await alice.say(bob.connected["userId"], "to the old one")
        old.lead_to(self.r2)
        old.cut()
        second = await bob.take("reset")
        self.assertNotEqual(second["epoch"], first["epoch"])
        found = await self.archived(bob, 1, all=True)
        self.assertEqual(found[0]["id"], lost["id"])

    async def test_redis_cluster(self) -> None:
        """It is no Redis for imd: the start ends, with a line that says why."""
        redis = Primary(new_folder(), "--cluster-enabled", "yes", databases=1)
        self.addCleanup(deferToThread, redis.kill)
        await deferToThread(redis.start)
        node = Cluster("none").node({"redis": {"url": redis.url}})
        self.addCleanup(deferToThread, node.kill)
        with self.assertRaisesRegex(Exception, "ended with 1"):
            await deferToThread(node.start)
        log = node.log.read_text()
        self.assertIn("cannot start: redis: this is a Redis Cluster", log)
        self.assertNotIn("Traceback", log)
