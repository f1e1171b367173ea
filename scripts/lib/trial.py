"""trial, but with -j a process takes all tests that share servers, the slow ones first.

trial itself hands tests out one by one, in the order of their names. What the tests of a module share
(servers, nodes, a browser) would then be started in every process, which costs more than many of the tests
do. `-x` has no effect here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.scripts import trial
from twisted.trial._dist.disttrial import DistTrialRunner

# Modules whose names begin like this share something; each other module is by itself.
TOGETHER = ("tests.command", "tests.cluster.test_drill", "tests.hostile", "tests.unit.store.rabbit")
# What takes longest comes first, so that no process is left alone with it at the end.
SLOW = [
    "tests.protocol.test_cluster_nodes",
    "tests.contract.test_inbox_redis",
    "tests.web.test_pages",
    "tests.cluster.test_trouble",
    "tests.contract.test_redis_runs",
    "tests.cluster.test_failover",
    "tests.protocol.test_embedded_node",
    "tests.cluster.test_drill",
    "tests.hostile",
    "tests.command",
    "tests.unit.store.rabbit",
    "tests.web.test_js_client",
]


def group_of(case: Any) -> str:
    """Whose process a test belongs to."""
    module = str(case.id()).rsplit(".", 2)[0]
    return next((start for start in TOGETHER if module.startswith(start)), module)


def grouped(cases: Iterable[Any]) -> list[list[Any]]:
    """The tests of each process in turn, the slow ones first."""
    groups: dict[str, list[Any]] = {name: [] for name in SLOW}
    for case in cases:
        groups.setdefault(group_of(case), []).append(case)
    return [group for group in groups.values() if group]


class Runner(DistTrialRunner):
    """Hands out groups."""

    _groups: list[list[Any]] = []

    async def _driveWorker(self, result: Any, testCases: Iterable[Any], worker: Any) -> None:
        # All processes are given the same iterator: the first one empties it.
        self._groups = self._groups or grouped(testCases)
        while self._groups:
            await super()._driveWorker(result, self._groups.pop(0), worker)


if __name__ == "__main__":
    # As trial does it: what it tests is here.
    sys.path.insert(0, str(Path.cwd()))
    trial.DistTrialRunner = Runner
    trial.run()
