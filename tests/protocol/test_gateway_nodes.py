"""The rules of delivery on clusters with `routing = gateway`; most users are not at home."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.gateway.table import LEASE_SECONDS
from tests.protocol.clusters import Cluster
from tests.protocol.delivery import DeliveryRules
from tests.protocol.messages import ResendRules
from tests.protocol.support import KINDS, started
from tests.protocol.visitors import VisitorRules
from tests.support.group_end import group_cache
from tests.support.nodes import NodeServer
from tests.support.servers import wait_until

USED = ("plain", "small", "rate", "desk", "grace")
SLOTS = 1024


@group_cache
def cluster(kind: str) -> Cluster:
    return Cluster(f"g{kind}", {**KINDS[kind], "cluster": {"routing": "gateway"}})


@group_cache
def cluster_nodes() -> dict[str, list[NodeServer]]:
    """Two nodes of each kind. All tables come of age at the same time, and from then on users have homes."""
    found = {kind: [cluster(kind).node() for _ in range(2)] for kind in USED}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(started, [node for nodes in found.values() for node in nodes]))
    end = time.monotonic() + 180 + LEASE_SECONDS
    for kind, nodes in found.items():

        def have_homes(nodes: list[NodeServer] = nodes) -> bool:
            return all(0 < node.metric("imd_home_slots") < SLOTS for node in nodes)

        wait_until(have_homes, end - time.monotonic(), f"homes on {kind} nodes")
    return found


class GatewayNodesTests(DeliveryRules, ResendRules, VisitorRules, unittest.TestCase):
    """Rules that do not lead from node to node are not repeated here."""

    async def setUp(self) -> None:
        await deferToThread(cluster_nodes)

    def nodes(self, kind: str) -> list[NodeServer]:
        return cluster_nodes()[kind]

    def spare_node(self) -> NodeServer:
        return cluster("plain").node()
