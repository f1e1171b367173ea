"""Logins: how many a second, and what an idle one costs."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass

from tests.tools.bench.clients import Idle, Watch
from tests.tools.bench.machine import NODE_CORE, busy_seconds, cpu_seconds, rss_bytes
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row, ratio_at_least, ratio_at_most
from tests.tools.bench.rig import Rig

AT_ONCE = 100


@dataclass
class LoggedIn:
    """Results of logging in a number of clients."""

    per_second: float
    bytes_each: float
    """of the server's memory, once all are idle"""
    server_micros: float
    """of the server's CPU for each"""
    load: float
    """part of its core that this process used"""

    foreign: float
    """part of the server's core that other work had"""

    def __str__(self) -> str:
        return (
            f"{self.per_second:,.0f}/s, {self.bytes_each:,.0f} bytes, {self.server_micros:.0f} µs CPU each "
            f"(load {self.load:.0%} of its core)"
        )


async def log_in(url: str, count: int, signal: bool, pid: int, prefix: str) -> LoggedIn:
    """Open so many connections, keep them for a moment, close them."""
    watch = Watch()
    clients = [Idle(watch, f"{prefix}{number}", signal) for number in range(count)]
    # The first ones pay for what is there once.
    first, rest = clients[:200], clients[200:]
    await _open(first, url)
    await watch.sleep(0.5)
    memory = rss_bytes(pid)
    began, load, server = time.perf_counter(), time.process_time(), cpu_seconds(pid)
    busy = busy_seconds(NODE_CORE)
    await _open(rest, url)
    took, load = time.perf_counter() - began, time.process_time() - load
    server, busy = cpu_seconds(pid) - server, busy_seconds(NODE_CORE) - busy
    await watch.sleep(1.5)
    each = (rss_bytes(pid) - memory) / len(rest)
    for client in clients:
        client.close()
    await asyncio.sleep(0.5)
    foreign = max(0.0, busy - server) / took
    return LoggedIn(len(rest) / took, each, server * 1e6 / len(rest), load / took, foreign)


async def _open(clients: list[Idle], url: str) -> None:
    waiting = iter(clients)

    async def one_after_the_other() -> None:
        for client in waiting:
            await client.open(url)

    await asyncio.gather(*[one_after_the_other() for _ in range(AT_ONCE)])


async def logins(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """Idle logins on a node of a cluster, against bare connections to the relay."""
    count = plan.logins + 200
    memory = Row("memory", f"memory of an idle login, {plan.logins:,} of them", "KB", goal=ratio_at_most(1.0))
    speed = Row("logins", "logins, registered in Redis", "logins/s", goal=ratio_at_least(0.5))
    cpu = Row("logins-cpu", "logins: the node's CPU", "µs/login")
    gc.freeze()
    for turn in range(plan.turns):
        relay = rig.relay()
        bare = await log_in(relay.url, count, False, relay.pid, f"b{turn}-")
        rig.stop(relay)
        [node] = rig.cluster()
        ours = await log_in(node.url, count, True, node.pid, f"l{turn}-")
        rig.stop(node)
        memory.values.append(ours.bytes_each / 1024)
        memory.reference.append(bare.bytes_each / 1024)
        speed.values.append(ours.per_second)
        speed.reference.append(bare.per_second)
        speed.foreign.append(max(ours.foreign, bare.foreign))
        cpu.values.append(ours.server_micros)
        cpu.reference.append(bare.server_micros)
        say(f"turn {turn + 1}: bare {bare}; logins {ours}")
    return [memory, speed, cpu]
