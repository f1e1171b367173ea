"""A short rolling restart as a test: nobody is cut off, nothing is lost, no node stays empty."""

from __future__ import annotations

import asyncio
import pprint

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.cluster.test_drill import backends
from tests.tools.drill.broken import ROLLING_BUILDS, check
from tests.tools.drill.rolling import Limits, Outcome, Plan, Rolling

# So generous that only a fault passes them; scripts/drill has the limits of a quiet machine.
GENEROUS = Limits(away_p99_seconds=60, others_p99_ms=30_000, empty_seconds=180)


class RollingTests(unittest.TestCase):
    timeout = 900

    async def roll(self, plan: Plan) -> Outcome:
        lines: list[str] = []
        rolling = Rolling(plan, backends(), lines.append)
        outcome = await deferToThread(lambda: asyncio.run(rolling.run()))
        self.report = "\n".join([*lines, pprint.pformat(outcome.report, sort_dicts=False)])
        return outcome

    async def test_restarts(self) -> None:
        """Three nodes, one after another. Each client of a node is told, and comes back to another."""
        outcome = await self.roll(Plan(clients=60, rate=1.0, calm_seconds=1.0, limits=GENEROUS))
        self.assertTrue(outcome.passed, self.report)
        self.assertGreater(outcome.report["times that clients moved"], 30, self.report)
        self.assertGreater(outcome.report["messages"], 100, self.report)

    async def test_broken(self) -> None:
        """Nodes that answer too early and end without a drain are found out."""
        [name] = ROLLING_BUILDS
        check(name)
        plan = Plan(clients=60, rate=2.0, restarts=1, calm_seconds=1.0, build=name, limits=GENEROUS)
        outcome = await self.roll(plan)
        self.assertEqual(outcome.sabotaged, 1, self.report)
        self.assertGreater(outcome.cut_off, 5, self.report)
        self.assertTrue(any(": lost " in one for one in outcome.wrong), self.report)
