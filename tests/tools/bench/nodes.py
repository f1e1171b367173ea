"""The cost of a sender and a recipient on different nodes, and of many nodes."""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial

from tests.tools.bench.load import Ran, pace, saturate
from tests.tools.bench.one_to_one import cluster_turn
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row, ratio_at_most
from tests.tools.bench.rig import PinnedNode, Rig
from tests.tools.bench.turns import calmest, costs, others, wait_archived

SEED_WAY = "tests.tools.bench.seedway"


async def across(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """Two nodes on one core, every message from one to the other; against one node."""
    speed = Row("across", "across two nodes that share a core", "messages/s")
    cpu = Row("across-cpu", "across two nodes: CPU of both", "µs/message", goal=ratio_at_most(1.6))
    for turn in range(plan.turns):
        same = await calmest(plan, partial(cluster_turn, rig, plan))
        ran = await calmest(plan, partial(across_turn, rig, plan))
        speed.values.append(ran.per_second)
        speed.reference.append(same.per_second)
        speed.foreign.append(others(ran, same))
        cpu.values.append(ran.cpu["node"])
        cpu.reference.append(same.cpu["node"])
        say(f"turn {turn + 1}: same node {costs(same)}")
        say(f"turn {turn + 1}: across {costs(ran)}")
    return [speed, cpu]


async def across_turn(rig: Rig, plan: Plan) -> Ran:
    """Every message from one node to the other, half of them each way."""
    first, second = rig.cluster(2)
    try:
        urls = [(first.url, second.url), (second.url, first.url)]
        ran = await saturate(urls, plan.shape, plan.warm_seconds, plan.seconds, rig.cpu)
        wait_archived(rig, ran.messages, ran.sent_until)
        return ran
    finally:
        rig.stop(first, second)


async def many(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """AMQP messages that all nodes receive for a chat message between random nodes; and their CPU."""
    rows = []
    for count in plan.nodes:
        received = Row(f"bus-{count}", f"{count} nodes: AMQP messages to nodes for a chat message", "")
        title = f"{count} nodes: CPU beyond idle, {plan.nodes_rate:g}/s for each node"
        cpu = Row(f"bus-cpu-{count}", title, "µs/message")
        for module, into in ((SEED_WAY, "reference"), (None, "values")):
            nodes = rig.cluster(count, module=module)
            each, micros = await _random_pairs(rig, nodes, plan)
            rig.stop(*nodes)
            getattr(received, into).append(each)
            getattr(cpu, into).append(micros)
            way = "the seed's way" if module else "ours"
            say(f"{count} nodes, {way}: {each:.2f} AMQP messages, {micros:.0f} µs")
        received.notes = ["the reference: the seed's way, every remote message to every node"]
        rows += [received, cpu]
    return rows


async def _random_pairs(rig: Rig, nodes: list[PinnedNode], plan: Plan) -> tuple[float, float]:
    """For each chat message: AMQP messages from node to node, microseconds of CPU beyond idling."""
    chance = random.Random(len(nodes))
    urls = [(chance.choice(nodes).url, chance.choice(nodes).url) for _ in range(plan.shape.pairs)]
    seen: list[float] = []
    # The work of idle nodes is not counted for messages.
    idle, began = -rig.cpu()["node"], time.perf_counter()
    await asyncio.sleep(plan.warm_seconds)
    idle = (idle + rig.cpu()["node"]) / (time.perf_counter() - began)

    # Channels are found with the first message, before anything is counted.
    def look() -> dict[str, float]:
        seen.append(sum(node.metric("imd_bus_received_total") for node in nodes))
        return rig.cpu()

    ran = await pace(urls, plan.shape, plan.nodes_rate * len(nodes), plan.warm_seconds, plan.seconds, look)
    return (seen[1] - seen[0]) / ran.measured, ran.cpu["node"] - idle * 1e6 / ran.per_second
