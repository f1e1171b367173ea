"""The rules of the protocol on clusters: users of one test land on different nodes."""

from __future__ import annotations

import inspect
import re

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.protocol.clusters import Cluster
from tests.protocol.rules import ProtocolRules
from tests.protocol.support import KINDS
from tests.support.group_end import group_cache
from tests.support.nodes import NodeServer

NODES = {"plain": 3}


@group_cache
def cluster(kind: str) -> Cluster:
    return Cluster(kind, KINDS[kind])


@group_cache
def running() -> dict[str, list[NodeServer]]:
    """The nodes that there are, by kind."""
    return {}


def cluster_nodes(kind: str) -> list[NodeServer]:
    """The nodes of a kind, started when first asked for."""
    if kind not in running():
        running()[kind] = cluster(kind).start(NODES.get(kind, 2))
    return running()[kind]


def make_room(kinds: set[str]) -> None:
    """If nodes of these kinds are to be started, end all but these and the plain ones.

    A node that nobody uses costs processor time, too.
    """
    if kinds <= running().keys():
        return
    for kind in running().keys() - kinds - {"plain"}:
        for node in running().pop(kind):
            node.kill()


class ClusterNodesTests(ProtocolRules, unittest.TestCase):
    """Two or three nodes of each kind, shared by all tests that use it."""

    @property
    def kinds(self) -> set[str]:
        """Of nodes that the test names beside the plain ones."""
        source = inspect.getsource(getattr(type(self), self._testMethodName))
        by_default = {"desk"} if re.search(r"self\.(visitor|agent)\(", source) else set()
        return by_default | {kind for kind in KINDS if f'"{kind}"' in source} - {"plain"}

    @property
    def turn(self) -> str:
        """Tests that use the same kinds run one after another."""
        return ",".join(sorted(self.kinds))

    async def setUp(self) -> None:
        await deferToThread(make_room, self.kinds)

    def nodes(self, kind: str) -> list[NodeServer]:
        return cluster_nodes(kind)

    def spare_node(self) -> NodeServer:
        return cluster("plain").node()
