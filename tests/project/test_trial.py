"""scripts/lib/trial.py: the groups of tests, their order, and the private part of trial."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

from twisted.trial import unittest

from scripts.lib.trial import SLOW, TOGETHER, Times, grouped
from scripts.lib.trial_internals import missing
from tests.support.paths import ROOT


class Case:
    """A test, for which only its name counts."""

    def __init__(self, name: str) -> None:
        self.name = name

    def id(self) -> str:
        return self.name


class InternalsTests(unittest.TestCase):
    def test_installed_version(self) -> None:
        """The installed version of trial has all parts that scripts/lib/trial.py depends on."""
        self.assertEqual(missing(), [])

    def test_names_missing_parts(self) -> None:
        """A part that is gone, or has changed, is named."""

        class Plain:
            def _driveWorker(self, result: Any, cases: Any, worker: Any) -> None: ...

        self.assertEqual(missing(SimpleNamespace()), ["twisted.scripts.trial.DistTrialRunner"])
        self.assertEqual(
            missing(SimpleNamespace(DistTrialRunner=object)), ["DistTrialRunner._driveWorker"]
        )
        parameters, kind = missing(SimpleNamespace(DistTrialRunner=Plain))
        self.assertIn("it has ['self', 'result', 'cases', 'worker']", parameters)
        self.assertEqual(kind, "DistTrialRunner._driveWorker as a coroutine")


class GroupTests(unittest.TestCase):
    def test_slow_ones_first(self) -> None:
        """A module is a group, some modules are one together, and the slow groups come first."""
        names = ["tests.unit.x.A.test_a", "tests.unit.x.B.test_b", "tests.unit.y.A.test_a"]
        together = [f"{TOGETHER[0]}.test_one.A.test_a", f"{TOGETHER[0]}.test_two.A.test_a"]
        slow = f"{SLOW[0]}.A.test_a"
        groups = grouped(map(Case, [*names[:2], together[0], names[2], together[1], slow]))
        found = [sorted(case.id() for case in group) for group in groups]
        self.assertEqual(found[0], [slow])
        self.assertEqual(sorted(found), sorted([names[:2], names[2:], together, [slow]]))

    def test_names_are_up_to_date(self) -> None:
        """Each group that is named has tests."""
        for name in {*TOGETHER, *SLOW}:
            if (ROOT / name.replace(".", "/")).is_dir():
                self.assertTrue(list((ROOT / name.replace(".", "/")).glob("test_*.py")), name)
            else:
                importlib.import_module(name)

    def test_times(self) -> None:
        """The longest group is named first."""
        times = Times()
        times.took([Case("tests.a.A.test_a")], 1.2)
        times.took([Case("tests.b.A.test_a"), Case("tests.b.A.test_b")], 60.7)
        self.assertEqual(str(times), "longest groups: tests.b 61 s, tests.a 1 s")
