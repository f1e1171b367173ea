"""Nodes of 0.1.0, from the repository's history, beside nodes of this version, until the level is raised."""

from __future__ import annotations

import json
import socket
from typing import Any

import pymongo
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.store.mongo.ledger import read_ledger
from tests.command import imd
from tests.protocol.clusters import Cluster
from tests.protocol.support import Rules, new_folder
from tests.support.nodes import NodeServer
from tests.support.old_version import NoHistory, OldNode, old_tree
from tests.support.rabbit import until
from tests.support.servers import free_port
from tests.support.ws_client import WsClient


class UpgradeTests(Rules, unittest.TestCase):
    """Each test has a cluster of its own, on the shared servers."""

    timeout = 600

    def setUp(self) -> None:
        try:
            old_tree()
        except NoHistory as reason:
            raise unittest.SkipTest(str(reason)) from None
        self.cluster = Cluster("u", {"inbox": {"reconcile_seconds": 2}, "desk": {"grace_seconds": 2}})

    def nodes(self, kind: str) -> list[NodeServer]:
        raise AssertionError("each test has its own")

    async def nobody_online(self, kind: str) -> None:
        """Another test has another cluster."""

    async def begin(self, node: NodeServer) -> NodeServer:
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        return node

    async def old(self, name: str = "old") -> NodeServer:
        return await self.begin(OldNode(new_folder(), self.cluster.ini, name=name))

    async def new(self) -> NodeServer:
        return await self.begin(self.cluster.node())

    async def old_stays_out(self) -> None:
        """The broker refuses a node of 0.1.0, which is not ready before or after."""
        late = OldNode(new_folder(), self.cluster.ini, name="late")
        is_ready, seen = late.answers, []

        def is_refused() -> bool:
            seen.append(is_ready())
            return late.log.exists() and "inequivalent arg" in late.log.read_text()

        self.patch(late, "answers", is_refused)
        await self.begin(late)
        # Some more of its attempts.
        await until(lambda: late.metric("imd_rabbitmq_failures_total") > 3, "it tries again")
        seen.append(is_ready())
        self.assertNotIn(True, seen)
        await deferToThread(late.kill)

    async def upgrade(self, node: NodeServer, *options: str) -> tuple[int, dict[str, Any]]:
        """Exit code and answer of `imd upgrade`."""
        file = node.folder / "node.ini"
        code, said, wrong = await deferToThread(imd, "upgrade", file, "--json", *options)
        assert said, wrong
        return code, json.loads(said)

    async def level(self, node: NodeServer) -> int:
        return int(await deferToThread(node.metric, "imd_level"))

    async def both_ways(
        self, one: WsClient, other: WsClient, first: str, second: str, turn: str = ""
    ) -> None:
        """Messages from each to the other, answered and delivered in order and once."""
        count = 5
        for number in range(count):
            one.send({"to": second, "msg": f"{first} {number}", "clientMsgId": f"{turn}{number}"})
            other.send({"to": first, "msg": f"{second} {number}", "clientMsgId": f"{turn}{number}"})
        for client, sender in ((one, second), (other, first)):
            got = await client.messages(count)
            self.assertEqual([message["msg"] for message in got], [f"{sender} {n}" for n in range(count)])
            for _ in range(count):
                await client.take("accepted")

    async def test_side_by_side(self) -> None:
        """Messages both ways, without a reset; history; resends at the other version's node."""
        old = await self.old()
        new = await self.new()
        self.assertEqual(await self.level(new), 1)
        alice = await self.login("alice", url=old.url, device="a", ack=True)
        bob = await self.login("bob", url=new.url, device="b", ack=True, features=["events", "sync"])
        self.assertNotIn("features", bob.connected)
        await self.both_ways(alice, bob, "alice", "bob")

        def heard() -> bool:
            return all(node.metric("imd_bus_received_total") > 0 for node in (old, new))

        # On a busy machine an inbox may be looked into before the hint comes.
        await until(heard, "each node hears the other")
        # No inbox got another epoch.
        await alice.quiet()
        await bob.quiet()
        self.assertEqual([frame.get("type") for frame in [*alice.frames, *bob.frames]], [])
        first = await self.sent_again(old, new, "alice", "bob")
        second = await self.sent_again(new, old, "alice", "bob")
        await bob.messages(2)
        for client, other in ((alice, "bob"), (bob, "alice")):
            page = await self.archived(client, 12, **{"with": other})
            texts = [message["msg"] for message in page]
            self.assertEqual(sorted(texts[-2:]), sorted(["again 1", "again 2"]) if first and second else None)
            self.assertEqual(len(texts), len(set(texts)))
        bob.send({"type": "edit", "clientMsgId": "e-1", "id": first, "msg": "x"})
        self.assertEqual((await bob.take("error"))["code"], "unknown_type")

    async def sent_again(self, one: NodeServer, other: NodeServer, user: str, to: str) -> str:
        """Send through one node, and the same again through the other; gives the id that both answered."""
        self.again = getattr(self, "again", 0) + 1
        frame = {"to": to, "msg": f"again {self.again}", "clientMsgId": f"again-{self.again}"}
        ids = []
        for node in (one, other):
            client = await self.login(user, url=node.url, device="sender")
            client.send(frame)
            ids.append((await client.take("accepted"))["id"])
            await self.end(client)
        self.assertEqual(ids[0], ids[1])
        return str(ids[0])

    async def test_desk(self) -> None:
        """A visitor and its agents on nodes of both versions: each question once at each agent, none lost."""
        old, new = await self.old(), await self.new()
        for number, (asks, first, second) in enumerate(
            ((old, new, old), (new, old, new), (new, new, old), (old, old, new))
        ):
            anna, bert = f"anna-{number}", f"bert-{number}"
            agent = await self.agent(anna, url=first.url, device="d", ack=True)
            agent.acks = False
            visitor = await self.visitor(url=asks.url)
            for text in ("one", "two"):
                visitor.send({"msg": f"{text} {number}"})
                await visitor.take("accepted")
            got = [message["msg"] for message in await agent.messages(2)]
            self.assertEqual(got, [f"one {number}", f"two {number}"])
            await self.end(visitor)
            known = {"userId": visitor.connected["userId"], "visitorToken": visitor.connected["visitorToken"]}
            visitor = await self.visitor(url=(old if asks is new else new).url, **known)
            self.assertEqual(visitor.connected["userId"], known["userId"])
            # The agent goes without an acknowledgement; the next one gets both.
            await self.end(agent)
            agent = await self.agent(bert, url=second.url, device="d")
            visitor.send({"msg": f"three {number}"})
            await visitor.take("accepted")
            got = [message["msg"] for message in await agent.messages(3)]
            self.assertEqual(sorted(got), sorted(f"{text} {number}" for text in ("one", "two", "three")))
            seqs = [frame["seq"] for frame in [*agent.frames] if "seq" in frame]
            self.assertEqual(seqs, [])
            await self.end(agent)
            await self.end(visitor)

    async def test_nothing_is_missing(self) -> None:
        """Batches that a node of 0.1.0 wrote, and noted nowhere, are never taken for missing."""
        old, new = await self.old(), await self.new()
        alice = await self.login("alice", url=new.url)
        for number in range(20):
            await alice.say("bob", f"text {number}")
        await self.archived(alice, 20, **{"with": "bob"})

        def written() -> float:
            return sum(node.metric("imd_archive_written_total") for node in (old, new))

        # A node counts what it has written when MongoDB has answered, a moment after a reader may find it.
        await until(lambda: written() == 20, "all is written, once")
        await deferToThread(old.stop)
        code, said = await self.upgrade(new, "--finish")
        self.assertEqual((code, said["done"]), (0, True))
        alice = await self.login("alice", url=new.url)
        for number in range(5):
            await alice.say("bob", f"more {number}")
        client: Any = pymongo.MongoClient(self.cluster.mongo_url, tz_aware=True)
        self.addCleanup(client.close)
        collection = client.get_default_database()["im_message"]

        def all_written() -> bool:
            blocks = read_ledger(collection).blocks
            return any(block.confirmed for block in blocks) and not any(
                block.confirmed & ~block.written for block in blocks
            )

        await until(all_written, "what was confirmed is written")

    async def test_finish(self) -> None:
        """Refused while 0.1.0 runs; then raised: 0.1.0 never gets ready, until it is undone."""
        old, new = await self.old(), await self.new()
        code, said = await self.upgrade(new)
        self.assertEqual((code, said["level"], said["done"]), (1, 1, False))
        code, said = await self.upgrade(new, "--finish")
        self.assertEqual(code, 1)
        self.assertIn("0.1", said["error"])
        # Nothing has changed for either.
        alice = await self.login("alice", url=old.url, device="a", ack=True)
        bob = await self.login("bob", url=new.url, device="b", ack=True)
        await self.both_ways(alice, bob, "alice", "bob")
        await self.end(alice)
        await deferToThread(old.stop)
        other = await self.new()
        code, said = await self.upgrade(new, "--finish")
        self.assertEqual((code, said), (0, {"level": 2, "done": True, "late": []}))
        self.assertEqual(await bob.wait_closed(), 4200)
        bob = await self.login("bob", url=new.url, device="b", ack=True, features=["events", "sync"])
        self.assertEqual(bob.connected["features"], ["events", "sync"])
        self.assertEqual([await self.level(node) for node in (new, other)], [2, 2])
        await self.old_stays_out()
        # Again is no harm.
        self.assertEqual((await self.upgrade(new, "--finish"))[0], 0)
        self.assertEqual((await self.upgrade(new))[0], 0)
        code, said = await self.upgrade(new, "--undo")
        self.assertEqual((code, said["level"]), (0, 1), said)
        self.assertEqual(await bob.wait_closed(), 4200)
        old = await self.old("back")
        alice = await self.login("alice", url=old.url, device="a", ack=True)
        bob = await self.login("bob", url=other.url, device="b", ack=True, features=["events"])
        self.assertNotIn("features", bob.connected)
        await self.both_ways(alice, bob, "alice", "bob", "undone")

    async def test_undo_is_refused(self) -> None:
        """Once events were written; the level stays, and clients are not even closed."""
        new = await self.new()
        self.assertEqual(await self.level(new), 2)
        with pymongo.MongoClient(self.cluster.mongo_url) as client:
            client.get_default_database()["im_event"].insert_one({"_id": "x"})
        code, said = await self.upgrade(new, "--undo")
        self.assertEqual(code, 1)
        self.assertIn("events", said["error"])
        self.assertEqual(self.cluster.redis("GET", "imd:level"), b"2")

    async def test_new_installation(self) -> None:
        """Several nodes that start at the same time on empty servers: the newest level; 0.1.0 stays out."""
        nodes = [self.cluster.node() for _ in range(3)]
        for node in nodes:
            self.addCleanup(deferToThread, node.kill)
        starts = [deferToThread(node.start) for node in nodes]
        for start in starts:
            await start
        self.assertEqual([await self.level(node) for node in nodes], [2, 2, 2])
        await self.old_stays_out()

    async def test_neither_tells(self) -> None:
        """Without a word in Redis, and without MongoDB, a node is not ready, says why, and opens no port."""
        self.cluster.ini["mongodb"]["url"] = f"mongodb://127.0.0.1:{free_port()}/imd"
        node = self.cluster.node()
        node.start_seconds = 0
        self.addCleanup(deferToThread, node.kill)
        self.patch(node, "answers", lambda: True)
        await deferToThread(node.start)

        def reasons() -> dict[str, str]:
            try:
                return dict(json.loads(node.http("readyz")[1])["reasons"])
            except OSError:
                return {}

        level = await until(lambda: reasons().get("level"), "a reason")
        self.assertTrue(level.startswith("level: unknown"), level)
        self.assertIn("MongoDB", level)
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", node.port), timeout=60)
        # A word in Redis is enough.
        self.cluster.redis("SET", "imd:level", 2)
        await until(lambda: "level" not in reasons() and reasons(), "the level is known")
        # The port opens a moment later.
        await until(lambda: "clients are welcome" in node.log.read_text(), "the port is open")
        await self.login("alice", url=node.url)

    async def test_both_forget(self) -> None:
        """A Redis that lost its memory gets the level from MongoDB, also for a node that starts then."""
        new = await self.new()
        await deferToThread(new.stop)
        self.cluster.redis("FLUSHDB")
        new = await self.new()
        self.assertEqual(await self.level(new), 2)
        self.cluster.redis("FLUSHDB")
        await until(lambda: self.cluster.redis("GET", "imd:level") == b"2", "the word is back")
