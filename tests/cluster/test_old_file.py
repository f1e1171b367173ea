"""A file that a node of 0.1.0 has written, from the repository's history: this version goes on with it."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.protocol.support import Rules, new_folder
from tests.support.nodes import NodeServer
from tests.support.old_version import NoHistory, OldNode, old_tree
from tests.support.servers import ServerError


class OldFileTests(Rules, unittest.TestCase):
    timeout = 300

    def nodes(self, kind: str) -> list[NodeServer]:
        raise AssertionError("each test has its own")

    async def run_node(self, node: NodeServer) -> NodeServer:
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        return node

    async def test_migrated(self) -> None:
        """Inboxes, cursors, resends and history go on without a hole; the old version can serve the copy."""
        try:
            old_tree()
        except NoHistory as reason:
            raise unittest.SkipTest(str(reason)) from None
        folder = new_folder()
        node = await self.run_node(OldNode(folder, {}))
        bob = await self.login("bob", url=node.url, device="d", ack=True)
        alice = await self.login("alice", url=node.url, device="d")
        await bob.quiet()
        first = await alice.say("bob", "one", clientMsgId="c-1")
        await bob.messages(1)
        await self.end(bob)
        await alice.say("bob", "two", clientMsgId="c-2")
        await deferToThread(node.kill)
        node = await self.run_node(NodeServer(folder, {}))
        bob = await self.login("bob", url=node.url, device="d", ack=True, features=["events"])
        self.assertEqual((bob.connected["recovered"], bob.connected["features"]), (True, ["events"]))
        self.assertEqual([message["msg"] for message in await bob.messages(1)], ["two"])
        alice = await self.login("alice", url=node.url, device="d")
        again = await alice.say("bob", "one", clientMsgId="c-1")
        self.assertEqual(again["id"], first["id"])
        await alice.say("bob", "three")
        page = await self.archived(bob, 3, **{"with": "alice"})
        self.assertEqual([message["msg"] for message in page], ["one", "two", "three"])
        await deferToThread(node.stop)
        # The old version refuses the new format, and serves the copy.
        refused = OldNode(folder, {})
        refused.start_seconds = 15
        with self.assertRaises(ServerError):
            await self.run_node(refused)
        (copy,) = (folder / "data").glob("imd.db.format-*")
        self.put_back(copy)
        node = await self.run_node(OldNode(folder, {}))
        bob = await self.login("bob", url=node.url, device="e")
        self.assertEqual([message["msg"] for message in await bob.messages(1)], ["two"])

    def put_back(self, copy: Path) -> None:
        for name in ("imd.db-wal", "imd.db-shm"):
            copy.with_name(name).unlink(missing_ok=True)
        os.replace(copy, copy.with_name("imd.db"))
