"""The benchmark runs: not how fast, but that it measures, checks and reports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.bench.chart import svg
from tests.bench.document import update
from tests.bench.profile import Samples
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
        row.foreign = [0.1, 0.5, 0.6]
        self.assertEqual(row.verdict, "disturbed")

    def test_table(self) -> None:
        """The median, with the least and the most; nothing where nothing is wanted."""
        [_, _, line] = markdown([Row("n", "what", "ms", [1.0, 2.0, 9.0])]).splitlines()
        self.assertEqual(line.split("|")[1:3], [" what ", " 2.00 (1.00–9.00) ms "])  # noqa: RUF001

    def test_chart(self) -> None:
        """It is XML, with what there is."""
        rows = [
            Row("one-to-one-embedded", "", "", [5.0, 6.0], [10.0, 9.0]),
            Row("bus-2", "", "", [0.5], [0.5]),
            Row("bus-4", "", "", [0.5], [2.5]),
        ]
        root = ElementTree.fromstring(svg(rows))
        texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
        self.assertIn("embedded: 6", texts)
        self.assertIn("2.50", texts)
        ElementTree.fromstring(svg([]))


class DocumentTests(unittest.TestCase):
    def test_one_figure(self) -> None:
        """A figure that is measured alone renews its line in the table, and nothing else."""
        old = markdown([Row("group", "a list", "ms", [1.0]), Row("across", "two nodes", "ms", [2.0])])
        rows = [Row("group", "a list", "ms", [7.0]), Row("x", "no such", "ms", [3.0])]
        self.assertEqual(update(old, rows, "", [], False), old.replace("1.00", "7.00"))

    def test_sections(self) -> None:
        """The table comes from a whole run only, the stages whenever there are some; the rest stays."""
        text = (ROOT / "docs" / "performance.md").read_text()
        figure = Row("across", "a figure", "ms", [1.0])
        stage = Row("embedded-stage-decode", "", "µs/message", [2.5])
        changed = update(text, [figure, stage], "About.", [(0.5, 0.25)], complete=True)
        for line in ("| a figure | 1.00 ms |", "About.\n", "other work had 50%", "| decode |  | 2.50 |"):
            self.assertIn(line, changed)
        again = update(changed, [stage, figure], "", [], complete=False)
        self.assertEqual(again, changed)
        self.assertRaises(ValueError, update, "no markers", [stage], "", [], False)


class ProfileTests(unittest.TestCase):
    def test_stages(self) -> None:
        """The innermost frame that is known decides; threads that wait do not count."""
        reactor = "thread (0x1): MainThread;main (twistd);doRead (twisted/internet/tcp.py)"
        folded = (
            f"{reactor};dataReceived (imd/websocket.py);decode (imd/frames.py) 3\n"
            f"{reactor};dataReceived (pika/adapters/twisted_connection.py);_ack (x.py) 1\n"
            "thread (0x1): MainThread;main (twistd);doPoll (twisted/internet/epollreactor.py) 50\n"
            "thread (0x2): pool;insert (imd/backends/mongo_write.py);encode (bson/__init__.py) 7\n"
        )
        stages = Samples.read(folded).stages(8.0, 5.0)
        self.assertEqual(stages["decode"], 6.0)
        self.assertEqual(stages["archive"], 5.0)
        self.assertEqual(sum(stages.values()), 13.0)
