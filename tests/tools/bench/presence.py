"""Presence on many nodes: what it costs while nobody comes or goes, and what each coming and going costs."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.tools.bench.clients import Watch, Wrong
from tests.tools.bench.machine import raise_open_files
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.presence_rest import Rest
from tests.tools.bench.report import Row, value_at_most
from tests.tools.bench.rig import PinnedNode, Rig
from tests.tools.bench.watchers import Watcher, each, named, watching

# Longer than the pauses between two changes of a user that are shown.
AWAY_SECONDS = 8.0
SETTLE_SECONDS = 6.0
OTHER_FILES = 1500
# Kinds of messages that go to all nodes.
TO_ALL = ("search", "replaced", "back")


@dataclass
class Spent:
    """Costs of some seconds."""

    seconds: float
    cpu: dict[str, float]
    """seconds of processor time, by process"""
    received: float
    """messages that nodes got from nodes"""
    to_all: float
    """messages published to all nodes"""
    told: int
    changes: int = 0


class Crowd:
    """Users of all nodes, each at one of them, who watch each other at random."""

    def __init__(self, rig: Rig, nodes: list[PinnedNode], plan: Plan) -> None:
        self._rig, self._nodes, self._plan = rig, nodes, plan
        self.watch = Watch()
        self._random = random.Random(1)
        names = named(plan.presence_users)
        # Each needs an open file of this process. The rest is in another, and stays.
        files = raise_open_files(plan.presence_users + OTHER_FILES) - OTHER_FILES
        here = min(len(names), plan.presence_here, files)
        self.users = watching(self.watch, names[:here], names, plan.presence_watched, self._random)
        urls = [node.url for node in nodes]
        self._rest = Rest(here, len(names), plan.presence_watched, urls) if here < len(names) else None
        self._told_before = 0
        self._strangers = (Watcher(self.watch, f"s{number}", []) for number in itertools.count())

    def stranger(self) -> Watcher:
        """A user who watches nobody and whom nobody watches."""
        return next(self._strangers)

    async def log_in(self) -> None:
        await each(self.users, self.enter)
        if self._rest is not None:
            await self._rest.log_in()

    async def look(self) -> int:
        """All of them watch. Gives how many."""
        await each(self.users, lambda user: user.look())
        if self._rest is not None:
            await self._rest.ask("look")
        return self._plan.presence_users

    async def enter(self, user: Watcher) -> None:
        await user.open(self._random.choice(self._nodes).url)

    async def told(self) -> int:
        """Of how many users all have been told."""
        rest = 0 if self._rest is None else await self._rest.ask("told")
        return self._told_before + sum(user.told for user in self.users) + rest

    async def spend(self, seconds: float, work: Callable[[], Awaitable[int]] | None = None) -> Spent:
        """Let some time pass, or do a work that gives how many came and went; what that took."""
        told = await self.told()
        cpu, received, to_all = self._rig.cpu(), self._received(), self._to_all()
        began = time.perf_counter()
        changes = 0
        if work is None:
            await self.watch.sleep(seconds)
        else:
            changes = await work()
        took = time.perf_counter() - began
        after = self._rig.cpu()
        return Spent(
            took,
            {name: after[name] - cpu.get(name, 0.0) for name in after},
            self._received() - received,
            self._to_all() - to_all,
            await self.told() - told,
            changes,
        )

    async def come_and_go(self, seconds: float, *, known: bool) -> int:
        """Users leave, and come back some time later. `known`: such as others watch, who watch others.

        Gives how many came and went.
        """
        pause, changes, number = 1 / self._plan.presence_rate, 0, 0
        away: deque[tuple[float, Watcher]] = deque()
        here: deque[Watcher] = deque()
        if not known:
            here.extend(self.stranger() for _ in range(int(2 * self._plan.presence_rate * AWAY_SECONDS)))
            for one in here:
                await self.enter(one)
            changes = len(here)
        coming: set[asyncio.Task[None]] = set()
        began = time.perf_counter()
        while (now := time.perf_counter() - began) < seconds:
            if now >= number * pause:
                number += 1
                at = self._random.randrange(len(self.users))
                leaver = self.users[at] if known else here.popleft()
                if leaver.connected:
                    leaver.close()
                    self._told_before += leaver.told
                    comer = Watcher(self.watch, leaver.user, leaver.others)
                    if known:
                        self.users[at] = comer
                    away.append((now + AWAY_SECONDS, comer))
                    changes += 1
            while away and away[0][0] <= now:
                _, comer = away.popleft()
                coming.add(asyncio.ensure_future(self._come_back(comer)))
                changes += 1
                if not known:
                    here.append(comer)
            await self.watch.sleep(0.002)
        for _, comer in away:
            coming.add(asyncio.ensure_future(self._come_back(comer)))
            changes += 1
            if not known:
                here.append(comer)
        await asyncio.gather(*coming)
        for one in here:
            one.close()
        # All of it is told within that time.
        await self.watch.sleep(SETTLE_SECONDS)
        return changes + len(here)

    async def _come_back(self, user: Watcher) -> None:
        await self.enter(user)
        if user.others:
            await user.look()

    async def close(self) -> None:
        for user in self.users:
            user.close()
        if self._rest is not None:
            await self._rest.end()

    def _received(self) -> float:
        return sum(node.metric("imd_bus_received_total") for node in self._nodes)

    def _to_all(self) -> float:
        names = [f'imd_bus_published_total{{kind="{kind}"}}' for kind in TO_ALL]
        return sum(node.metric(name) for node in self._nodes for name in names)


async def presence(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """One turn: a crowd takes a while to log in. The reference: the same without anybody who watches."""
    count, watched, users = plan.presence_nodes, plan.presence_watched, plan.presence_users
    title = f"{count} nodes, {users:,} users who watch {watched} each"
    change = f"{title}, a coming or going"
    nodes = rig.cluster(count)
    crowd = Crowd(rig, nodes, plan)
    try:
        await crowd.log_in()
        say(f"{users:,} users are logged in")
        bare = await crowd.spend(plan.presence_seconds)
        unwatched = await crowd.spend(0, lambda: crowd.come_and_go(plan.presence_seconds, known=False))
        looking = await crowd.spend(0, crowd.look)
        say(f"all watch: {_shown(looking)}")
        idle = await crowd.spend(2 * plan.presence_seconds)
        changing = await crowd.spend(0, lambda: crowd.come_and_go(plan.presence_seconds, known=True))
        for name, spent in (("nobody watches", bare), ("strangers", unwatched), ("idle", idle)):
            say(f"{name}: {_shown(spent)}")
        say(f"comings and goings: {_shown(changing)}")
    finally:
        await crowd.close()
        await asyncio.sleep(1)
        rig.stop_nodes()
    if not changing.told:
        raise Wrong("nobody was told of a coming or going")
    told = Row("presence-told", f"{change}: who are told", "users", [changing.told / changing.changes])
    rows = [
        told,
        Row("presence-amqp", f"{change}: AMQP messages to nodes", ""),
        Row("presence-to-all", f"{change}: messages to all nodes", "", goal=value_at_most(0)),
        Row("presence-idle-amqp", f"{title}, nobody comes or goes: AMQP messages to nodes", "messages/s"),
    ]
    rows[1].values.append(changing.received / changing.changes)
    rows[1].reference.append(unwatched.received / unwatched.changes)
    rows[2].values.append(changing.to_all / changing.changes)
    rows[3].values.append(idle.received / idle.seconds)
    for process in ("redis", "node", "rabbitmq"):
        name = {"node": "all nodes", "redis": "Redis", "rabbitmq": "RabbitMQ"}[process]
        rate = Row(f"presence-idle-{process}", f"{title}, nobody comes or goes: CPU of {name}", "ms/s")
        rate.values.append(1000 * idle.cpu[process] / idle.seconds)
        rate.reference.append(1000 * bare.cpu[process] / bare.seconds)
        micros = Row(f"presence-{process}", f"{change}: CPU of {name} beyond idle", "µs")
        micros.values.append(_beyond(changing, idle, process))
        micros.reference.append(_beyond(unwatched, bare, process))
        rows += [rate, micros]
    for row in rows:
        if row.reference:
            row.notes = ["the reference: users whom nobody watches, and who watch nobody"]
    return rows


def _beyond(spent: Spent, idle: Spent, process: str) -> float:
    """Microseconds of a process for each change, without what it takes while nothing happens."""
    more = spent.cpu[process] - idle.cpu[process] * spent.seconds / idle.seconds
    return more * 1e6 / spent.changes


def _shown(spent: Spent) -> str:
    used = ", ".join(f"{name} {100 * spent.cpu[name] / spent.seconds:.1f}%" for name in spent.cpu)
    return (
        f"{spent.seconds:.0f} s, {spent.changes} changes, {spent.received:,.0f} AMQP messages to nodes, "
        f"{spent.to_all:.0f} to all, {spent.told:,} told; CPU: {used}"
    )
