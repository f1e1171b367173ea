"""Presence when nodes hang and die: nobody says so, and watchers on other nodes see it."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.protocol.clusters import Cluster
from tests.protocol.presence import Watching
from tests.support.nodes import NodeServer

LEASE_SECONDS = 8
"""renewed three times in it, so a busy machine keeps it"""


class NodePresenceTests(Watching, unittest.TestCase):
    """Two nodes of a cluster of their own: the watcher's, and the watched user's."""

    def nodes(self, kind: str) -> list[NodeServer]:
        return []

    async def test_node_hangs_and_dies(self) -> None:
        """Offline when the lease ends, online when the node goes on, offline again after kill -9."""
        cluster = Cluster("presence", {"node": {"lease_seconds": LEASE_SECONDS}})
        here, there = nodes = [cluster.node(), cluster.node()]
        for node in nodes:
            self.addCleanup(deferToThread, node.kill)
            await deferToThread(node.start)
        bob = self.name("bob")
        alice = await self.login(self.name("alice"), url=here.url, features=["state"])
        self.assertEqual(await self.watched(alice, bob), {bob: False})
        await self.login(bob, url=there.url)
        self.assertEqual(await self.news(alice), {bob: True})
        there.pause()
        stopped_at = reactor.seconds()
        self.assertEqual(await self.news(alice), {bob: False})
        # A second more than the lease, and many for a machine that is busy: the next look without it is
        # a minute away.
        self.assertLess(reactor.seconds() - stopped_at, LEASE_SECONDS + 30)
        there.resume()
        self.assertEqual(await self.news(alice), {bob: True})
        await deferToThread(there.kill)
        self.assertEqual(await self.news(alice), {bob: False})
