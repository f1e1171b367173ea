"""The benchmark runs: not how fast, but that it measures, checks and reports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.bench.report import Row, markdown, ratio_at_least, ratio_at_most, within

ROOT = Path(__file__).resolve().parents[1]


class SmokeTests(unittest.TestCase):
    timeout = 120

    async def test_tiny(self) -> None:
        """A node and the relay under load for a moment, everything counted, in JSON and as a table."""
        folder = Path(tempfile.mkdtemp(prefix="imd bench "))
        self.addCleanup(shutil.rmtree, folder)
        command = [sys.executable, "-m", "tests.bench", "--tiny", "--only", "embedded"]
        command += ["--json", str(folder / "all.json"), "--markdown", str(folder / "table.md")]
        done = await deferToThread(
            subprocess.run, command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        rows = json.loads((folder / "all.json").read_text())["rows"]
        self.assertEqual(rows[0]["name"], "one-to-one-embedded")
        for row in rows:
            self.assertTrue(row["values"] and row["reference"], row)
            self.assertIn(row["what"], (folder / "table.md").read_text())


class ReportTests(unittest.TestCase):
    def test_goals(self) -> None:
        """A goal looks at the median of the turns' ratios or differences."""
        row = Row("n", "what", "ms", [1.0, 2.0, 9.0], [1.0, 1.0, 1.0], ratio_at_least(2))
        self.assertEqual(row.verdict, "yes")
        row.goal = ratio_at_most(1.9)
        self.assertEqual(row.verdict, "no")
        row.goal = within(1)
        self.assertEqual((row.compared, row.verdict), ([0.0, 1.0, 8.0], "yes"))

    def test_table(self) -> None:
        """The median, with the least and the most; nothing where nothing is wanted."""
        [_, _, line] = markdown([Row("n", "what", "ms", [1.0, 2.0, 9.0])]).splitlines()
        self.assertEqual(line.split("|")[1:3], [" what ", " 2.00 (1.00–9.00) ms "])  # noqa: RUF001
