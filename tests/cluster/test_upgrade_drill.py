"""A short drill: nodes of 0.1.0 are replaced under load and faults, and the level is raised."""

from __future__ import annotations

import asyncio
import random

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.cluster.test_drill import backends
from tests.support.old_version import NoHistory, old_tree
from tests.tools.drill.drill import run
from tests.tools.drill.report import as_text
from tests.tools.drill.upgrading import plan_of, roll

# The faults that are over soon.
QUICK = ["node-kill", "redis-kill", "net-rabbit-cut"]


class RollingTests(unittest.TestCase):
    timeout = 1200

    def setUp(self) -> None:
        try:
            old_tree()
        except NoHistory as reason:
            raise unittest.SkipTest(str(reason)) from None

    async def test_upgrade(self) -> None:
        """Nothing promised is broken, and the cluster ends at the newest level."""
        # No speed is asserted here: a busy machine may take its time.
        plan = plan_of(str(random.randrange(10**6)), seconds=2, clients=8, hint_seconds=60)
        plan.faults, plan.is_brief = QUICK, True
        lines: list[str] = []
        outcome = await deferToThread(lambda: asyncio.run(run(plan, backends(), lines.append, roll)))
        report = "\n".join([*lines, as_text(outcome)])
        self.assertTrue(outcome.passed, report)
        self.assertGreater(len(outcome.history.messages), 50, report)
        self.assertIn("the cluster's level is 2", report)
