"""The rules of the protocol on clusters: users of one test land on different nodes."""

from __future__ import annotations

import itertools
from functools import cache

from twisted.trial import unittest

from tests.nodes import NodeServer
from tests.protocol.rules import ProtocolRules
from tests.protocol.support import KINDS, new_folder, started
from tests.servers import shared

NODES = {"plain": 3}
_numbers = itertools.count(1)


@cache
def cluster_urls(kind: str) -> dict[str, dict[str, object]]:
    """Configuration of a system of its own on the shared servers: one for each kind."""
    servers = shared()
    return {
        "node": {"backend": "cluster"},
        "redis": {"url": servers.redis_url()},
        "rabbitmq": {"url": servers.amqp_url()},
        "mongodb": {"url": servers.mongo_url()},
    }


def cluster_node(kind: str) -> NodeServer:
    """One more node of a kind's cluster, not started."""
    ini = {section: dict(keys) for section, keys in cluster_urls(kind).items()}
    for section, keys in KINDS[kind].items():
        ini.setdefault(section, {}).update(keys)
    return NodeServer(new_folder(), ini, name=f"{kind}-{next(_numbers)}")


@cache
def cluster_nodes(kind: str) -> list[NodeServer]:
    """The nodes of a kind, started when first asked for."""
    return [started(cluster_node(kind)) for _ in range(NODES.get(kind, 2))]


class ClusterNodesTests(ProtocolRules, unittest.TestCase):
    """Two or three nodes of each kind, shared by all tests."""

    def nodes(self, kind: str) -> list[NodeServer]:
        return cluster_nodes(kind)

    def spare_node(self) -> NodeServer:
        return cluster_node("plain")
