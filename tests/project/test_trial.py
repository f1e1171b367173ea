"""scripts/lib/trial.py: the groups of tests, their order, and the private part of trial."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.python.reflect import namedAny
from twisted.trial import unittest

from scripts.lib.trial import APART, SLOW, TOGETHER, Times, grouped, kept
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
        slow = f"{SLOW[1]}.A.test_a"
        groups = grouped(map(Case, [*names[:2], together[0], names[2], together[1], slow]))
        found = [sorted(case.id() for case in group) for group in groups]
        self.assertEqual((TOGETHER[0], found[:2]), (SLOW[0], [together, [slow]]))
        self.assertEqual(sorted(found), sorted([names[:2], names[2:], together, [slow]]))

    def test_classes_apart(self) -> None:
        """The classes of some modules are groups of their own."""
        names = [f"{APART[0]}.{name}" for name in ("ATests.test_a", "ATests.test_b", "BTests.test_a")]
        found = [[case.id() for case in group] for group in grouped(map(Case, names))]
        self.assertEqual(found, [names[:2], names[2:]])

    def test_as_long_as_last_time(self) -> None:
        """Groups come in the order of the times they took; before them those that are known to be slow."""
        names = [f"{name}.A.test_a" for name in (SLOW[0], SLOW[1], "tests.x", "tests.y", "tests.new")]
        seconds = {SLOW[0]: 5.0, "tests.x": 2.0, "tests.y": 9.0}
        found = [group[0].id() for group in grouped(map(Case, names), seconds)]
        self.assertEqual(found, [names[1], names[3], names[0], names[2], names[4]])

    def test_names_are_up_to_date(self) -> None:
        """Each group that is named has tests."""
        for name in {*TOGETHER, *APART, *SLOW}:
            if (ROOT / name.replace(".", "/")).is_dir():
                self.assertTrue(list((ROOT / name.replace(".", "/")).glob("test_*.py")), name)
            else:
                self.assertIsNotNone(namedAny(name))

    def test_kept(self) -> None:
        """The times of a whole run are kept for the next one; a file that cannot be read counts as none."""
        path = Path(self.mktemp())
        times = Times()
        times.took([Case("tests.a.A.test_a")], 1.0)
        times.keep(path)
        self.assertEqual(kept(path), {})
        whole = {f"tests.{number}": 1.0 + number for number in range(len(SLOW))}
        for name, seconds in whole.items():
            times.took([Case(f"{name}.A.test_a")], seconds)
        times.keep(path)
        self.assertEqual(kept(path), {"tests.a": 1.0, **whole})
        path.write_text("{")
        self.assertEqual(kept(path), {})

    def test_times(self) -> None:
        """The longest group is named first."""
        times = Times()
        times.took([Case("tests.a.A.test_a")], 1.2)
        times.took([Case("tests.b.A.test_a"), Case("tests.b.A.test_b")], 60.7)
        self.assertEqual(str(times), "longest groups: tests.b 61 s, tests.a 1 s")
