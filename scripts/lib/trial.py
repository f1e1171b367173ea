"""trial, but with -j a process takes all tests that share servers, the slow ones first.

trial itself hands tests out one by one, in the order of their names. Each process would then start the
servers, nodes and browsers that the tests of a module share, which costs more than many of the tests
do. `-x` has no effect here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from twisted.scripts import trial  # noqa: E402

from scripts.lib.suite import NOTES  # noqa: E402
from scripts.lib.trial_internals import hand_out  # noqa: E402

# Modules whose names begin like this share something; each other module is by itself.
TOGETHER = ("tests.command", "tests.cluster.test_drill", "tests.hostile", "tests.unit.store.rabbit")
# The groups that take longest come first, so that no process is left alone with one at the end.
SLOW = [
    "tests.cluster.test_drill",
    "tests.protocol.test_cluster_nodes",
    "tests.contract.test_inbox_redis",
    "tests.web.test_pages",
    "tests.cluster.test_trouble",
    "tests.contract.test_redis_runs",
    "tests.cluster.test_failover",
    "tests.protocol.test_embedded_node",
    "tests.protocol.test_gateway_nodes",
    "tests.hostile",
    "tests.command",
    "tests.unit.store.rabbit",
    "tests.gateway.test_membership",
    "tests.cluster.test_cluster",
    "tests.cluster.test_readiness",
    "tests.unit.store.archiver.test_audit",
    "tests.unit.support.test_servers",
    "tests.unit.store.archiver.test_writer",
    "tests.unit.tools.test_bench",
    "tests.unit.client.test_clients",
    "tests.web.test_js_client",
]
# As many groups are named with their times when all is done: they show whether SLOW is right.
SHOWN = 15


def group_of(case: Any) -> str:
    """The group that a test belongs to."""
    module = str(case.id()).rsplit(".", 2)[0]
    return next((start for start in TOGETHER if module.startswith(start)), module)


def grouped(cases: Iterable[Any]) -> list[list[Any]]:
    """The tests of each process in turn, the slow ones first."""
    groups: dict[str, list[Any]] = {name: [] for name in SLOW}
    for case in cases:
        groups.setdefault(group_of(case), []).append(case)
    return [group for group in groups.values() if group]


class Times:
    """Seconds that each group took."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def took(self, group: list[Any], seconds: float) -> None:
        self._seconds[group_of(group[0])] = seconds

    def __str__(self) -> str:
        longest = sorted(self._seconds.items(), key=lambda one: one[1], reverse=True)[:SHOWN]
        return "longest groups: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in longest)


if __name__ == "__main__":
    # As trial does it: the tests are here.
    sys.path.insert(0, str(Path.cwd()))
    times = Times()
    hand_out(grouped, times.took)
    try:
        trial.run()
    finally:
        if NOTES in os.environ:
            with open(os.environ[NOTES], "a") as notes:
                notes.write(f"{times}\n")
