"""All clients of one node come back to the others at once: after kill -9, and after a planned stop.

python -m tests.tools.drill.storm [--clients N] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.support.nodes import NodeServer
from tests.tools.drill.crowd import Client, Crowd
from tests.tools.drill.stage import Stage, difference, perform, raise_file_limit, say

TALKING_PAIRS, MESSAGES_A_SECOND = 20, 200.0
CALM_SECONDS = 8.0
ALL_BACK_SECONDS = 120.0


class Storm:
    """One run: `report` is what it found out."""

    def __init__(self, stage: Stage, count: int) -> None:
        self.stage = stage
        self.open: list[NodeServer] = list(stage.nodes[:1])
        self.crowd = Crowd(lambda: [node.url for node in self.open])
        self.clients = [Client(self.crowd, f"user-{number}") for number in range(count)]
        self.report: dict[str, Any] = {"clients": count}

    async def run(self) -> None:
        first, *others = self.stage.nodes
        await asyncio.to_thread(self.stage.start_talkers, others, TALKING_PAIRS, MESSAGES_A_SECOND)
        say(f"{len(self.clients)} clients log in at one node")
        begin = time.monotonic()
        for client in self.clients:
            client.start()
        await self.all_in()
        self.logged_in("first logins", begin)
        begin = time.monotonic()
        await asyncio.sleep(CALM_SECONDS)
        self.report["latency before"] = self.stage.latencies(begin, time.monotonic())
        self.open = others
        say(f"SIGTERM to {first.name}")
        await self.storm("stopped", lambda: first.process and first.process.send_signal(signal.SIGTERM))
        first.stop()
        await asyncio.to_thread(first.start)
        self.open = [first]
        say(f"all drop their connections and log in at {first.name}")
        begin = time.monotonic()
        for client in self.clients:
            client.drop()
        await self.all_back(others)
        self.logged_in("logins after lost connections", begin)
        await asyncio.sleep(CALM_SECONDS / 2)
        self.open = others
        say(f"kill -9 of {first.name}")
        await self.storm("killed", first.kill)
        self.report["broken promises"] = self.crowd.wrong[:10]
        for client in self.clients:
            await client.stop()

    def logged_in(self, name: str, begin: float) -> None:
        seconds = time.monotonic() - begin
        self.report[name] = {"seconds": round(seconds, 2), "per second": round(len(self.clients) / seconds)}

    async def all_in(self) -> None:
        everybody = len(self.clients)
        await self.crowd.until(lambda: self.crowd.online == everybody, ALL_BACK_SECONDS, "all are in")

    async def all_back(self, left: Sequence[NodeServer]) -> None:
        """Everybody is in, and nobody on a node that they were to leave."""
        gone = {node.url for node in left}
        await self.crowd.until(
            lambda: all(client.is_in and client.url not in gone for client in self.clients),
            ALL_BACK_SECONDS,
            "all are back",
        )

    async def storm(self, name: str, end: Callable[[], object]) -> None:
        """`end` the first node, where all are, and see everybody on the others."""
        self.crowd.seen.clear()
        before = await asyncio.to_thread(self.stage.counts)
        begin = time.monotonic()
        await asyncio.to_thread(end)
        await self.all_back(self.stage.nodes[:1])
        back = time.monotonic()
        asked = difference(before, await asyncio.to_thread(self.stage.counts))
        await asyncio.sleep(CALM_SECONDS / 2)
        # The talkers' share is in what was asked, too.
        self.report[name] = {
            "seconds until all were back": round(back - begin, 2),
            "refused (4100)": self.crowd.seen["close 4100"],
            "seen by clients": dict(self.crowd.seen),
            "asked, per client": {kind: round(n / len(self.clients), 2) for kind, n in asked.items()},
            "latency of others": self.stage.latencies(begin, back),
            "latency after": self.stage.latencies(back + 1, time.monotonic()),
        }
        say(f"all are back after {back - begin:.1f} s")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/drill storm", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=5000, metavar="N", help="on the node that goes (5000)")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    options = parser.parse_args(argv)
    raise_file_limit(options.clients)
    with Stage(3, {"limits": {"messages_per_second": 0}}) as stage:
        return perform(Storm(stage, options.clients), options.json)


if __name__ == "__main__":
    sys.exit(main())
