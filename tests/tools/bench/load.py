"""Load: what clients do to a server, and what is measured meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.tools.bench.clients import Client, Group, Pair, Watch, Wrong

if TYPE_CHECKING:
    from tests.tools.bench.plan import Plan
    from tests.tools.bench.room_clients import Party

# Not processes, in what a Cpu gives: all that the two cores did.
BUSY_NODE, BUSY_LOAD = "the node's core", "the load's core"
ON_NODE_CORE = ("node", "relay")

DRAIN_SECONDS = 120
_names = itertools.count(1)


@dataclass
class Shape:
    """One-to-one load: how many pairs, how many messages each sender may have unanswered."""

    pairs: int = 50
    window: int = 16


@dataclass
class Ran:
    """Results of a run of pairs."""

    per_second: float = 0.0
    messages: int = 0
    """of the whole run, warm-up included"""
    measured: int = 0
    """of the measured time"""
    seconds: float = 0.0
    """of the measured time"""
    sent_until: float = 0.0
    """on the monotonic clock: when the last one was answered"""
    cpu: dict[str, float] = field(default_factory=dict)
    """microseconds for each message, by process, in the measured time"""
    foreign: tuple[float, float] = (0.0, 0.0)
    """the part of the node's core, and of the load's, that none of these processes used"""
    note: str = ""
    frame_bytes: int = 0
    deliveries: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    """seconds from sending to the recipient, and to `accepted`"""
    marks: list[float] = field(default_factory=list)
    """what `look` gave at the beginning and at the end of the measured time"""

    @property
    def all_cpu(self) -> float:
        """Microseconds for each message, of all processes together."""
        return sum(self.cpu.values())

    def spent(self, before: dict[str, float], after: dict[str, float], count: int, seconds: float) -> None:
        """Take in what the processors did for `count` messages in so many seconds."""
        used = {name: after[name] - before.get(name, 0.0) for name in after}
        busy = used.pop(BUSY_NODE, 0.0), used.pop(BUSY_LOAD, 0.0)
        ours = sum(used.get(name, 0.0) for name in ON_NODE_CORE)
        rest = sum(used.values()) - ours
        self.foreign = max(0.0, (busy[0] - ours) / seconds), max(0.0, (busy[1] - rest) / seconds)
        self.cpu = {name: micros * 1e6 / max(1, count) for name, micros in used.items()}


Cpu = Callable[[], dict[str, float]]


async def open_pairs(
    watch: Watch, urls: list[tuple[str, str]], shape: Shape, acks: bool = True
) -> list[Pair]:
    """Connected pairs; the n-th one's sender and recipient are at the n-th of `urls`, round and round."""
    run = next(_names)
    pairs = [Pair(watch, f"r{run}p{number:03d}", shape.window, acks) for number in range(shape.pairs)]
    for first in range(0, len(pairs), 25):
        part = pairs[first : first + 25]
        await asyncio.gather(
            *[pair.open(*urls[(first + index) % len(urls)]) for index, pair in enumerate(part)]
        )
    return pairs


async def saturate(
    urls: list[tuple[str, str]],
    shape: Shape,
    warm_seconds: float,
    seconds: float,
    cpu: Cpu,
    *,
    acks: bool = True,
    look: Callable[[int], float] | None = None,
) -> Ran:
    """As many messages as the windows allow. Raises Wrong unless all come, once, in order."""
    watch = Watch()
    pairs = await open_pairs(watch, urls, shape, acks)
    ran = Ran(frame_bytes=pairs[0].sender.frame_bytes)
    for pair in pairs:
        pair.sender.start()
    await watch.sleep(warm_seconds)
    if look is not None:
        ran.marks.append(look(_both(pairs)))
    cpu_before, before, began = cpu(), _both(pairs), time.perf_counter()
    await watch.sleep(seconds)
    after, took = _both(pairs), time.perf_counter() - began
    cpu_after = cpu()
    if look is not None:
        ran.marks.append(look(_both(pairs)))
    for pair in pairs:
        pair.sender.stop()
    await drain(watch, pairs)
    ran.sent_until = time.monotonic()
    ran.per_second = (after - before) / took
    ran.seconds = took
    ran.messages = _both(pairs)
    ran.spent(cpu_before, cpu_after, after - before, took)
    await close_pairs(watch, pairs)
    return ran


async def send_about(urls: list[tuple[str, str]], shape: Shape, messages: int, seconds: float) -> int:
    """Send `messages` or a few more, as fast as the windows allow; returns the exact number. Raises Wrong."""
    watch = Watch()
    pairs = await open_pairs(watch, urls, shape)
    for pair in pairs:
        pair.sender.start()
    await watch.until(lambda: _both(pairs) >= messages, seconds, lambda: f"{_both(pairs)} of {messages}")
    for pair in pairs:
        pair.sender.stop()
    await drain(watch, pairs)
    await close_pairs(watch, pairs)
    return _both(pairs)


async def pace(
    urls: list[tuple[str, str]],
    shape: Shape,
    rate: float,
    warm_seconds: float,
    seconds: float,
    cpu: Cpu,
    *,
    acks: bool = True,
) -> Ran:
    """`rate` messages a second, whatever the server does, evenly over the pairs; measures their latency."""
    watch = Watch()
    pairs = await open_pairs(watch, urls, shape, acks)
    ran = Ran(frame_bytes=pairs[0].sender.frame_bytes)
    sending = Pacer(pairs, rate)
    await sending.run(watch, warm_seconds)
    time_from_now(pairs)
    cpu_before, before = cpu(), _both(pairs)
    began = time.perf_counter()
    await sending.run(watch, seconds)
    took = time.perf_counter() - began
    ran.measured = _both(pairs) - before
    ran.spent(cpu_before, cpu(), ran.measured, took)
    ran.per_second = ran.measured / took
    await drain(watch, pairs)
    ran.sent_until = time.monotonic()
    for pair in pairs:
        ran.deliveries += [took for took in pair.recipient.latencies or () if took == took]
        ran.answers += [took for took in pair.sender.latencies or () if took == took]
    ran.messages = _both(pairs)
    await close_pairs(watch, pairs)
    return ran


async def run_group(
    watch: Watch, group: Group | Party, url: str, warm_seconds: float, seconds: float, cpu: Cpu
) -> Ran:
    """As many messages to a list or a room as the window allows; `per_second` counts deliveries."""
    await group.open(url)
    group.sender.start()
    await watch.sleep(warm_seconds)
    cpu_before, before, began = cpu(), group.delivered, time.perf_counter()
    await watch.sleep(seconds)
    after, took = group.delivered, time.perf_counter() - began
    ran = Ran(per_second=(after - before) / took)
    ran.spent(cpu_before, cpu(), after - before, took)
    group.sender.stop()

    def missing() -> str:
        return f"{group.delivered} delivered, {group.sender.sent} sent to each"

    await watch.until(lambda: group.complete, DRAIN_SECONDS, missing)
    ran.sent_until, ran.messages = time.monotonic(), group.sender.sent
    await watch.sleep(0.2)
    if not group.complete:
        raise Wrong("more came than was sent")
    group.close()
    await asyncio.sleep(0.05)
    return ran


async def catch_up(url: str, plan: Plan) -> tuple[float, list[float], list[float]]:
    """Seconds until a device has all that waits for it; others' latencies meanwhile, and before that."""
    watch = Watch()
    name = f"late{next(_names)}"
    late = Pair(watch, name, window=256)
    # An inbox that no device has ever opened would not hold so many.
    earlier = Client(watch, late.recipient.user)
    await earlier.open(url)
    earlier.close()
    await late.sender.open(url)
    while late.sender.sent < plan.waiting:
        late.sender.send_numbered(min(250, plan.waiting - late.sender.sent))
        await watch.until(
            lambda: late.sender.count == late.sender.sent, DRAIN_SECONDS, lambda: "accepted while away"
        )
    pairs = await open_pairs(watch, [(url, url)], plan.shape)
    pacer = Pacer(pairs, plan.rate)
    await pacer.run(watch, plan.warm_seconds)
    time_from_now(pairs)
    await pacer.run(watch, plan.seconds)
    await drain(watch, pairs)
    before = [took for pair in pairs for took in pair.recipient.latencies or () if took == took]
    time_from_now(pairs)
    others = asyncio.ensure_future(pacer.run(watch, DRAIN_SECONDS))
    began = time.perf_counter()
    await late.recipient.open(url)
    await watch.until(lambda: late.complete, DRAIN_SECONDS, lambda: f"{late.recipient.count} of the waiting")
    took = time.perf_counter() - began
    others.cancel()
    await asyncio.gather(others, return_exceptions=True)
    await drain(watch, pairs)
    meanwhile = [one for pair in pairs for one in pair.recipient.latencies or () if one == one]
    await close_pairs(watch, [*pairs, late])
    return took, meanwhile, before


def time_from_now(pairs: list[Pair]) -> None:
    """Measure latencies from now on, but of those that are under way."""
    for pair in pairs:
        pair.time_messages()
        for number in range(min(pair.recipient.count, pair.sender.count), pair.sender.sent):
            pair.sender.sent_at[number] = float("nan")


class Pacer:
    """Sends what is due, every millisecond, one pair after the other."""

    def __init__(self, pairs: list[Pair], rate: float) -> None:
        self._turns = itertools.cycle(pairs)
        self._rate = rate

    async def run(self, watch: Watch, seconds: float) -> None:
        began = time.perf_counter()
        sent = 0
        while (now := time.perf_counter() - began) < seconds:
            due = int(now * self._rate) - sent
            for pair in itertools.islice(self._turns, due):
                pair.sender.send_numbered(1)
            sent += due
            if watch.failed.done():
                watch.failed.result()
            await asyncio.sleep(0.001)


def percentile(values: list[float], percent: float) -> float:
    """Of any list that is not empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _both(pairs: list[Pair]) -> int:
    return sum(pair.both for pair in pairs)


async def drain(watch: Watch, pairs: list[Pair]) -> None:
    def missing() -> str:
        sent = sum(pair.sender.sent for pair in pairs)
        accepted = sum(pair.sender.count for pair in pairs)
        delivered = sum(pair.recipient.count for pair in pairs)
        return f"{sent} sent, {accepted} accepted, {delivered} delivered"

    await watch.until(lambda: all(pair.complete for pair in pairs), DRAIN_SECONDS, missing)


async def close_pairs(watch: Watch, pairs: list[Pair]) -> None:
    # A message too many would come now.
    await watch.sleep(0.2)
    if not all(pair.complete for pair in pairs):
        watch.fail("more came than was sent")
    await watch.sleep(0)
    for pair in pairs:
        pair.close()
    await asyncio.sleep(0.05)
