"""No sentence of the project begins with "What", "Who" or "Those", and the finder of such sentences works."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial import unittest

from tests.project.prose import Finding, is_prose, openings
from tests.support.paths import ROOT

PROJECT = (
    "imd",
    "tests",
    "docs",
    "scripts",
    "etc",
    "examples",
    "twisted",
    "README.md",
    "NEWS.md",
    "setup.cfg",
)


class FinderTests(unittest.TestCase):
    def found(self, name: str, text: str) -> list[Finding]:
        """The openings in a file of this name and text."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_text(text)
            self.assertTrue(is_prose(path), name)
            return openings(path)

    def lines(self, name: str, text: str) -> list[int]:
        return [finding.line for finding in self.found(name, text)]

    def test_docstring(self) -> None:
        """Docstrings of modules, classes and functions, and strings beneath attributes."""
        source = '''"""What a module is."""

class A:
    """A class.

    Those that call it wait.
    """

    b = 1
    """Who it is."""

    def c(self):
        """Fine. Whatever it gives is a number."""
        return "What a string says"

    def d(self):
        """Fine.

        What is below counts.
        Those on other lines, too.
        """
'''
        self.assertEqual(self.lines("a.py", source), [1, 6, 10, 13, 19, 20])

    def test_comment(self) -> None:
        """Comments on lines of their own, behind code, and over several lines; strings are left alone."""
        source = "# One line.\n# Whoever waits\n# goes on.\na = 1  # What it is\nb = '# What'\n"
        self.assertEqual(
            self.found("a.py", source),
            [Finding(2, "Whoever waits goes on."), Finding(4, "What it is")],
        )

    def test_continued(self) -> None:
        """A line of a comment that goes on with a sentence is no beginning."""
        self.assertEqual(self.lines("a.py", "# A session asks\n# What is there, and reads it.\n"), [])

    def test_lua(self) -> None:
        self.assertEqual(self.lines("a.lua", "-- What is gone.\nlocal a = 1 -- Those of others.\n"), [1, 2])

    def test_javascript(self) -> None:
        """Comments of lines and blocks, in TypeScript's declarations and style sheets too."""
        source = "// Fine.\n// Who comes.\nconst a = 1;\n/**\n * Fine.\n * What it gives: a number.\n */\n"
        self.assertEqual(self.lines("a.js", source), [2, 6])
        self.assertEqual(self.lines("a.d.ts", "/** What it is. */\n"), [1])
        self.assertEqual(self.lines("a.css", "a { color: red }\n/* Those on phones. */\n"), [2])

    def test_markdown(self) -> None:
        """Sentences, headings, items of lists, cells of tables and texts of links; not code."""
        text = (
            "# What it is\n\nFine. Whatever comes is read.\n\n- Who comes\n- [What it does](#what)\n\n"
            "| a | What b is |\n\n```\nWhat code says.\n```\n\n    What more code says.\n\nThose behind it.\n"
        )
        self.assertEqual(self.lines("a.md", text), [1, 3, 5, 6, 8, 16])

    def test_shell_and_configuration(self) -> None:
        self.assertEqual(self.lines("run", "#!/bin/sh\n# What it starts.\n"), [2])
        self.assertEqual(self.lines("a.ini", "; Those of a node.\n[node]\nname = a   ; Who it is\n"), [1, 3])
        self.assertEqual(self.lines("a.service", "# Whichever comes first.\n"), [1])

    def test_python_without_suffix(self) -> None:
        """A script of Python is read as one."""
        self.assertEqual(self.lines("run", '#!/usr/bin/env python3\n"""What it runs."""\n'), [2])

    def test_left_alone(self) -> None:
        """Questions, other words that begin so, and the same words within a sentence."""
        text = (
            "What is missing? Whole batches. Whose they are is known. A node knows what it sent, and when.\n"
        )
        self.assertEqual(self.lines("a.md", text), [])

    def test_files_left_alone(self) -> None:
        """Pictures, and folders that are no part of the project."""
        for name in ("a.png", ".venv/lib/a.py", "_trial_temp/a.py", "tests/js/node_modules/a.js"):
            self.assertFalse(is_prose(Path(name)), name)


class ProjectTests(unittest.TestCase):
    def test_no_openings(self) -> None:
        """Subject first, in all files of the project."""
        found = []
        read = 0
        for name in PROJECT:
            start = ROOT / name
            for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
                relative = path.relative_to(ROOT)
                if path.is_file() and is_prose(relative):
                    read += 1
                    found += [f"{relative}:{line}: {sentence}" for line, sentence in openings(path)]
        self.assertEqual(found, [])
        self.assertGreater(read, 300)
