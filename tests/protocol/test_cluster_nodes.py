"""The rules of the protocol on clusters: users of one test land on different nodes."""

from __future__ import annotations

from functools import cache

from twisted.trial import unittest

from tests.protocol.clusters import Cluster
from tests.protocol.rules import ProtocolRules
from tests.protocol.support import KINDS
from tests.support.nodes import NodeServer

NODES = {"plain": 3}


@cache
def cluster(kind: str) -> Cluster:
    return Cluster(kind, KINDS[kind])


@cache
def cluster_nodes(kind: str) -> list[NodeServer]:
    """The nodes of a kind, started when first asked for."""
    return cluster(kind).start(NODES.get(kind, 2))


class ClusterNodesTests(ProtocolRules, unittest.TestCase):
    """Two or three nodes of each kind, shared by all tests."""

    def nodes(self, kind: str) -> list[NodeServer]:
        return cluster_nodes(kind)

    def spare_node(self) -> NodeServer:
        return cluster("plain").node()
