"""scripts/test: what it counts, how it repeats itself, and what it tells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial import unittest

from scripts.lib.suite import NOTES, Suite, busy_loops, failed_tests, is_busy, options
from scripts.lib.summary import Summary, summarize
from tests.support.paths import ROOT
from tests.support.servers import wait_until

TRIAL = ROOT / "scripts" / "lib" / "trial.py"
BAD = """
from twisted.trial import unittest

class OneTests(unittest.TestCase):
    def test_good(self): pass
    def test_bad(self): self.assertEqual(1, 2)
    def test_error(self): raise ValueError("a.b.c")
    def test_skipped(self): raise unittest.SkipTest("no.such.thing")
"""

SLOW = """
import os, time
from pathlib import Path
from twisted.trial import unittest

class OneTests(unittest.TestCase):
    def test_slow(self):
        Path(os.environ["SLOW_PID"]).write_text(f"{os.getpid()}\\n")
        time.sleep(600)
"""


class SummaryTests(unittest.TestCase):
    def test_all_well(self) -> None:
        """Successes are counted, from the last verdict there is."""
        output = "PASSED (successes=9)\n...\nRan 3 tests in 0.1s\n\nPASSED (successes=3)\n"
        summary = summarize(0, output)
        self.assertEqual(summary, Summary(3, 0, 0, []))
        self.assertEqual(str(summary), "3 passed, 0 failed")

    def test_failures(self) -> None:
        """Errors count as failures; what was skipped is said."""
        summary = summarize(1, "FAILED (skips=1, failures=2, errors=3, successes=4)\n")
        self.assertEqual(str(summary), "4 passed, 5 failed, 1 skipped")

    def test_nothing_tested(self) -> None:
        """No verdict, no tests, or an exit code that nothing explains: failed."""
        for code, output, said in (
            (0, "PASSED\n", "0 passed, 1 failed"),
            (139, "Segmentation fault\n", "0 passed, 1 failed"),
            (1, "PASSED (successes=2)\n", "2 passed, 1 failed"),
        ):
            summary = summarize(code, output)
            self.assertEqual(str(summary), said)
            self.assertEqual(len(summary.reasons), 1)


class FailedTests(unittest.TestCase):
    def test_named(self) -> None:
        """Failed tests are found in the output, skipped ones are not; the times of groups are noted."""
        folder = tempfile.mkdtemp(prefix="imd-suite-")
        self.addCleanup(shutil.rmtree, folder)
        Path(folder, "bad_module.py").write_text(BAD)
        done = subprocess.run(
            [sys.executable, str(TRIAL), "-j", "2", "bad_module"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder, NOTES: str(Path(folder, "notes"))},
            capture_output=True,
            text=True,
            timeout=300,
        )
        output = done.stdout + done.stderr
        names = {f"bad_module.OneTests.test_{word}" for word in ("bad", "error")}
        failed = failed_tests(output)
        self.assertEqual(failed.keys(), names, output)
        self.assertEqual(failed["bad_module.OneTests.test_error"][-1], "builtins.ValueError: a.b.c")
        self.assertEqual(summarize(done.returncode, output), Summary(1, 2, 1, []))
        self.assertRegex(Path(folder, "notes").read_text(), r"\Alongest groups: bad_module \d+ s\n\Z")


class SuiteTests(unittest.TestCase):
    def report(
        self, *summaries: Summary, failures: tuple[str, ...] = (), reasons: dict[str, list[str]] | None = None
    ) -> tuple[list[str], int]:
        suite = Suite({"install": 2.4})
        suite.took["trial"] = 61.0
        suite.summaries = list(summaries)
        suite.failures.update(failures)
        suite.reasons = reasons or {}
        return suite.report()

    def test_one_run(self) -> None:
        """The time of each stage, and the count as the last line."""
        lines, code = self.report(Summary(3, 0, 1, []))
        self.assertEqual(
            lines, ["times: install 2 s, trial 61 s", "in all 63 s", "3 passed, 0 failed, 1 skipped"]
        )
        self.assertEqual(code, 0)

    def test_several_runs(self) -> None:
        """How many runs were good, how often each test failed, and why at the end."""
        bad = Summary(2, 1, 0, [])
        none = Summary(0, 1, 0, ["trial ended with 9 and without a verdict"])
        lines, code = self.report(
            *(Summary(3, 0, 0, []), bad, bad, none),
            failures=("t.a", "t.a", "t.b"),
            reasons={"t.a": ["because"]},
        )
        self.assertEqual(code, 1)
        self.assertEqual(
            lines[:5],
            [
                "run 4: trial ended with 9 and without a verdict",
                "1 of 4 runs without a failure",
                "failed in 2 of 4: t.a",
                "    because",
                "failed in 1 of 4: t.b",
            ],
        )
        self.assertEqual(lines[-1], "7 passed, 3 failed")

    def test_failed_check(self) -> None:
        """A check that fails by its exit code counts as one."""
        suite = Suite({})
        suite.check("ruff", "no-such-command")
        suite.check("mypy", "--version")
        suite.summaries = [Summary(1, 0, 0, [])]
        lines, code = suite.report()
        self.assertEqual((lines[0], lines[-1], code), ("ruff failed", "1 passed, 1 failed", 1))
        self.assertEqual(list(suite.took), ["ruff", "mypy"])

    def test_options(self) -> None:
        """All words but the script's own options go to trial."""
        words = ["--times", "3", "--busy", "--took", "install=7", "-u", "tests.unit.protocol.test_ids"]
        ours, rest = options(words)
        self.assertEqual((ours.times, ours.busy, ours.took), (3, True, [("install", 7.0)]))
        self.assertEqual(rest, ["-u", "tests.unit.protocol.test_ids"])
        self.assertEqual(options([])[1], ["tests"])


class EndedTests(unittest.TestCase):
    def test_nothing_goes_on(self) -> None:
        """Ended in the middle, it takes with it what runs the tests."""
        folder = Path(tempfile.mkdtemp(prefix="imd-suite-"))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "slow_module.py").write_text(SLOW)
        code = (
            "import signal; from scripts.lib.suite import Suite\n"
            "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
            f"Suite({{}}).trial('trial', ['--temp-directory', {str(folder / 'temp')!r}, 'slow_module'])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "SLOW_PID": str(folder / "pid")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        pid = folder / "pid"
        wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"), 180, "the test runs")
        worker = Path("/proc", pid.read_text().strip())
        self.assertTrue(worker.exists())
        process.terminate()
        wait_until(lambda: process.poll() is not None, 180, "it ends")
        wait_until(lambda: not worker.exists(), 180, "its worker ends")


class BusyTests(unittest.TestCase):
    def test_which(self) -> None:
        """Half of the runs, and a single one."""
        self.assertEqual([is_busy(run, 4, True) for run in range(1, 5)], [False, True, False, True])
        self.assertEqual([is_busy(run, 4, False) for run in range(1, 5)], [False] * 4)
        self.assertTrue(is_busy(1, 1, True))

    def test_loops(self) -> None:
        """One for each core that really runs; none is left behind, whatever happens meanwhile."""
        found: list[int] = []
        with self.assertRaises(KeyError), busy_loops(True):
            deadline = time.monotonic() + 180
            while len(found) < len(os.sched_getaffinity(0)) or min(map(_ticks, found)) < 10:
                found = _busy_children()
                self.assertLess(time.monotonic(), deadline, "they run")
                time.sleep(0.02)
            raise KeyError
        self.assertEqual(_busy_children(), [])
        with busy_loops(False):
            self.assertEqual(_busy_children(), [])


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _ticks(pid: int) -> int:
    return int(_stat(pid)[11])


def _busy_children() -> list[int]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                command = Path(entry.path, "cmdline").read_bytes()
                if int(_stat(int(entry.name))[1]) == os.getpid() and b"while os.getppid()" in command:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
