"""The figures: what runs against what. Each function measures all turns of one, and gives its rows."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.bench.clients import Wrong
from tests.bench.load import Ran, Shape, saturate
from tests.bench.report import Row, ratio_at_least
from tests.bench.rig import Rig

ARCHIVE_SECONDS = 300


@dataclass
class Plan:
    """How long and how often."""

    turns: int = 5
    warm_seconds: float = 2.0
    seconds: float = 5.0
    shape: Shape = field(default_factory=Shape)


FULL = Plan()
QUICK = Plan(turns=2, warm_seconds=1.0, seconds=2.0)
TINY = Plan(turns=1, warm_seconds=0.1, seconds=0.3, shape=Shape(pairs=4, window=4))

Say = Callable[[str], None]
Figure = Callable[[Rig, Plan, Say], Awaitable[list[Row]]]


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


async def cluster_turn(rig: Rig, plan: Plan, consume: bool) -> tuple[Ran, str]:
    """With what is to be said about the archive."""
    nodes = rig.cluster(archive={"consume": "yes" if consume else "no"})
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
        return ran, (
            f"archive: {behind:,.0f} behind after the warm-up, {further:,.0f} after the measured time, "
            f"complete {seconds:.1f} s after the last message"
        )
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
    """Who used how much of the processors."""
    parts = [f"{name} {micros:.1f}" for name, micros in sorted(ran.cpu.items()) if micros >= 0.05]
    return f"{ran.per_second:,.0f}/s; µs of CPU a message: {', '.join(parts)}"


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
    # What other work on the machine disturbs least.
    cpu_rows = {
        kind: Row(f"one-to-one-{kind}-cpu", f"{titles[kind]}: the node's CPU", "µs/message") for kind in kinds
    }
    for turn in range(plan.turns):
        relay = await relay_turn(rig, plan)
        say(f"turn {turn + 1}: relay {costs(relay)}")
        for kind, row in rows.items():
            note = ""
            if kind == "embedded":
                ran = await embedded_turn(rig, plan)
            else:
                ran, note = await cluster_turn(rig, plan, kind == "cluster")
            say(f"turn {turn + 1}: {kind} {costs(ran)}" + (f"; {note}" if note else ""))
            row.values.append(ran.per_second)
            row.reference.append(relay.per_second)
            cpu_rows[kind].values.append(ran.cpu["node"])
            cpu_rows[kind].reference.append(relay.cpu["relay"])
            row.notes = [costs(ran), *([note] if note else [])]
    return [*rows.values(), *cpu_rows.values()]


FIGURES: dict[str, Figure] = {
    "cluster": lambda rig, plan, say: one_to_one(rig, plan, say, ("cluster",)),
    "embedded": lambda rig, plan, say: one_to_one(rig, plan, say, ("embedded",)),
    "one-to-one": lambda rig, plan, say: one_to_one(rig, plan, say, ("cluster", "apart", "embedded")),
}
STANDARD = ["one-to-one"]
