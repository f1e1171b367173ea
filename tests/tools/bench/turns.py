"""How fast: messages a second, latency, group lists."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from tests.tools.bench.clients import Group, Watch, Wrong
from tests.tools.bench.load import ON_NODE_CORE, Ran, catch_up, pace, percentile, run_group, saturate
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row, ratio_at_least, within
from tests.tools.bench.rig import Rig
from tests.tools.bench.tree import ROOT

ARCHIVE_SECONDS = 300
# Messages that the sender to a list may have unanswered: so many that neither core waits.
GROUP_WINDOW = 64
# With less than this of either core used by others, a turn is taken as it is.
CALM = 0.1
_groups = itertools.count(1)
# Shares of the two cores that other processes used, in each turn so far.
foreign: list[tuple[float, float]] = []


async def calmest(plan: Plan, turn: Callable[[], Awaitable[Ran]]) -> Ran:
    """One turn; or of several tries the one that other work on the machine disturbed least."""
    best: Ran | None = None
    for _ in range(plan.tries):
        ran = await turn()
        if best is None or sum(ran.foreign) < sum(best.foreign):
            best = ran
        if max(best.foreign) < CALM:
            break
    assert best is not None
    foreign.append(best.foreign)
    return best


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


def wait_archived(rig: Rig, messages: int, since: float) -> float:
    """Seconds from `since` until the archive holds exactly that many. Raises Wrong."""
    while (archived := rig.archived()) < messages:
        if time.monotonic() - since > ARCHIVE_SECONDS:
            raise Wrong(f"{archived} of {messages} messages are archived after {ARCHIVE_SECONDS} s")
        time.sleep(0.02)
    took = time.monotonic() - since
    exactly = rig.archived_exactly()
    if exactly != messages:
        raise Wrong(f"{exactly} messages are archived, {messages} were accepted")
    return took


def costs(ran: Ran) -> str:
    """CPU of each process for a message, in words."""
    parts = [f"{name} {ran.cpu[name]:.1f}" for name in processes(ran)]
    said = f"{ran.per_second:,.0f}/s; µs of CPU a message: {ran.all_cpu:.1f}, of it {', '.join(parts)}"
    return said + disturbance(ran)


def processes(ran: Ran) -> list[str]:
    """The names of those that used some of the processors, most of it first."""
    return sorted(
        (name for name, micros in ran.cpu.items() if micros >= 0.05), key=lambda name: -ran.cpu[name]
    )


def others(*runs: Ran) -> float:
    """The most that other work had of either core in one of these."""
    return max(part for ran in runs for part in ran.foreign)


def room(ran: Ran) -> str:
    """Messages a second that each of the two cores would allow if it did nothing else."""
    node = sum(micros for name, micros in ran.cpu.items() if name in ON_NODE_CORE)
    rest = ran.all_cpu - node
    if not node or not rest:
        return "too short a run to see what each core would allow"
    return f"by CPU alone the node's core allows {1e6 / node:,.0f}/s, the other one {1e6 / rest:,.0f}/s"


def disturbance(ran: Ran) -> str:
    """The load of other processes on the cores, if it was much."""
    node, load = ran.foreign
    if max(ran.foreign) < CALM:
        return ""
    return f"; DISTURBED: other work had {node:.0%} of the node's core, {load:.0%} of the load's"


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


async def group(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """Deliveries of a group list, against as many one-to-one messages on the same node."""
    row = Row("group", f"group list of {plan.members}", "deliveries/s", goal=ratio_at_least(3))
    for turn in range(plan.turns):
        nodes = rig.cluster()
        url = nodes[0].url
        single = await saturate([(url, url)], plan.shape, plan.warm_seconds, plan.seconds, rig.cpu)
        ran = await _listed(rig, plan, url, single.messages)
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
        return await _listed(rig, plan, nodes[0].url, 0)
    finally:
        rig.stop(*nodes)


async def _listed(rig: Rig, plan: Plan, url: str, archived: int) -> Ran:
    """One sender to a list, until the archive has what it sent beside what was there."""
    watch = Watch()
    party = Group(watch, f"g{next(_groups)}", plan.members, window=GROUP_WINDOW)
    ran = await run_group(watch, party, url, plan.warm_seconds, plan.seconds, rig.cpu)
    ran.frame_bytes = party.sender.frame_bytes
    wait_archived(rig, archived + ran.messages, ran.sent_until)
    return ran


async def catching_up(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """A device with a full inbox comes back while others chat."""
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
