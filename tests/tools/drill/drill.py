"""One part of a drill: a cluster, its clients, faults for some time, and the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tools.drill.broken import BUILDS
from tests.tools.drill.broken_state import STATE_BUILDS
from tests.tools.drill.checker import Violation, check
from tests.tools.drill.cluster import Backends, Cluster
from tests.tools.drill.doings import USUAL, Shares
from tests.tools.drill.faults import FAULTS, Fault, Stage
from tests.tools.drill.history import History
from tests.tools.drill.kept import keep
from tests.tools.drill.model import Model
from tests.tools.drill.probe import Probe
from tests.tools.drill.ways import Ways
from tests.tools.drill.world import Wait, World

SHORT_LEASE_SECONDS = 10
LEASE_SECONDS = 45
# Deadlines for a very busy machine: they cost nothing when all is well.
READY_SECONDS = 180
SETTLE_SECONDS = 180
ARCHIVE_SECONDS = 180
PROBE_SECONDS = 60
FAULT_SECONDS = 240
# Of load, for a broken build that has few occasions to do wrong.
MOST_SECONDS = 30
# Messages that a broken build loses never come: a long wait is in vain. For all others there is more time.
BROKEN_SECONDS = 3
# Answers come, but for changes of what never gets into the archive.
BROKEN_ANSWERS_SECONDS = 10
# Nor does more come when a build that loses something has been silent for so long.
SILENT_SECONDS = 2.0
# Nor do messages come that Redis has lost, when there was nothing for so long.
LOST_SECONDS = 8
# These faults empty Redis' inboxes, which would excuse losses by other faults: they are mixed apart.
LOSING = {"redis-flush", "redis-failback", "redis-failover"}


@dataclass
class Plan:
    """One part of a drill. `hint_seconds`: how soon hints must flow again."""

    name: str
    faults: list[str]
    mixed: bool
    seconds: float = 30
    seed: str = "1"
    clients: int = 60
    rate: float = 2.0
    shares: Shares = USUAL
    nodes: int = 3
    build: str = ""
    """broken builds, with + between them"""
    sabotages: int = 0
    """so often each of them has to do wrong before the load ends, if it does within MOST_SECONDS"""
    classic_queue: bool = False
    mongo_options: str = ""
    hint_seconds: float = 1.0
    routing: str = "search"
    old: bool = False
    """the nodes are of 0.1.0 at first"""
    is_brief: bool = False
    """one fault, by chance, in each round between two replacements of nodes"""


@dataclass
class Struck:
    """One round of faults. Seconds: how long they lasted, until the nodes were ready, until hints flowed."""

    names: list[str]
    where: list[str]
    lasted: float
    ready: float = 0.0
    hints: float = 0.0
    slow: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """The result of a part."""

    plan: Plan
    history: History
    struck: list[Struck] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    """what kept the drill itself from going on, or was not as it should be beside the history"""
    sabotaged: dict[str, int] = field(default_factory=dict)
    """how often each broken build did wrong"""
    load_seconds: float = 0.0
    settle_seconds: float = 0.0
    kept: Path | None = None
    """the file of a history with violations, but for broken builds"""

    @property
    def passed(self) -> bool:
        return not self.violations and not self.troubles


Strike = Callable[
    [Plan, Sequence[Fault], Stage, World, Outcome, Callable[[str], None]], Coroutine[Any, Any, None]
]


async def run(
    plan: Plan, backends: Backends, say: Callable[[str], None], strike: Strike | None = None
) -> Outcome:
    """Run one part. The servers stay. `strike` stands for the usual rounds of faults."""
    faults = [FAULTS[name] for name in plan.faults]
    lease = SHORT_LEASE_SECONDS if any(fault.short_lease for fault in faults) else LEASE_SECONDS
    ini = {
        "node": {"lease_seconds": lease, "stop_seconds": 5},
        "limits": {"messages_per_second": 0, "connections_per_user": 100, "visitors_per_address": 0},
        "inbox": {"reconcile_seconds": 15},
        "redis": {"lossless": "yes" if backends.redis_is_durable else "no", "timeout_seconds": 2},
        "rabbitmq": {"confirm_seconds": 2},
        "mongodb": {"timeout_seconds": 4, "options": plan.mongo_options},
    }
    cluster = Cluster(
        backends,
        ini,
        nodes=plan.nodes,
        build=plan.build,
        own_clocks=any(fault.needs_clock for fault in faults),
        routing=plan.routing,
        # All that passes between nodes and servers costs this process time then.
        is_proxied=any(fault.needs_proxy for fault in faults),
        old=plan.old,
    )
    outcome = Outcome(plan, History())
    try:
        await cluster.start(plan.classic_queue)
        ways = Ways(cluster.nodes, cluster.gateways)
        world = World(plan.seed, ways, plan.clients, plan.rate, shares=plan.shares, has_events=not plan.old)
        outcome.history = world.history
        await world.start()
        stage = Stage(cluster, world, random.Random(f"{plan.seed}/{plan.name}"), lease)
        began = time.monotonic()
        await (strike or strike_rounds)(plan, faults, stage, world, outcome, say)
        outcome.load_seconds = time.monotonic() - began
        await _conclude(cluster, world, outcome, say)
    finally:
        await cluster.stop()
    outcome.sabotaged = cluster.sabotaged()
    outcome.violations = check(outcome.history)
    if outcome.violations and not plan.build:
        outcome.kept = keep(outcome.history)
    return outcome


async def strike_rounds(
    plan: Plan,
    faults: Sequence[Fault],
    stage: Stage,
    world: World,
    outcome: Outcome,
    say: Callable[[str], None],
) -> None:
    """Faults, one round after another, until the time is over; at least one round."""
    probe = Probe(world)
    began = time.monotonic()
    end = began + plan.seconds

    def is_over() -> bool:
        now = time.monotonic()
        if now < end:
            return False
        done = min(stage.cluster.sabotaged().values(), default=0)
        return not plan.build or done >= plan.sabotages or now > began + MOST_SECONDS

    queue: list[Fault] = []
    await world.until(lambda: True, 1, "")
    await asyncio.sleep(1.0)
    before = len(outcome.struck)
    while faults and (not is_over() or len(outcome.struck) == before or (queue and not plan.mixed)):
        await asyncio.sleep(stage.rng.uniform(0.3, 1.5))
        if not queue:
            queue = stage.rng.sample(faults, len(faults))
            # Faults that lose data come first, so that they come at all.
            queue.sort(key=lambda fault: fault.name in LOSING)
        chosen = [queue.pop()]
        if plan.mixed:
            for fault in stage.rng.sample(faults, min(2, len(faults))):
                busy = {part for one in chosen for part in one.on.split()}
                if busy.isdisjoint(fault.on.split()) and stage.rng.random() < 0.7:
                    chosen.append(fault)
        struck = Struck([fault.name for fault in chosen], [], 0.0)
        outcome.struck.append(struck)
        try:
            ready_at = await _strike_once(chosen, struck, stage, world)
            most = BROKEN_SECONDS if plan.build else PROBE_SECONDS
            struck.hints, struck.slow = await probe.measure(ready_at, most)
            if not plan.build and (struck.slow or struck.hints > plan.hint_seconds):
                between = f" ({', '.join(struck.slow)})" if struck.slow else ""
                outcome.troubles.append(
                    f"{'+'.join(struck.names)}: hints flowed {struck.hints:.1f} s after the nodes were ready"
                    + between
                )
        except Exception as error:
            outcome.troubles.append(f"{'+'.join(struck.names)}: {type(error).__name__}: {error}")
            say(outcome.troubles[-1])
            return
        say(
            f"  {'+'.join(struck.names)} ({', '.join(filter(None, struck.where))}): {struck.lasted:.1f} s,"
            f" ready after {struck.ready:.1f} s, hints after {struck.hints:.2f} s"
        )
    await asyncio.sleep(max(0.0, end - time.monotonic()))


async def _strike_once(chosen: Sequence[Fault], struck: Struck, stage: Stage, world: World) -> float:
    """Faults that overlap; returns the time at which nodes are ready again and probers connected."""
    began = time.monotonic()
    delays = [0.0, *(stage.rng.uniform(0, 2) for _ in chosen[1:])]
    shaking = asyncio.ensure_future(_shake(world, stage.rng))
    try:
        struck.where = await asyncio.gather(
            *(_one(fault, stage, delay) for fault, delay in zip(chosen, delays, strict=True))
        )
    finally:
        shaking.cancel()
    ended = time.monotonic()
    struck.lasted = ended - began
    ready = await stage.cluster.until_ready(READY_SECONDS)
    await world.until(lambda: all(p.live for p in world.probers), READY_SECONDS, "probers connect")
    ready = max(ready, time.monotonic() - 0.05)
    stage.healed(ready)
    struck.ready = ready - ended
    return ready


async def _shake(world: World, rng: random.Random) -> None:
    """While a fault lasts probers come back on new channels, which other nodes then cannot find."""
    while True:
        await asyncio.sleep(rng.uniform(0.3, 1.5))
        rng.choice(world.probers).reconnect()


async def _one(fault: Fault, stage: Stage, delay: float) -> str:
    await asyncio.sleep(delay)
    async with asyncio.timeout(FAULT_SECONDS):
        return await fault.run(stage)


async def _conclude(cluster: Cluster, world: World, outcome: Outcome, say: Callable[[str], None]) -> None:
    """Let everything arrive, and gather what is in the archive."""
    began = time.monotonic()
    broken = bool(outcome.plan.build)
    names = outcome.plan.build.split("+") if broken else []
    lost = {kind for name in names for kind in (BUILDS[name].finds, *BUILDS[name].also)}
    answers = Wait(SETTLE_SECONDS)
    if not lost.isdisjoint({"never accepted", "unanswered"}):
        answers = Wait(BROKEN_ANSWERS_SECONDS, SILENT_SECONDS)
    arrivals = Wait(SETTLE_SECONDS)
    if "lost" in lost:
        arrivals = Wait(BROKEN_SECONDS, SILENT_SECONDS)
    elif world.history.losses:
        arrivals = Wait(SETTLE_SECONDS, LOST_SECONDS)
    if not await world.settle(answers, arrivals):
        say("  not everything arrived in time")
        arrivals = Wait(BROKEN_SECONDS, arrivals.patience)
    outcome.settle_seconds = time.monotonic() - began
    accepted = {
        event.message_id
        for connection in world.history.connections
        for event in connection.events
        if getattr(event, "send_time", 0)
    }
    is_archived = knows_state = False
    began = time.monotonic()
    seconds = BROKEN_SECONDS if "not archived" in lost else ARCHIVE_SECONDS
    while time.monotonic() < began + seconds and not (is_archived and knows_state):
        with contextlib.suppress(Exception):
            is_archived = is_archived or accepted <= await asyncio.to_thread(cluster.archived_ids)
            knows_state = world.knows_state(await asyncio.to_thread(cluster.state_versions))
        # A broken run does not wait until nodes compare versions again, unless that is what is broken.
        if broken and is_archived and time.monotonic() > began + BROKEN_SECONDS:
            break
        await asyncio.sleep(0.3)
    looked_at = STATE_BUILDS.keys() & outcome.plan.build.split("+")
    world.history.is_archived = bool(is_archived or not broken)
    world.history.had_time_for_state = bool(knows_state or not broken or looked_at)
    await asyncio.to_thread(cluster.read_archive, world.history)
    model = Model(world.history)
    if not await world.arrive(model.owed({*model.accepted_at, *model.made()}), arrivals):
        say("  not every event arrived in time")
    await world.read_histories()
    await world.close()
    await asyncio.to_thread(cluster.read_archive, world.history)
    world.history.dead = await asyncio.to_thread(cluster.dead)
