"""Search and gateway at several numbers of nodes: searches, AMQP messages, CPU and time for a chat message.

Clients connect to the node that HAProxy would lead them to: behind a gateway to their home, else to any.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

from imd.gateway.slots import Slots
from tests.support.servers import wait_until
from tests.tools.bench.clients import Pair, Recipient, Watch
from tests.tools.bench.load import Pacer, close_pairs, drain, percentile, time_from_now
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row
from tests.tools.bench.rig import PinnedNode, Rig

TABLE_SECONDS = 60.0
# Channels that all nodes were asked for, or the user's home; and what came over the bus.
COUNTERS = ("imd_channel_searches_total", "imd_home_hints_total", "imd_bus_received_total")
FIRST, LATER = "the first message to a user", "each later one"


class Conversation(Pair):
    """A sender, and a user with two devices."""

    def __init__(self, watch: Watch, name: str) -> None:
        super().__init__(watch, name)
        user = self.recipient.user
        self.tablet = Recipient(watch, user, name.encode() + b"-%012d", device="tablet")
        self.is_across = False
        """sender and first device are at two nodes"""

    async def open_at(self, sender: str, phone: str, tablet: str) -> None:
        """Connect each at its node's URL."""
        self.is_across = sender != phone
        await self.tablet.open(tablet)
        await self.open(sender, phone)

    @property
    def complete(self) -> bool:
        return super().complete and self.tablet.count == self.sender.sent

    def close(self) -> None:
        self.tablet.acknowledge()
        super().close()
        self.tablet.close()


@dataclass
class Seen:
    """For one chat message of a phase, over all nodes. CPU in microseconds, beyond idling."""

    searches: float
    asked: float
    amqp: float
    cpu: float
    p50_ms: float
    p99_ms: float


# Name, title, unit and field of each figure.
_FIGURES = (
    ("searches", "channels that all nodes are asked for", "", "searches"),
    ("asked", "channels that a home is asked for", "", "asked"),
    ("amqp", "AMQP messages between nodes", "", "amqp"),
    ("cpu", "CPU of all nodes", "µs", "cpu"),
    ("p50", "to a device at another node, p50", "ms", "p50_ms"),
    ("p99", "to a device at another node, p99", "ms", "p99_ms"),
)


async def routings(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """The values are the gateway's, the reference is the search."""
    rows: dict[str, Row] = {}
    for turn in range(plan.turns):
        for count in plan.nodes:
            for routing, into in (("search", "reference"), ("gateway", "values")):
                seen = await _turn(rig, plan, count, routing)
                for phase, one in seen.items():
                    asked = f"{one.searches:.2f} searches, {one.asked:.2f} questions to homes"
                    shown = f"{asked}, {one.amqp:.2f} AMQP messages, {one.cpu:.0f} µs"
                    say(
                        f"turn {turn + 1}: {count} nodes, {routing}, {phase}: {shown}, "
                        f"p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms"
                    )
                    for name, title, unit, attribute in _FIGURES:
                        key = f"routing-{count}-{'first' if phase == FIRST else 'later'}-{name}"
                        row = rows.setdefault(key, Row(key, f"{count} nodes, {phase}: {title}", unit))
                        getattr(row, into).append(getattr(one, attribute))
    for row in rows.values():
        row.notes = ["with a gateway; the reference: by search"]
    return list(rows.values())


async def _turn(rig: Rig, plan: Plan, count: int, routing: str) -> dict[str, Seen]:
    nodes = rig.cluster(count, cluster={"routing": routing})
    try:
        names = [node.name for node in nodes]
        if routing == "gateway":
            await asyncio.to_thread(_wait_for_homes, nodes, Slots(names))
        watch, chance = Watch(), random.Random(count)
        talks = [Conversation(watch, f"c{number:04d}") for number in range(plan.conversations)]
        urls = dict(zip(names, (node.url for node in nodes), strict=True))
        slots = Slots(names)

        def place(user: str) -> str:
            home = slots.home(user)
            return urls[home] if routing == "gateway" and home else urls[chance.choice(names)]

        for first in range(0, len(talks), 20):
            some = talks[first : first + 20]
            users = [(talk.sender.user, talk.recipient.user, talk.recipient.user) for talk in some]
            await asyncio.gather(
                *(talk.open_at(*map(place, three)) for talk, three in zip(some, users, strict=True))
            )
        return await _phases(rig, plan, nodes, watch, talks)
    finally:
        rig.stop(*nodes)


def _wait_for_homes(nodes: list[PinnedNode], slots: Slots) -> None:
    """Until each node goes by the table of all. Raises ServerError."""
    for node in nodes:
        expected = slots.first.count(node.name)

        def knows(node: PinnedNode = node, expected: int = expected) -> bool:
            return node.metric("imd_home_slots") == expected

        wait_until(knows, TABLE_SECONDS, f"{node.name} knows all homes")


async def _phases(
    rig: Rig, plan: Plan, nodes: list[PinnedNode], watch: Watch, talks: list[Conversation]
) -> dict[str, Seen]:
    """A message to each user that no node knows the channels of, and then more to the same users."""
    rate = plan.nodes_rate * len(nodes)
    idle, began = -rig.cpu()["node"], time.perf_counter()
    await asyncio.sleep(plan.warm_seconds)
    idle = (idle + rig.cpu()["node"]) / (time.perf_counter() - began)
    seen = {}
    for phase, seconds in ((FIRST, len(talks) / rate), (LATER, plan.seconds)):
        pairs: list[Pair] = list(talks)
        time_from_now(pairs)
        sent, before, cpu, begin = _sent(talks), _counts(nodes), rig.cpu()["node"], time.perf_counter()
        await Pacer(pairs, rate).run(watch, seconds)
        await drain(watch, pairs)
        took = time.perf_counter() - begin
        cpu, after = rig.cpu()["node"] - cpu - idle * took, _counts(nodes)
        messages = _sent(talks) - sent
        times = [one * 1000 for talk in talks if talk.is_across for one in talk.recipient.latencies or ()]
        counted = ((now - then) / messages for now, then in zip(after, before, strict=True))
        p50, p99 = (percentile(times, percent) for percent in (50, 99))
        seen[phase] = Seen(*counted, cpu * 1e6 / messages, p50, p99)
    await close_pairs(watch, list(talks))
    return seen


def _sent(talks: list[Conversation]) -> int:
    return sum(talk.sender.sent for talk in talks)


def _counts(nodes: list[PinnedNode]) -> list[float]:
    """COUNTERS of all nodes so far."""
    return [sum(node.metric(name) for node in nodes) for name in COUNTERS]
