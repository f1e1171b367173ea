"""Milliseconds to the recipient and to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tests.tools.bench.load import Ran, pace, percentile, saturate
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row, within
from tests.tools.bench.rig import Rig
from tests.tools.bench.turns import calmest, costs, others


async def latency(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """To the recipient and to `accepted`, at 1,000/s and at half of what the node can do."""
    nodes = rig.cluster()
    found = await saturate([(nodes[0].url,) * 2], plan.shape, plan.warm_seconds, plan.seconds, rig.cpu)
    most = max(found.per_second, 100.0)
    rig.stop(*nodes)
    rates = {"1,000/s": plan.rate, f"half of the most, {most / 2:,.0f}/s": most / 2}
    say(f"the node can do {most:,.0f}/s")
    rows: list[Row] = []
    for (label, rate), name in zip(rates.items(), ("1000", "half"), strict=True):
        made = [
            Row(f"{what}-{percent}-{name}", f"{title}, {percent}, {label}", "ms", goal=goal)
            for what, title, percent, goal in (
                ("delivery", "to the recipient", "p50", within(2)),
                ("delivery", "to the recipient", "p99", within(15)),
                ("accepted", "to `accepted`", "p50", within(8)),
                ("accepted", "to `accepted`", "p99", None),
            )
        ]
        if name != "1000":
            for row in made:
                row.goal = None
        for turn in range(plan.turns):
            bare = await calmest(plan, partial(paced_relay, rig, plan, rate))
            ran = await calmest(plan, partial(paced_cluster, rig, plan, rate))
            for row, value, reference in zip(made, milliseconds(ran), milliseconds(bare), strict=True):
                row.values.append(value)
                row.reference.append(reference)
                row.foreign.append(others(ran, bare))
            shown = ", ".join(f"{value:.1f}" for value in milliseconds(ran))
            say(f"turn {turn + 1}: {label}: p50, p99, accepted p50, p99 ms: {shown}; {costs(ran)}")
        rows += made
    return rows


async def paced_relay(rig: Rig, plan: Plan, rate: float) -> Ran:
    relay = rig.relay()
    try:
        return await pace(
            [(relay.url, relay.url)], plan.shape, rate, plan.warm_seconds, plan.seconds, rig.cpu, acks=False
        )
    finally:
        rig.stop(relay)


async def paced_cluster(rig: Rig, plan: Plan, rate: float) -> Ran:
    [node] = rig.cluster()
    try:
        return await pace([(node.url, node.url)], plan.shape, rate, plan.warm_seconds, plan.seconds, rig.cpu)
    finally:
        rig.stop(node)


def milliseconds(ran: Ran) -> Sequence[float]:
    """p50 and p99 to the recipient, p50 and p99 to the answer."""
    return [
        percentile(times, percent) * 1000 for times in (ran.deliveries, ran.answers) for percent in (50, 99)
    ]
