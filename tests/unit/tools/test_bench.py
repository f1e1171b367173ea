"""The benchmark runs: not how fast, but that it measures, checks and reports."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.support.paths import ROOT
from tests.tools.bench.__main__ import options
from tests.tools.bench.chart import svg
from tests.tools.bench.clients import Wrong
from tests.tools.bench.compare import COMPARED
from tests.tools.bench.document import update
from tests.tools.bench.profile import PATHS, Samples, stage
from tests.tools.bench.report import (
    Row,
    document,
    markdown,
    ratio_at_least,
    ratio_at_most,
    rows_of,
    within,
)
from tests.tools.bench.tree import check_code, commit, worktree


def new_folder(test: unittest.TestCase) -> Path:
    """A folder that goes with the test."""
    folder = Path(tempfile.mkdtemp(prefix="imd bench "))
    test.addCleanup(shutil.rmtree, folder)
    return folder


async def measured(test: unittest.TestCase, folder: Path, *arguments: str) -> tuple[Any, str]:
    """A tiny run of the bench, with its files in this folder: what --json has, and what it printed."""
    command = [sys.executable, "-m", "tests.tools.bench", "--tiny", "--json", str(folder / "all.json")]
    done = await deferToThread(
        subprocess.run,
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    test.assertEqual(done.returncode, 0, done.stdout + done.stderr)
    return json.loads((folder / "all.json").read_text()), done.stdout


class SmokeTests(unittest.TestCase):
    timeout = 300

    async def test_tiny(self) -> None:
        """A node and the relay under load for a moment, everything counted, in JSON and as a table."""
        folder = new_folder(self)
        table = folder / "table.md"
        found, _ = await measured(self, folder, "--only", "embedded", "--markdown", str(table))
        rows = found["rows"]
        names = [row["name"] for row in rows]
        whole, parts = (
            "one-to-one-embedded-cpu-all",
            {f"one-to-one-embedded-cpu-{one}" for one in ("node", "load")},
        )
        self.assertEqual((names[0], names[-1]), (whole, "one-to-one-embedded"))
        # On a busy machine one of them may have had no tick of the processor in so short a time.
        self.assertLessEqual(set(names[1:-1]), parts)
        for row in rows:
            self.assertTrue(row["values"] and (row["reference"] or row["name"] in parts), row)
            self.assertIn(row["what"], table.read_text())
        values = {row["name"]: row["values"][0] for row in rows}
        self.assertAlmostEqual(values[whole], sum(values.get(part, 0.0) for part in parts), delta=0.2)

    async def test_nodes(self) -> None:
        """Two nodes, and two with the way of the seed: the parts of a node that it replaces are there."""
        found, _ = await measured(self, new_folder(self), "--only", "nodes")
        rows = found["rows"]
        self.assertEqual([row["name"] for row in rows], ["bus-2", "bus-cpu-2"])
        for row in rows:
            self.assertTrue(row["values"] and row["reference"], row)


class CompareTests(unittest.TestCase):
    timeout = 300

    async def test_tiny(self) -> None:
        """Another version's nodes run beside the present ones; all it leaves is ratios."""
        if not (ROOT / ".git").exists():
            raise unittest.SkipTest("these sources are no Git repository")
        folder = new_folder(self)
        compared = ["--turns", "2", "--compare", "HEAD", "--only", "one-to-one"]
        found, printed = await measured(self, folder, *compared)
        turns = [line.split()[2] for line in printed.splitlines() if line.startswith("turn ")]
        self.assertEqual(turns, ["reference", "present"] * 2)
        self.assertEqual(found["reference"], "HEAD")
        rows = {row["name"]: row for row in found["rows"]}
        for name in ("compare-one-to-one", "compare-one-to-one-cpu"):
            self.assertEqual(len(rows[name]["compared"]), 2)
        # On a busy machine a single process may have had no tick of the processor in so short a time.
        parts = [row for name, row in rows.items() if name.startswith("compare-one-to-one-cpu-")]
        self.assertTrue(parts)
        for row in parts:
            self.assertLessEqual(len(row["compared"]), len(row["values"]))
        command = ["git", "-C", str(ROOT), "worktree", "list"]
        listed = await deferToThread(subprocess.run, command, capture_output=True, text=True)
        self.assertNotIn(str(folder), listed.stdout)

    def repository(self) -> tuple[Path, Path]:
        """One whose first commit has an `imd` of its own, and an empty folder."""
        folder = new_folder(self)
        (folder / "repository" / "imd").mkdir(parents=True)
        (folder / "repository" / "imd" / "__init__.py").write_text("")
        who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
            subprocess.run(["git", "-C", folder / "repository", *words], check=True, capture_output=True)
        (folder / "place").mkdir()
        return folder / "repository", folder / "place"

    def test_worktree(self) -> None:
        """The ref's code is what a node of it would run; nothing of it stays."""
        repository, place = self.repository()
        shutil.rmtree(repository / "imd")
        with worktree("HEAD", place, repository) as tree:
            check_code(tree)
            shutil.rmtree(tree / "imd")
            with self.assertRaisesRegex(Wrong, "a node would not run the code in"):
                check_code(tree)
        self.assertEqual(list(place.iterdir()), [])

    def test_no_such_ref(self) -> None:
        """It is said, and so is a folder that is no repository."""
        repository, place = self.repository()
        with self.assertRaisesRegex(Wrong, "no such commit"):
            commit("v9.9.9", repository)
        with self.assertRaisesRegex(Wrong, "not a git repository"), worktree("HEAD", place, place):
            pass

    def test_options(self) -> None:
        """It has figures of its own, and is not written into the document."""
        self.assertEqual(options(["--compare", "v1"]).names, list(COMPARED))
        for words in (["--only", "latency"], ["--document"], ["--profile"]):
            with contextlib.redirect_stderr(io.StringIO()):
                self.assertRaises(SystemExit, options, ["--compare", "v1", *words])


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

    def test_kept(self) -> None:
        """Rows that were written as JSON are read again as they were."""
        rows = [Row("n", "what", "ms", [1.0], [2.0], within(1), ["a note"], [0.1]), Row("m", "", "")]
        self.assertEqual(rows_of(json.loads(json.dumps(document(rows, day="today")))), rows)

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

    def test_main_figure(self) -> None:
        """CPU of all processes, and its parts, whenever it was measured."""
        text = (ROOT / "docs" / "performance.md").read_text()
        whole = Row("one-to-one-cluster-cpu-all", "all", "µs/message", [60.0, 70.0, 80.0])
        part = Row("one-to-one-cluster-cpu-node", "node", "µs/message", [30.0])
        other = Row("one-to-one-apart-cpu-node", "node elsewhere", "µs/message", [999.0])
        changed = update(text, [whole, part, other], "", [], complete=False)
        section = changed.partition("<!-- cost -->\n")[2].partition("<!-- /cost -->")[0]
        self.assertEqual(
            section.splitlines()[2:],
            ["| node | 30.0 |", "| **all** | **70.0 (60.0–80.0)** |"],  # noqa: RUF001
        )


class ProfileTests(unittest.TestCase):
    def test_stages(self) -> None:
        """The innermost frame that is known decides; threads that wait do not count."""
        reactor = "thread (0x1): MainThread;main (twistd);doRead (twisted/internet/tcp.py)"
        folded = (
            f"{reactor};dataReceived (imd/wire/websocket.py);decode (imd/protocol/frames.py) 3\n"
            f"{reactor};dataReceived (pika/adapters/twisted_connection.py);_ack (x.py) 1\n"
            "thread (0x1): MainThread;main (twistd);doPoll (twisted/internet/epollreactor.py) 50\n"
            "thread (0x2): pool;insert (imd/store/mongo/write.py);encode (bson/__init__.py) 7\n"
        )
        stages = Samples.read(folded).stages(8.0, 5.0)
        self.assertEqual(stages["decode"], 6.0)
        self.assertEqual(stages["archive"], 5.0)
        self.assertEqual(sum(stages.values()), 13.0)

    def test_every_room(self) -> None:
        """A module that is new in a room on a message's path belongs to some stage."""
        for room in ("chat", "wire", "store/redis", "store/rabbit", "store/mongo", "store/embedded"):
            self.assertNotEqual(stage(f"main (twistd);call (imd/{room}/new_module.py)"), "other", room)

    def test_paths(self) -> None:
        """Each path that decides a stage is a module or a folder, with a function of that name in it."""
        for path, function in PATHS:
            if path.startswith("imd/"):
                place = ROOT / path
                files = [place] if place.suffix else list(place.rglob("*.py"))
                text = "".join(file.read_text() for file in files if file.exists())
                self.assertTrue(re.search(rf"def \w*{function}", text), f"{path}: {function}")
