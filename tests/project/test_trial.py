"""scripts/lib/trial.py: the groups of tests, their order, and the private part of trial."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.python.reflect import namedAny
from twisted.scripts import trial
from twisted.trial import reporter, unittest

from scripts.lib.trial import APART, SLOW, TOGETHER, Times, grouped, kept
from scripts.lib.trial_internals import hand_out, missing
from tests.support.paths import ROOT


class Case:
    """A test, for which only its name counts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = ""

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


class HandOutTests(unittest.TestCase):
    async def run_groups(self, groups: list[list[str]], fails: str = "") -> tuple[list[str], list[str]]:
        """The tests that a process ran, in their order, and the names of those that are errors."""
        ran: list[str] = []

        class Runner:
            async def _driveWorker(self, result: Any, testCases: Any, worker: Any) -> None:
                for case in testCases:
                    await worker.run(case, result)

        class Worker:
            async def run(self, case: Case, result: Any) -> None:
                ran.append(case.id())
                if case.id() == fails:
                    raise ValueError(case.id())

        self.patch(trial, "DistTrialRunner", Runner)
        took: list[str] = []
        hand_out(
            list,
            lambda group, seconds: took.append(group[0].id()),
            Case("end"),
        )
        result = SimpleNamespace(original=reporter.TestResult())
        cases = [list(map(Case, group)) for group in groups]
        await trial.DistTrialRunner()._driveWorker(result, iter(cases), Worker())
        self.assertEqual(took, [group[0] for group in groups])
        return ran, [case.id() for case, _ in result.original.errors]

    def test_no_test(self) -> None:
        """Names without tests end the run with an error."""
        command = [sys.executable, str(ROOT / "scripts/lib/trial.py"), "-j", "2", "tests.protocol.visitors"]
        folder = self.mktemp()
        done = subprocess.run(
            [*command, "--temp-directory", folder], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        self.assertEqual((done.returncode, done.stderr.strip()), (1, "no test has such a name"))

    async def test_end_of_groups(self) -> None:
        """After each group the process ends what the group has shared."""
        ran, errors = await self.run_groups([["a", "b"], ["c"]])
        self.assertEqual((ran, errors), (["a", "b", "end", "c", "end"], []))

    async def test_end_fails(self) -> None:
        """An end that fails is an error, and the next group goes on."""
        ran, errors = await self.run_groups([["a"], ["b"]], fails="end")
        self.assertEqual((ran, errors), (["a", "end", "b", "end"], ["end", "end"]))


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

    def test_in_turn(self) -> None:
        """The tests of a group come in the order of their class, and of their names among equals."""
        cases = [Case(f"tests.unit.x.A.test_{name}") for name in "abcd"]
        for case, turn in zip(cases, ("z", "y", "z", ""), strict=True):
            case.turn = turn
        [found] = grouped(cases)
        self.assertEqual([case.id()[-1] for case in found], ["d", "b", "a", "c"])

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

        def took(name: str, seconds: float) -> None:
            tail = ".test_a" if name.startswith(APART) else ".A.test_a"
            times.took([Case(name + tail)], seconds)

        whole = {f"tests.unit.{number}": 1.0 for number in range(2 * len(SLOW))}
        whole |= {name: 2.0 + number for number, name in enumerate(SLOW)}
        for name, seconds in whole.items():
            # A run of many modules is not one of the whole suite.
            times.keep(path)
            self.assertEqual(kept(path), {})
            took(name, seconds)
        times.keep(path)
        self.assertEqual(kept(path), whole)
        path.write_text("{")
        self.assertEqual(kept(path), {})

    def test_times(self) -> None:
        """The longest group is named first."""
        times = Times()
        times.took([Case("tests.a.A.test_a")], 1.2)
        times.took([Case("tests.b.A.test_a"), Case("tests.b.A.test_b")], 60.7)
        self.assertEqual(str(times), "longest groups: tests.b 61 s, tests.a 1 s")
