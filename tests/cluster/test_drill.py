"""A short drill as a test: faults under load break no promise."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.support.group_end import at_group_end, group_cache
from tests.tools.drill.cluster import Backends
from tests.tools.drill.drill import Outcome, Plan, run
from tests.tools.drill.report import as_text

# The faults that are over soon. scripts/drill has all of them, and more time.
QUICK = ["node-kill", "redis-kill", "redis-cut", "mongo-errors", "poison", "net-rabbit-cut"]
GATEWAY = ["node-kill", "table-flush", "haproxy-kill", "haproxy-old-map"]


@group_cache
def backends() -> Backends:
    """Servers of this file's own, which its tests harm and mend."""
    folder = Path(tempfile.mkdtemp(prefix="imd-drill-"))
    at_group_end(shutil.rmtree, folder, ignore_errors=True)
    servers = Backends(folder)
    at_group_end(servers.stop)
    servers.start()
    return servers


class DrillTests(unittest.TestCase):
    timeout = 900

    async def drill(self, plan: Plan) -> Outcome:
        lines: list[str] = []
        outcome = await deferToThread(lambda: asyncio.run(run(plan, backends(), lines.append)))
        self.report = "\n".join([*lines, as_text(outcome)])
        return outcome

    async def test_mixed(self) -> None:
        """Several faults at once, for some seconds: nothing promised is broken."""
        seed = str(random.randrange(10**6))
        # No speed is asserted here: a busy machine may take its time.
        plan = Plan("mixed", QUICK, True, seconds=7, seed=seed, clients=20, hint_seconds=60)
        outcome = await self.drill(plan)
        self.assertTrue(outcome.passed, self.report)
        self.assertGreater(len(outcome.history.messages), 50, self.report)

    async def test_redis_fails_over_and_back(self) -> None:
        """Under load, with two primaries for a moment: whatever is lost, devices are told."""
        seed = str(random.randrange(10**6))
        fault = "redis-failover"
        plan = Plan(fault, [fault], False, seconds=2, seed=seed, clients=20, hint_seconds=60)
        outcome = await self.drill(plan)
        self.assertTrue(outcome.passed, self.report)
        self.assertGreater(len(outcome.history.messages), 50, self.report)

    async def test_behind_a_gateway(self) -> None:
        """Clients come through HAProxy, one node of three searches: faults of the gateway, and nodes' own."""
        seed = str(random.randrange(10**6))
        plan = Plan("gateway", GATEWAY, True, seconds=12, seed=seed, clients=20, hint_seconds=60)
        plan.routing = "mixed"
        outcome = await self.drill(plan)
        self.assertTrue(outcome.passed, self.report)
        self.assertGreater(len(outcome.history.messages), 50, self.report)
