"""Turns of a figure: the calmest of several tries, its costs, and the archive behind it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from tests.tools.bench.clients import Wrong
from tests.tools.bench.load import ON_NODE_CORE, Ran
from tests.tools.bench.plan import Plan
from tests.tools.bench.rig import Rig

ARCHIVE_SECONDS = 300
# With less than this of either core used by others, a turn is taken as it is.
CALM = 0.1
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
