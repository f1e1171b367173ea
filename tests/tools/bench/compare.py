"""`scripts/bench --compare REF`: an older version and the present one, turn by turn, under the same load.

Of the older version only its nodes run, by `twistd imd --config`: however its modules are laid out, the load
generator, the servers and what is measured are the present ones.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from tests.tools.bench.clients import Wrong
from tests.tools.bench.lists import group_turn
from tests.tools.bench.load import Ran, send_about
from tests.tools.bench.one_to_one import cluster_turn
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row
from tests.tools.bench.rig import COUNTED_SECONDS, Rig
from tests.tools.bench.tree import ROOT, check_code, commit, worktree
from tests.tools.bench.turns import calmest, costs, others, processes, wait_archived

COMPARED = ("one-to-one", "group", "instructions")
# They differ little from turn to turn, and take half a minute each.
COUNT_TURNS = 3
_COUNTED = re.compile(r"I\s+refs:\s+([\d,]+)")


async def compare(rig: Rig, plan: Plan, say: Say, ref: str, names: tuple[str, ...] = COMPARED) -> list[Row]:
    """Ratios of the present version to the one of `ref`, of each turn. Raises Wrong."""
    say(f"the reference: {ref}, {commit(ref)[:12]}")
    with worktree(ref, rig.folder) as old:
        check_code(old)
        rows: list[Row] = []
        for name in names:
            rows += await _FIGURES[name](rig, plan, say, old)
        return rows


async def _one_to_one(rig: Rig, plan: Plan, say: Say, old: Path) -> list[Row]:
    """Messages a second, and the CPU of all processes for a message."""
    return await _turns(
        "one-to-one, cluster", "message", plan, say, lambda tree: cluster_turn(rig, plan, tree=tree), old
    )


async def _group(rig: Rig, plan: Plan, say: Say, old: Path) -> list[Row]:
    """The same of deliveries to the members of a list."""
    title = f"group list of {plan.members}"
    return await _turns(title, "delivery", plan, say, lambda tree: group_turn(rig, plan, tree=tree), old)


async def _turns(
    title: str, unit: str, plan: Plan, say: Say, turn: Callable[[Path], Awaitable[Ran]], old: Path
) -> list[Row]:
    """The old version, the present one, the old one again, …"""
    name = title.partition(",")[0].partition(" ")[0]
    plural = {"message": "messages/s", "delivery": "deliveries/s"}[unit]
    speed = Row(f"compare-{name}", title, plural)
    whole = Row(f"compare-{name}-cpu", f"{title}: CPU of all processes", f"µs/{unit}")
    parts: dict[str, Row] = {}
    for number in range(1, plan.turns + 1):
        before = await calmest(plan, partial(turn, old))
        say(f"turn {number}: reference {costs(before)}")
        now = await calmest(plan, partial(turn, ROOT))
        say(f"turn {number}: present {costs(now)}")
        speed.values.append(now.per_second)
        speed.reference.append(before.per_second)
        whole.values.append(now.all_cpu)
        whole.reference.append(before.all_cpu)
        for row in (speed, whole):
            row.foreign.append(others(before, now))
        for process in processes(now):
            part = Row(f"{whole.name}-{process}", f"{title}: CPU of {process}", whole.unit)
            part = parts.setdefault(process, part)
            part.values.append(now.cpu[process])
            part.reference.append(before.cpu.get(process, 0.0))
    return [speed, whole, *parts.values()]


async def _instructions(rig: Rig, plan: Plan, say: Say, old: Path) -> list[Row]:
    """Instructions of the node for a message, counted by valgrind while the node runs: no other work disturbs
    that, yet how messages meet in batches differs from run to run."""
    if shutil.which("valgrind") is None:
        say("valgrind is not installed (as root: apt-get install valgrind): instructions are left out")
        return []
    row = Row("compare-instructions", "one-to-one, cluster: instructions of the node", "thousand/message")
    for number in range(1, min(plan.turns, COUNT_TURNS) + 1):
        row.reference.append(await count_instructions(rig, plan, old))
        row.values.append(await count_instructions(rig, plan, ROOT))
        before, now = row.reference[-1], row.values[-1]
        say(f"turn {number}: reference {before:.1f}, present {now:.1f} thousand a message")
    return [row]


async def count_instructions(rig: Rig, plan: Plan, tree: Path) -> float:
    """Thousands, of the node alone, for each message. Raises Wrong.

    The shorter run is taken from the longer one: what starting, logging in and ending cost goes with it.
    """
    (few, fewer), (many, more) = [await _counted(rig, plan, tree, messages) for messages in plan.counted]
    if more <= fewer:
        raise Wrong(f"{more} messages in the longer run, {fewer} in the shorter one")
    return (many - few) / (more - fewer) / 1000


async def _counted(rig: Rig, plan: Plan, tree: Path, messages: int) -> tuple[int, int]:
    """Instructions of a node from its start to its end, and how many messages it passed on."""
    # A node in valgrind is slow, and must not run into its own deadlines.
    [node] = rig.cluster(
        tree=tree,
        counted=True,
        websocket={"ping_seconds": 300},
        redis={"timeout_seconds": 60},
        rabbitmq={"confirm_seconds": 60},
    )
    sent = await send_about([(node.url, node.url)], plan.shape, messages, COUNTED_SECONDS)
    wait_archived(rig, sent, time.monotonic())
    node.stop()
    found = _COUNTED.search(node.log.read_text(errors="replace"))
    rig.stop(node)
    if found is None:
        raise Wrong("valgrind counted nothing: the node did not end in good order")
    return int(found[1].replace(",", "")), sent


_FIGURES: dict[str, Callable[[Rig, Plan, Say, Path], Awaitable[list[Row]]]] = {
    "one-to-one": _one_to_one,
    "group": _group,
    "instructions": _instructions,
}
