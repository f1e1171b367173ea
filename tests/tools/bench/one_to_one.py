"""Messages a second between pairs, of the relay and of each kind of node."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.tools.bench.load import Ran, saturate
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row, ratio_at_least
from tests.tools.bench.rig import Rig
from tests.tools.bench.tree import ROOT
from tests.tools.bench.turns import calmest, costs, others, processes, room, wait_archived


async def relay_turn(rig: Rig, plan: Plan) -> Ran:
    relay = rig.relay()
    try:
        urls = [(relay.url, relay.url)]
        # It has no use for acknowledgements, and is spared them.
        return await saturate(urls, plan.shape, plan.warm_seconds, plan.seconds, rig.cpu, acks=False)
    finally:
        rig.stop(relay)


async def embedded_turn(rig: Rig, plan: Plan) -> Ran:
    node = rig.embedded()
    try:
        urls = [(node.url, node.url)]
        return await saturate(urls, plan.shape, plan.warm_seconds, plan.seconds, rig.cpu)
    finally:
        rig.stop(node)


async def cluster_turn(rig: Rig, plan: Plan, consume: bool = True, tree: Path = ROOT) -> Ran:
    """Until the archive is complete; its note says how that went.

    Rate and CPU are those of messages that are archived: what the archive's queue grew by in the measured
    time is left out.
    """
    nodes = rig.cluster(tree=tree, archive={"consume": "yes" if consume else "no"})
    try:
        if not consume:
            nodes.append(rig.consumer())
        urls = [(nodes[0].url, nodes[0].url)]
        ran = await saturate(
            urls,
            plan.shape,
            plan.warm_seconds,
            plan.seconds,
            rig.cpu,
            look=lambda accepted: max(0, accepted - rig.archived()),
        )
        seconds = wait_archived(rig, ran.messages, ran.sent_until)
        behind, further = ran.marks
        accepted = ran.per_second
        ran.per_second -= max(0.0, further - behind) / ran.seconds
        ran.cpu = {name: micros * accepted / ran.per_second for name, micros in ran.cpu.items()}
        ran.note = (
            f"accepted {accepted:,.0f}/s; archive: {behind:,.0f} behind after the warm-up, "
            f"{further:,.0f} after the measured time, complete {seconds:.1f} s after the last message"
        )
        return ran
    finally:
        rig.stop(*nodes)


async def one_to_one(rig: Rig, plan: Plan, say: Say, kinds: tuple[str, ...]) -> list[Row]:
    """Messages a second, turn by turn: the relay, then each kind of node."""
    titles = {
        "cluster": "one-to-one, cluster, the node writes the archive too",
        "apart": "one-to-one, cluster, another process writes the archive",
        "embedded": "one-to-one, embedded",
    }
    goals = {"cluster": 0.8, "embedded": 0.5}
    rows = {
        kind: Row(
            f"one-to-one-{kind}",
            titles[kind],
            "messages/s",
            goal=ratio_at_least(goals[kind]) if kind in goals else None,
        )
        for kind in kinds
    }
    # It depends on the machine, and on other work there, the least.
    whole = {
        kind: Row(f"one-to-one-{kind}-cpu-all", f"{titles[kind]}: CPU of all processes", "µs/message")
        for kind in kinds
    }
    parts: dict[str, Row] = {}
    turns = {
        "cluster": partial(cluster_turn, rig, plan),
        "apart": partial(cluster_turn, rig, plan, False),
        "embedded": partial(embedded_turn, rig, plan),
    }
    for turn in range(plan.turns):
        relay = await calmest(plan, partial(relay_turn, rig, plan))
        say(f"turn {turn + 1}: relay {costs(relay)}")
        for kind, row in rows.items():
            ran = await calmest(plan, turns[kind])
            say(f"turn {turn + 1}: {kind} {costs(ran)}" + (f"; {ran.note}" if ran.note else ""))
            row.values.append(ran.per_second)
            row.reference.append(relay.per_second)
            row.foreign.append(others(ran, relay))
            whole[kind].values.append(ran.all_cpu)
            whole[kind].reference.append(relay.all_cpu)
            for process in processes(ran):
                part = Row(
                    f"one-to-one-{kind}-cpu-{process}", f"{titles[kind]}: CPU of {process}", "µs/message"
                )
                parts.setdefault(part.name, part).values.append(ran.cpu[process])
            row.notes = [costs(ran), room(ran), *([ran.note] if ran.note else [])]
    return [*whole.values(), *parts.values(), *rows.values()]
