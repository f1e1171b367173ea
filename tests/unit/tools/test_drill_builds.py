"""The broken builds: their targets are there, one whose target is gone says so, and the verdict is strict."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

from twisted.trial import unittest

from imd.store.redis import connection
from tests.support.paths import ROOT
from tests.tools.drill import broken, faultdrill
from tests.tools.drill.broken import BUILDS, Build, check
from tests.tools.drill.builds import LOADS, TOGETHER, TRIES, Proof, grouped, short_plan, verdict
from tests.tools.drill.checker import KINDS, Violation
from tests.tools.drill.drill import Outcome, Plan
from tests.tools.drill.faults import FAULTS
from tests.tools.drill.history import History
from tests.tools.drill.seams import Gone, Seams, noted_in, times_noted


class Target:
    field = 1

    def method(self, one: int, two: int) -> int:
        return one + two


def doubled(method, did):  # type: ignore[no-untyped-def]
    def twice(self: Target, one: int, two: int) -> int:
        did()
        return 2 * method(self, one, two)  # type: ignore[no-any-return]

    return twice


class SeamTests(unittest.TestCase):
    def test_replaced(self) -> None:
        """A method is replaced by what is made of it, and each time is noted; a check replaces nothing."""
        self.patch(Target, "method", Target.method)
        Seams("b", replaces=False).replace(Target, "method", "self, one, two", doubled)
        self.assertEqual(Target().method(1, 2), 3)
        notes = Path(self.mktemp())
        self.assertEqual(times_noted(notes), 0)
        Seams("b", noted_in(str(notes)), replaces=True).replace(Target, "method", "self, one, two", doubled)
        self.assertEqual([Target().method(1, 2), Target().method(2, 2)], [6, 8])
        self.assertEqual(times_noted(notes), 2)

    def test_gone(self) -> None:
        """A method that is gone, or takes something else, is named, and so is a field."""
        seams = Seams("b", replaces=True)
        for parameters, name, reason in (
            ("self, one, two", "renamed", "b: .*Target.renamed is gone"),
            ("self, one", "method", r"b: .*Target.method takes \(self, one, two\), not \(self, one\)"),
        ):
            with self.assertRaisesRegex(Gone, reason):
                seams.replace(Target, name, parameters, doubled)
        seams.attributes(Target, "field")
        with self.assertRaisesRegex(Gone, "b: .*Target.fields is gone"):
            seams.attributes(Target, "field", "fields")

    def test_inherited_is_gone(self) -> None:
        """An inherited method counts as gone: it would be replaced in that class alone."""

        class Heir(Target):
            pass

        self.assertRaises(Gone, Seams("b", replaces=True).expect, Heir, "method", "self, one, two")


class BuildTests(unittest.TestCase):
    def test_targets(self) -> None:
        """Every build's targets are there, and a check leaves them alone."""
        from imd.chat.accept import Acceptor

        submit = Acceptor.submit
        for name in BUILDS:
            check(name)
        self.assertIs(Acceptor.submit, submit)

    def test_named(self) -> None:
        """Faults and kinds are ones that there are."""
        for name, build in BUILDS.items():
            self.assertIn(build.under, FAULTS, name)
            self.assertLessEqual({build.finds, *build.also}, set(KINDS), name)
            self.assertNotIn(build.finds, build.also)

    def broken_by(self, break_it) -> None:  # type: ignore[no-untyped-def]
        self.patch(broken, "BUILDS", {**BUILDS, "no-dedup": BUILDS["no-dedup"]._replace(break_it=break_it)})
        self.patch(faultdrill, "BUILDS", broken.BUILDS)

    def test_gone_ends_the_node(self) -> None:
        """A node whose sabotage has no target does not start: a missing module is one, too."""

        def no_module(seams: Seams) -> None:
            import imd.no_such_module  # type: ignore[import-not-found]  # noqa: F401

        self.broken_by(no_module)
        self.patch(sys, "argv", ["broken", "no-dedup", self.mktemp(), "-n", "imd"])
        with self.assertRaisesRegex(SystemExit, "no-dedup: No module named 'imd.no_such_module'"):
            broken.run()

    def test_gone_ends_the_drill(self) -> None:
        """Before a server is started."""
        self.broken_by(lambda seams: seams.expect(Target, "renamed", ""))
        self.patch(faultdrill, "Backends", None)
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.assertEqual(faultdrill.main(["--build", "no-dedup"]), 2)
        self.assertIn("no-dedup: tests.unit.tools.test_drill_builds.Target.renamed is gone", said.getvalue())


class VerdictTests(unittest.TestCase):
    def wrong(self, *kinds: str, sabotaged: int = 3, troubles: tuple[str, ...] = ()) -> str:
        violations = [Violation(kind, "") for kind in kinds]
        outcome = Outcome(
            short_plan("no-dedup"), History(), violations=violations, troubles=list(troubles)
        )
        outcome.sabotaged = {"no-dedup": sabotaged}
        return "; ".join(verdict("no-dedup", outcome))

    def test_as_it_should_be(self) -> None:
        self.assertEqual(self.wrong("twice"), "")
        self.assertEqual(self.wrong("twice", "archived twice", "twice"), "")

    def test_not(self) -> None:
        """Nothing found, something else found, no sabotage, a drill that stumbled."""
        self.assertIn("not found: twice", self.wrong())
        self.assertIn("not found: twice", self.wrong("archived twice"))
        self.assertIn("for no known reason: order", self.wrong("twice", "order"))
        self.assertIn("the sabotage of no-dedup never took place", self.wrong("twice", sabotaged=0))
        self.assertIn("no-dedup: stumbled", self.wrong("twice", troubles=("stumbled",)))


class ProofTests(unittest.TestCase):
    """A run without an occasion to do wrong is tried again with another seed; nothing else is."""

    def prove(self, *broken: tuple[int, list[str]], unbroken: str = "") -> tuple[list[str], list[str]]:
        """The objections, and the seeds of all runs. `broken`: sabotages and kinds found, for each run."""
        left = list(broken)
        seeds: list[str] = []

        def run(plan: Plan) -> Outcome:
            seeds.append(f"{plan.seed} {plan.build}".strip())
            sabotaged, kinds = left.pop(0) if plan.build else (0, unbroken.split())
            outcome = Outcome(plan, History(), violations=[Violation(kind, "") for kind in kinds])
            outcome.sabotaged = {"no-dedup": sabotaged}
            return outcome

        proof = Proof(None, lambda _: None)  # type: ignore[arg-type]
        self.patch(proof, "_run", run)
        return proof.prove("no-dedup", short_plan("no-dedup")), seeds

    def test_found(self) -> None:
        self.assertEqual(self.prove((3, ["twice"])), ([], ["1", "1 no-dedup"]))

    def test_no_occasion(self) -> None:
        """Another seed is tried. One unbroken run serves all."""
        wrong, seeds = self.prove((0, []), (2, []), (1, ["twice"]))
        self.assertEqual(wrong, [])
        self.assertEqual(seeds, ["1", "1 no-dedup", "1.2 no-dedup", "1.2.3 no-dedup"])

    def test_never(self) -> None:
        wrong, seeds = self.prove(*[(0, [])] * TRIES)
        self.assertEqual(len(seeds), 1 + TRIES)
        self.assertIn("no-dedup: the sabotage of no-dedup never took place", "; ".join(wrong))

    def test_not_again(self) -> None:
        """Something else that is found, or a plan that is not clean by itself, is an objection at once."""
        wrong, seeds = self.prove((0, ["order"]))
        self.assertEqual((len(seeds), "order" in "; ".join(wrong)), (2, True))
        wrong, seeds = self.prove((0, []), unbroken="lost")
        self.assertEqual((len(seeds), "lost" in "; ".join(wrong)), (2, True))


class TogetherTests(unittest.TestCase):
    def test_grouped(self) -> None:
        """Builds that share a cluster are found by kinds of their own, under all of their faults."""
        self.assertEqual(grouped(["no-dedup", "no-sweep"]), ["no-dedup", "no-sweep"])
        self.assertEqual(sorted("+".join(grouped(list(BUILDS))).split("+")), sorted(BUILDS))
        self.assertEqual(LOADS.keys() - grouped(list(BUILDS)), set())
        for names in TOGETHER:
            found = [BUILDS[name].finds for name in names.split("+")]
            self.assertEqual(len(set(found)), len(found), names)
            also = {kind for name in names.split("+") for kind in BUILDS[name].also}
            self.assertEqual(also.intersection(found), set(), names)
        self.assertEqual(short_plan("stale-loader+no-sweep").faults, ["room-cold", "room-orphan"])

    def test_verdict(self) -> None:
        """Each must have done wrong, and been found."""
        plan = short_plan("swapped-versions+tells-newcomers")
        outcome = Outcome(plan, History(), violations=[Violation("versions", "")])
        outcome.sabotaged = {"swapped-versions": 1, "tells-newcomers": 0}
        said = "; ".join(verdict("swapped-versions+tells-newcomers", outcome))
        self.assertIn("the sabotage of tells-newcomers never took place", said)
        self.assertIn("not found: newcomer", said)
        self.assertNotIn("versions never", said)

    def test_rewritten(self) -> None:
        """A script without the passage is Gone; a check rewrites nothing."""
        load = connection.load_scripts
        self.addCleanup(setattr, connection, "load_scripts", load)
        with self.assertRaisesRegex(Gone, "b: no script has 'no such passage'"):
            Seams("b", replaces=True).rewrite("no such passage", "")
        Seams("b", replaces=False).rewrite("not found[3]", "false")
        self.assertIs(connection.load_scripts, load)
        Seams("b", replaces=True).rewrite("not found[3]", "false")
        self.assertFalse(any(b"not found[3]" in text for text in connection.load_scripts().values()))


class DocumentTests(unittest.TestCase):
    def test_table(self) -> None:
        """docs/guarantees.md tells of each build what it does, under which fault, and what is found."""
        text = (ROOT / "docs" / "guarantees.md").read_text()
        found = re.findall(r"(?m)^\| `([a-z-]+)` \| (.*) \| `([a-z-]+)` \| ([a-z ]+) \| ([a-z, ]*)\|$", text)
        self.assertEqual([row for row in found if row[0] in BUILDS], [_row(*item) for item in BUILDS.items()])

    def test_faults(self) -> None:
        """Its other tables tell of each of the drill's faults."""
        text = (ROOT / "docs" / "guarantees.md").read_text()
        for name, fault in FAULTS.items():
            self.assertIn(f"| `{name}` | {fault.what} |", text)


def _row(name: str, build: Build) -> tuple[str, str, str, str, str]:
    also = ", ".join(kind for kind in KINDS if kind in build.also)
    return name, build.wrong, build.under, build.finds, also + " " * bool(also)
