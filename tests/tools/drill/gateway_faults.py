"""Faults of a gateway: the table of nodes, HAProxy and its maps, sync."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from tests.gateway.gateway import IMD, Gateway
from tests.support.nodes import NodeServer
from tests.support.servers import spawn, tail

if TYPE_CHECKING:
    from tests.tools.drill.faults import Stage

COMMAND_SECONDS = 120.0
# A sync does a round in each second.
ROUND_SECONDS = 1.5


async def table_flush(stage: Stage) -> str:
    """Nodes and sync keep the last table: HAProxy's maps must stay as they are."""
    for _ in range(2):
        await asyncio.to_thread(stage.cluster.forget_nodes)
        await stage.hold(ROUND_SECONDS, 2 * ROUND_SECONDS)
        await _expect_maps(stage, stage.cluster.names)
    return "twice"


async def haproxy_kill(stage: Stage) -> str:
    haproxy = stage.cluster.gateways[0].haproxy
    await asyncio.to_thread(haproxy.kill)
    await stage.hold(0.2, 2.0)
    await asyncio.to_thread(haproxy.start)
    return "HAProxy"


async def haproxy_old_map(stage: Stage) -> str:
    """Users of one node are elsewhere, by maps from a time at which that node was not there."""
    gateway, left_out = stage.cluster.gateways[0], stage.rng.choice(stage.cluster.nodes)
    others = [name for name in stage.cluster.names if name != left_out.name]
    gateway.sync.pause()
    try:
        await asyncio.to_thread(gateway.reload_with_maps_of, others)
        await stage.hold(1.0, 3.0)
        await _expect_maps(stage, others)
    finally:
        gateway.sync.resume()
    return f"without {left_out.name}, right after {await _seconds_until_right(stage, gateway):.1f} s"


async def two_haproxies(stage: Stage) -> str:
    """While a node drains, one of them leads to its second choices, and the other one still to it."""
    second, node = await stage.cluster.add_gateway(), stage.rng.choice(stage.cluster.nodes)
    stage.ways.gateways.append(second)
    try:
        second.sync.pause()
        await _drain(stage, node)
        await stage.hold(ROUND_SECONDS, 2 * ROUND_SECONDS)
        maps = [await asyncio.to_thread(one.first_map) for one in (second, stage.cluster.gateways[0])]
        if maps[0] == maps[1]:
            raise AssertionError("both HAProxies have the same map")
        await _drain(stage, node, "--undo")
    finally:
        stage.ways.gateways.remove(second)
        await stage.cluster.end_gateway(second)
    return f"{node.name} drained"


async def sync_stops(stage: Stage) -> str:
    """HAProxy finds by its checks that a node has gone, and that it is back."""
    gateway, node = stage.cluster.gateways[0], stage.rng.choice(stage.cluster.nodes)
    gateway.sync.pause()
    try:
        await asyncio.to_thread(node.stop)
        await stage.hold(0.5, 2.0)
        await asyncio.to_thread(node.start)
    finally:
        gateway.sync.resume()
    return f"{node.name} restarted"


async def _drain(stage: Stage, node: NodeServer, *options: str) -> None:
    log = stage.cluster.folder / "drain.log"
    process = spawn([*IMD, "drain", node.folder / "node.ini", node.name, *options], log)
    if await asyncio.to_thread(process.wait, COMMAND_SECONDS) != 0:
        raise AssertionError(tail(log))


async def _expect_maps(stage: Stage, names: list[str]) -> None:
    gateway = stage.cluster.gateways[0]
    if await asyncio.to_thread(gateway.first_map) != gateway.homes(names):
        raise AssertionError(f"{gateway.name}: other maps than those of {', '.join(names)}")


async def _seconds_until_right(stage: Stage, gateway: Gateway) -> float:
    began = time.monotonic()
    await asyncio.to_thread(gateway.until_leads_to, stage.cluster.names)
    return time.monotonic() - began
