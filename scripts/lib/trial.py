"""trial, but with -j a process takes all tests that share servers, the slow ones first.

trial itself hands tests out one by one, in the order of their names. Each process would then start the
servers, nodes and browsers that the tests of a module share, which costs more than many of the tests
do. `-x` has no effect here.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from twisted.scripts import trial  # noqa: E402

from scripts.lib.suite import NOTES  # noqa: E402
from scripts.lib.trial_internals import hand_out  # noqa: E402
from tests.support.group_end import GroupEnd  # noqa: E402

# Modules whose names begin like this share servers that are dear; each other module is by itself.
TOGETHER = ("tests.cluster.test_drill", "tests.unit.store.rabbit")
# Of these modules each class is by itself: they wait for much, and share nothing.
APART = ("tests.gateway.test_membership", "tests.gateway.test_drain")
# The groups that take longest come first, so that no process is left alone with one at the end. This is the
# order where no run has left its times, and of groups that it did not have.
SLOW = [
    "tests.cluster.test_drill",
    "tests.unit.store.rabbit",
    "tests.protocol.test_cluster_nodes",
    "tests.contract.test_redis_runs",
    "tests.cluster.test_upgrade_drill",
    "tests.protocol.test_embedded_node",
    "tests.cluster.test_upgrade",
    "tests.cluster.test_room_removal",
    "tests.cluster.test_missing",
    "tests.cluster.test_trouble",
    "tests.web.test_messenger",
    "tests.gateway.test_membership.ServingTests",
    "tests.web.test_locked",
    "tests.cluster.test_readiness",
    "tests.gateway.test_membership.TableTests",
    "tests.web.test_pages",
    "tests.unit.store.archiver.test_audit",
    "tests.web.test_access",
    "tests.protocol.test_gateway_nodes",
    "tests.web.test_state",
    "tests.web.test_js_client",
    "tests.gateway.test_membership.NameTests",
    "tests.cluster.test_homes",
    "tests.web.test_access_events",
    "tests.gateway.test_homes",
    "tests.unit.store.test_gathering",
    "tests.protocol.test_embedded_disk",
    "tests.unit.store.archiver.test_writer",
    "tests.web.test_widget_state",
    "tests.cluster.test_presence",
    "tests.contract.test_replica_set",
    "tests.gateway.test_drain.CommandTests",
    "tests.command.test_upgrade",
    "tests.unit.tools.test_bench",
    "tests.web.test_cluster_pages",
    "tests.unit.client.test_clients",
    "tests.hostile.test_doors",
    "tests.command.test_command",
    "tests.cluster.test_failover",
    "tests.contract.test_inbox_redis",
    "tests.unit.support.test_servers",
]
# Seconds that each group took when all ran here.
KEPT = ROOT / "_trial_temp.seconds.json"
# As many groups are named with their times when all is done: they show what to mend.
SHOWN = 15


def group_of(case: Any) -> str:
    """The group that a test belongs to."""
    of_class = str(case.id()).rpartition(".")[0]
    module = of_class.rpartition(".")[0]
    if module in APART:
        return of_class
    return next((start for start in TOGETHER if module.startswith(start)), module)


def grouped(cases: Iterable[Any], seconds: Mapping[str, float] | None = None) -> list[list[Any]]:
    """The tests of each process in turn, the slow ones first. `seconds`: of groups that ran before.

    Within a group tests come in the order of their `turn`, if their class has it, and else in that of trial.
    """
    groups: dict[str, list[Any]] = {name: [] for name in SLOW}
    for case in cases:
        groups.setdefault(group_of(case), []).append(case)
    for group in groups.values():
        group.sort(key=lambda case: str(getattr(case, "turn", "")))
    unknown = dict.fromkeys(SLOW, math.inf)
    known = seconds or {}
    names = sorted(groups, key=lambda name: known.get(name, unknown.get(name, 0.0)), reverse=True)
    return [groups[name] for name in names if groups[name]]


def kept(path: Path) -> dict[str, float]:
    """The seconds that the last run's groups took; empty where there are none to read."""
    try:
        found: dict[str, float] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


class Times:
    """Seconds that each group took."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def took(self, group: list[Any], seconds: float) -> None:
        self._seconds[group_of(group[0])] = seconds

    def keep(self, path: Path) -> None:
        """Write them down for the next run, if this one had all groups that are known to be slow."""
        if self._seconds.keys() >= set(SLOW):
            new = path.with_name(f"{path.name}.{os.getpid()}")
            new.write_text(json.dumps(self._seconds))
            new.replace(path)

    def __str__(self) -> str:
        longest = sorted(self._seconds.items(), key=lambda one: one[1], reverse=True)[:SHOWN]
        return "longest groups: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in longest)


if __name__ == "__main__":
    # As trial does it: the tests are here.
    sys.path.insert(0, str(Path.cwd()))
    times = Times()
    seconds = kept(KEPT)
    hand_out(lambda cases: grouped(cases, seconds), times.took, GroupEnd("test_end"))
    try:
        trial.run()
    finally:
        times.keep(KEPT)
        if NOTES in os.environ:
            with open(os.environ[NOTES], "a") as notes:
                notes.write(f"{times}\n")
