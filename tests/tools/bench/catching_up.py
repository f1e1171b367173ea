"""A device with a full inbox comes back while others chat."""

from __future__ import annotations

import time

from tests.tools.bench.load import Ran, catch_up, percentile
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row
from tests.tools.bench.rig import Rig
from tests.tools.bench.turns import foreign, others


async def catching_up(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """Messages a second to the device, and the latency of the others meanwhile."""
    speed = Row("catching-up", f"catching up with {plan.waiting:,} messages", "messages/s")
    rest = Row("catching-up-others", "others meanwhile, to the recipient, p99 at 1,000/s", "ms")
    for turn in range(plan.turns):
        nodes = rig.cluster()
        spent = Ran()
        cpu, began = rig.cpu(), time.perf_counter()
        took, meanwhile, before = await catch_up(nodes[0].url, plan)
        spent.spent(cpu, rig.cpu(), 1, time.perf_counter() - began)
        foreign.append(spent.foreign)
        rig.stop(*nodes)
        speed.values.append(plan.waiting / took)
        for row in (speed, rest):
            row.foreign.append(others(spent))
        rest.values.append(percentile(meanwhile, 99) * 1000)
        rest.reference.append(percentile(before, 99) * 1000)
        say(f"turn {turn + 1}: {took:.2f} s for {plan.waiting:,}")
    rest.notes = ["the reference: the same without anybody catching up"]
    return [speed, rest]
