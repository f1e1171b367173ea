"""Nodes restart one after another behind HAProxy, while clients write to one another.

scripts/drill rolling [--clients N] [--rate R] [--build NAME] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.servers import HOST, ServerError
from tests.tools.drill.broken import ROLLING_BUILDS
from tests.tools.drill.cluster import Backends, Cluster, DrillNode
from tests.tools.drill.stage import raise_file_limit, say, show
from tests.tools.drill.talker import Talker, judge, user
from tests.tools.drill.ways import Ways

NODES = 3
DRAIN_SECONDS = 2
CALM_SECONDS = 5.0
CONNECT_SECONDS = 120.0
SETTLE_SECONDS = 120.0
# Messages that a broken build has lost never come. Clients come back, and have their answers.
BROKEN_SECONDS = 3.0
SHOWN = 5


@dataclass(frozen=True)
class Limits:
    """They must not be passed. The defaults are for a machine that does little else."""

    away_p99_seconds: float = 2.0
    others_p99_ms: float = 300.0
    empty_seconds: float = 60.0
    """until no node is empty any more after the last restart"""


@dataclass(frozen=True)
class Plan:
    """`rate`: messages a second from each client. `build`: nodes that are broken on purpose."""

    clients: int = 500
    rate: float = 0.5
    restarts: int = NODES
    calm_seconds: float = CALM_SECONDS
    build: str = ""
    limits: Limits = field(default_factory=Limits)


@dataclass
class Outcome:
    """`wrong`: broken promises. `late`: limits that were passed. `cut_off`: closed without `leaving`."""

    report: dict[str, Any]
    wrong: list[str] = field(default_factory=list)
    cut_off: int = 0
    late: list[str] = field(default_factory=list)
    sabotaged: int = 0

    @property
    def passed(self) -> bool:
        return not (self.wrong or self.cut_off or self.late)


class Rolling:
    """One run on servers that are there."""

    def __init__(self, plan: Plan, backends: Backends, tell: Callable[[str], None] = say) -> None:
        self.plan = plan
        self._tell = tell
        ini = {
            "node": {"drain_seconds": DRAIN_SECONDS, "stop_seconds": 10},
            "limits": {"messages_per_second": 0, "connections_per_address": 0},
        }
        self.cluster = Cluster(
            backends, ini, nodes=NODES, build=plan.build, routing="gateway", is_proxied=False
        )
        self.talkers: list[Talker] = []
        self.outcome = Outcome({"clients": plan.clients, "messages a second": plan.clients * plan.rate})
        self._is_talking = True

    async def run(self) -> Outcome:
        """Raises ServerError, TimeoutError."""
        try:
            await self.cluster.start()
            [gateway] = self.cluster.gateways
            ways, url = Ways(self.cluster.nodes, [gateway]), f"ws://{HOST}:{gateway.port}/ws"
            tokens = [ways.token(user(number), False) or "" for number in range(self.plan.clients)]
            self.talkers = [Talker(number, url, token) for number, token in enumerate(tokens)]
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.gather(*(talker.start() for talker in self.talkers))
            talking = asyncio.ensure_future(self._talk())
            await self._restarts()
            self._is_talking = False
            await talking
            await self._settle()
            for talker in self.talkers:
                await talker.stop()
        finally:
            await self.cluster.stop()
        self.outcome.sabotaged = sum(self.cluster.sabotaged().values())
        self._judge()
        return self.outcome

    async def _talk(self) -> None:
        """One after another, evenly."""
        began, per_second = time.monotonic(), self.plan.clients * self.plan.rate
        for turn, talker in enumerate(itertools.cycle(self.talkers), 1):
            if not self._is_talking:
                return
            talker.say()
            await asyncio.sleep(max(0.0, began + turn / per_second - time.monotonic()))

    async def _restarts(self) -> None:
        self._tell(f"{len(self.talkers)} clients are connected: {await self._places()}")
        begin = time.monotonic()
        await asyncio.sleep(self.plan.calm_seconds)
        self.outcome.report["accepted before"] = self._accepted(begin, time.monotonic())
        shares = []
        for node in self.cluster.nodes[: self.plan.restarts]:
            begin = time.monotonic()
            seconds = await self._restart(node)
            end = time.monotonic()
            moved = [talker for talker in self.talkers if talker.was_away(begin, end)]
            shares.append(self._others(begin, end))
            self.outcome.report[f"restart of {node.name}"] = {
                "seconds until it had stopped, and was ready": seconds,
                "clients that moved": len(moved),
                "accepted, of the others": _milliseconds(shares[-1]),
            }
            self._tell(f"{node.name} is back: {await self._places()}")
        absences = [one.seconds for talker in self.talkers for one in talker.absences]
        others = list(itertools.chain(*shares))
        self.outcome.report["away, s"] = away = _quantiles(absences, 3)
        self.outcome.report["accepted, of others, all restarts"] = accepted = _milliseconds(others)
        limits = self.plan.limits
        if away.get("p99", 0) > limits.away_p99_seconds:
            self.outcome.late.append(f"away for {away['p99']:g} s at p99")
        if accepted.get("p99", 0) > limits.others_p99_ms:
            self.outcome.late.append(f"others' messages were accepted after {accepted['p99']:g} ms at p99")
        if not self.plan.build:
            await self._until_no_node_is_empty(limits.empty_seconds)

    async def _restart(self, node: DrillNode) -> list[float]:
        """As an operator does it: the next one when this one is ready, and the gateway leads to it."""
        began = time.monotonic()
        await asyncio.to_thread(node.stop)
        stopped = time.monotonic()
        await asyncio.to_thread(node.start)
        ready = time.monotonic()
        await asyncio.to_thread(self.cluster.gateways[0].until_leads_to, self.cluster.names)
        return [round(stopped - began, 1), round(ready - stopped, 1)]

    async def _until_no_node_is_empty(self, most: float) -> None:
        began = time.monotonic()
        while True:
            places = await self._places()
            seconds = time.monotonic() - began
            if all(places.values()):
                break
            if seconds > most:
                self.outcome.late.append(f"a node is empty after {seconds:.0f} s: {places}")
                break
            await asyncio.sleep(0.2)
        self.outcome.report["clients afterwards"] = places
        self.outcome.report["no node empty after, s"] = round(seconds, 1)

    async def _settle(self) -> None:
        """Until everything is answered and has arrived, or the time is over."""
        end = time.monotonic() + SETTLE_SECONDS
        are_back = False
        while time.monotonic() < end:
            if all(t.is_open and not t.unanswered for t in self.talkers):
                if self._all_arrived():
                    return
                if self.plan.build and not are_back:
                    are_back, end = True, time.monotonic() + BROKEN_SECONDS
            await asyncio.sleep(0.05)

    def _all_arrived(self) -> bool:
        return all(len(talker.got) >= other.sent for talker, other in self._pairs())

    def _pairs(self) -> list[tuple[Talker, Talker]]:
        """Each talker with its partner."""
        return [(talker, self.talkers[number ^ 1]) for number, talker in enumerate(self.talkers)]

    def _judge(self) -> None:
        wrong = self.outcome.wrong
        for talker, partner in self._pairs():
            wrong += talker.objections
            wrong += judge(talker.user, partner.sent, talker.got)
            if talker.unanswered:
                wrong.append(f"{talker.user}: {talker.unanswered} messages were never accepted")
        absences = [one for talker in self.talkers for one in talker.absences]
        self.outcome.cut_off = sum(not one.told for one in absences)
        self.outcome.report |= {
            "messages": sum(talker.sent for talker in self.talkers),
            "times that clients moved": len(absences),
            "cut off without a word": self.outcome.cut_off,
            "broken promises": len(wrong),
            "among them": wrong[:SHOWN],
            "limits passed": self.outcome.late,
        }

    def _others(self, begin: float, end: float) -> list[float]:
        """Seconds until messages of this time were accepted, of clients that stayed where they were."""
        stayed = [talker for talker in self.talkers if not talker.was_away(begin, end)]
        return [one.seconds for talker in stayed for one in talker.waits if begin <= one.sent_at < end]

    def _accepted(self, begin: float, end: float) -> dict[str, float]:
        return _milliseconds(self._others(begin, end))

    async def _places(self) -> dict[str, int]:
        """How many clients each node has."""
        counts = await asyncio.gather(
            *(asyncio.to_thread(node.metric, "imd_connections") for node in self.cluster.nodes)
        )
        return {node.name: int(count) for node, count in zip(self.cluster.nodes, counts, strict=True)}


def _milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    return _quantiles([one * 1000 for one in seconds], 1)


def _quantiles(values: Sequence[float], digits: int) -> dict[str, float]:
    found: dict[str, float] = {"count": len(values)}
    if len(values) > 1:
        centiles = statistics.quantiles(values, n=100, method="inclusive")
        found |= {"p50": round(centiles[49], digits), "p99": round(centiles[98], digits)}
        found["most"] = round(max(values), digits)
    return found


def main(argv: Sequence[str]) -> int:
    """0 if nothing was broken and no limit passed, 1 if something was, 2 if it could not be tried."""
    parser = argparse.ArgumentParser(prog="scripts/drill rolling", description=__doc__.partition("\n")[0])
    plan = Plan()
    parser.add_argument("--clients", type=int, default=plan.clients, help=f"an even number ({plan.clients})")
    parser.add_argument(
        "--rate", type=float, default=plan.rate, help=f"messages a second from each ({plan.rate:g})"
    )
    parser.add_argument("--build", choices=sorted(ROLLING_BUILDS), help="nodes that are broken on purpose")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    options = parser.parse_args(argv)
    if options.clients < 2 or options.clients % 2:
        parser.error("--clients: an even number is expected")
    # HAProxy has two for each client.
    raise_file_limit(2 * options.clients)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="imd-drill-"))
    backends = Backends(folder)
    try:
        say("starting the servers and nodes")
        backends.start()
        plan = Plan(options.clients, options.rate, build=options.build or "")
        outcome = asyncio.run(Rolling(plan, backends).run())
    except (ServerError, TimeoutError, AssertionError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        backends.stop()
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps(outcome.report))
    else:
        show(outcome.report)
    return 0 if outcome.passed else 1
