"""Deliveries a second to the members of a group list."""

from __future__ import annotations

import itertools
from pathlib import Path

from tests.tools.bench.clients import Group, Watch
from tests.tools.bench.load import Ran, run_group, saturate
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row, ratio_at_least
from tests.tools.bench.rig import Rig
from tests.tools.bench.tree import ROOT
from tests.tools.bench.turns import costs, others, wait_archived

# Messages that the sender to a list may have unanswered: so many that neither core waits.
GROUP_WINDOW = 64
_groups = itertools.count(1)


async def group(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """Deliveries of a group list, against as many one-to-one messages on the same node."""
    row = Row("group", f"group list of {plan.members}", "deliveries/s", goal=ratio_at_least(3))
    for turn in range(plan.turns):
        nodes = rig.cluster()
        url = nodes[0].url
        single = await saturate([(url, url)], plan.shape, plan.warm_seconds, plan.seconds, rig.cpu)
        ran = await listed(rig, plan, url, single.messages)
        rig.stop(*nodes)
        row.values.append(ran.per_second)
        row.reference.append(single.per_second)
        row.foreign.append(others(ran, single))
        say(f"turn {turn + 1}: one-to-one {costs(single)}; deliveries {costs(ran)}")
        row.notes = [f"a frame to the node has {ran.frame_bytes:,} bytes", costs(ran)]
    return [row]


async def group_turn(rig: Rig, plan: Plan, tree: Path = ROOT) -> Ran:
    """Deliveries of a group list alone."""
    nodes = rig.cluster(tree=tree)
    try:
        return await listed(rig, plan, nodes[0].url, 0)
    finally:
        rig.stop(*nodes)


async def listed(rig: Rig, plan: Plan, url: str, archived: int) -> Ran:
    """One sender to a list, until the archive has what it sent beside what was there."""
    watch = Watch()
    party = Group(watch, f"g{next(_groups)}", plan.members, window=GROUP_WINDOW)
    ran = await run_group(watch, party, url, plan.warm_seconds, plan.seconds, rig.cpu)
    ran.frame_bytes = party.sender.frame_bytes
    wait_archived(rig, archived + ran.messages, ran.sent_until)
    return ran
