"""The documents are true: their links lead somewhere, their commands are taken, their tables are complete."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from typing import get_type_hints

from twisted.scripts.twistd import ServerOptions
from twisted.trial import unittest

import imd
from imd.command.cli import make_parser
from imd.config.settings import Settings, load
from tests.project.documents import blocks, documents, headings, links
from tests.support.paths import ROOT

ARCHITECTURE = ROOT / "docs" / "architecture.md"
DECISIONS = ROOT / "docs" / "decisions"
REFERENCE = ROOT / "docs" / "reference"


def bounds(words: str) -> tuple[bool, float, float] | None:
    """The bounds of a number, as a kind of values or the reference has them. True: it is above the first."""
    found = re.search(r"(above )?(-?\d+),?(?: and up)?(?: up)? to (\d[\d.e+]*)\Z", words)
    return found and (bool(found[1]), float(found[2]), float(found[3]))


class LinkTests(unittest.TestCase):
    def test_relative_links(self) -> None:
        """Each leads to a file of the project, and to a heading if it names one."""
        for path in documents():
            for link, target, heading in links(path):
                where = f"{path.relative_to(ROOT)}: {link}"
                self.assertTrue(target.exists() and target.is_relative_to(ROOT), where)
                if heading:
                    self.assertIn(heading, headings(target.read_text()), where)

    def test_contents(self) -> None:
        """The list of headings at the top of a document names all of them, in their order."""
        for path in documents():
            text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
            listed = re.findall(r"(?m)^- \[.*\]\(#(.*)\)$", text)
            if listed:
                titles = re.findall(r"(?m)^## .*$", text)
                anchors = [anchor for title in titles for anchor in headings(title)]
                self.assertEqual(listed, anchors, path.name)

    def test_reachable(self) -> None:
        """Each file in docs/ is reached by links that begin at docs/README.md."""
        reached = {ROOT / "docs" / "README.md"}
        ahead = list(reached)
        while ahead:
            path = ahead.pop()
            if path.suffix == ".md":
                found = {target for _, target, _ in links(path) if target.is_file()} - reached
                reached |= found
                ahead += found
        there = {path for path in (ROOT / "docs").rglob("*") if path.is_file()}
        self.assertEqual(sorted(str(path.relative_to(ROOT)) for path in there - reached), [])

    def test_files_named(self) -> None:
        """Files and folders named in backquotes by their path exist."""
        pattern = r"`((?:imd|tests|docs|etc|scripts)/[\w./@-]+)`"
        for path in documents():
            for name in re.findall(pattern, path.read_text()):
                self.assertTrue((ROOT / name).exists(), f"{path.relative_to(ROOT)}: {name}")

    def test_named_in_code(self) -> None:
        """Documents that comments, messages and scripts name exist."""
        named = set()
        for folder in ("imd", "tests", "scripts", "etc", "examples"):
            for path in (ROOT / folder).rglob("*"):
                if path.suffix in (".py", ".js", ".ts", ".lua", ".ini", ".sh", "") and path.is_file():
                    names = re.findall(r"docs/[\w/-]+\.md", path.read_text(errors="replace"))
                    named |= {(name, str(path.relative_to(ROOT))) for name in names}
        self.assertGreater(len(named), 5)
        self.assertEqual([names for names in sorted(named) if not (ROOT / names[0]).exists()], [])

    def test_tests_named(self) -> None:
        """A test that a document refers to, as `module.Class.test`, is there."""
        for path in documents():
            for module, rest in re.findall(r"`(tests(?:\.\w+)*?\.test_\w+)((?:\.\w+)*)`", path.read_text()):
                where = f"{path.relative_to(ROOT)}: {module}{rest}"
                source = ROOT / f"{module.replace('.', '/')}.py"
                self.assertTrue(source.exists(), where)
                for name in filter(None, rest.split(".")):
                    self.assertRegex(source.read_text(), rf"(class|def) {name}\b", where)

    def test_decisions_are_listed(self) -> None:
        """The index of decisions has each of them, by its number and title."""
        index = (DECISIONS / "README.md").read_text()
        listed = re.findall(r"(?m)^(\d+)\. \[(.*)\]\((.*)\)$", index)
        there = []
        for path in sorted(DECISIONS.glob("[0-9]*.md")):
            title = re.match(r"# (\d+)\. (.*)\n", path.read_text())
            assert title is not None, path.name
            there.append((title[1], title[2], path.name))
        self.assertEqual(listed, there)


class ReadmeTests(unittest.TestCase):
    def test_starting_a_node(self) -> None:
        """The lines that start one, as they stand there: twistd takes their options and the configuration."""
        lines = re.findall(r"(?m)^    (twistd .*)$", (ROOT / "README.md").read_text())
        self.assertIn("twistd imd --config etc/node.ini", lines)
        for line in lines:
            options = ServerOptions()
            before = os.getcwd()
            os.chdir(ROOT)
            try:
                options.parseOptions(line.split()[1:])
            finally:
                os.chdir(before)
            self.assertEqual(options.subCommand, "imd")
            self.assertEqual(options.subOptions.settings, load(str(ROOT / "etc" / "node.ini")))


class CommandTests(unittest.TestCase):
    def test_examples(self) -> None:
        """Each line that runs `imd` has arguments that it takes; each script that a line runs is there."""
        commands, scripts = 0, 0
        for path in documents():
            for line in re.findall(r"(?m)^ {4,}(\S.*)$", path.read_text()):
                command = line.partition(" | ")[0]
                words = shlex.split(command, comments=True) if "imd " in command else command.split()
                if not words or words[0].startswith("IMD_SECRET="):
                    words = words[1:]
                if words[:4] == ["runuser", "-u", "imd", "--"]:
                    words = words[4:]
                if words and words[0].rpartition("/")[2] == "imd" and words[1:2] != ["--config"]:
                    commands += 1
                    try:
                        make_parser().parse_args(words[1:])
                    except SystemExit:
                        self.fail(f"{path.relative_to(ROOT)}: {line}")
                elif words and words[0].startswith("scripts/"):
                    scripts += 1
                    self.assertTrue((ROOT / words[0]).is_file(), f"{path.relative_to(ROOT)}: {line}")
        self.assertGreater(commands, 10)
        self.assertGreater(scripts, 10)


class CompletenessTests(unittest.TestCase):
    def test_every_key(self) -> None:
        """The reference has a row for each key, in its section's table, with its default and its values."""
        sections = re.split(r"(?m)^## ", (REFERENCE / "configuration.md").read_text())
        tables = {match[1]: part for part in sections if (match := re.match(r"`\[(\w+)\]`", part))}
        for name, section in get_type_hints(Settings).items():
            for key in dataclasses.fields(section):
                row = re.search(rf"(?m)^\| `{key.name}` \| ([^|]*) \| ([^|]*) \|", tables.get(name, ""))
                self.assertIsNotNone(row, f"[{name}] {key.name}")
                assert row is not None
                default = key.default
                if isinstance(default, bool):
                    shown = "yes" if default else "no"
                elif default in ("", ()):
                    shown = "empty"
                elif isinstance(default, (int, float)):
                    shown = f"{default:.12g}"
                else:
                    shown = default
                self.assertEqual(row[1].strip().strip("`"), shown, f"[{name}] {key.name}")
                kind = key.metadata["kind"]
                self.assertEqual(bounds(row[2]), bounds(kind.expected), f"[{name}] {key.name}")
                if kind.choices:
                    self.assertEqual(
                        re.findall(r"`(\w+)`", row[2]), list(kind.choices), f"[{name}] {key.name}"
                    )

    def test_every_metric(self) -> None:
        """The reference has a row for each metric of the code, and no others."""
        text = (REFERENCE / "metrics.md").read_text()
        rows = re.findall(r"(?m)^\| (`imd_.*?) \|", text)
        named = {name for row in rows for name in re.findall(r"`(imd_[a-z_]+)", row)}
        there = set()
        for path in (ROOT / "imd").rglob("*.py"):
            there |= set(re.findall(r"\(\s*\"(imd_[a-z_]+)\"", path.read_text()))
        self.assertEqual(named, there)
        for path in documents():
            for name in re.findall(r"`(imd_[a-z_]+)[`{]", path.read_text()):
                self.assertIn(name, there, path.name)

    def test_bounds(self) -> None:
        """The constants that the table of queues names are in their modules."""
        text = (REFERENCE / "limits.md").read_text()
        named = re.findall(r"`((?:[a-z_]+\.)+)([A-Z][A-Z_]+)`", text)
        self.assertGreater(len(named), 20)
        modules = list((ROOT / "imd").rglob("*.py"))
        for module, constant in named:
            ending = "/" + module.rstrip(".").replace(".", "/") + ".py"
            found = [path.read_text() for path in modules if str(path).endswith(ending)]
            self.assertTrue(any(re.search(rf"(?m)^{constant}\b", text) for text in found), module + constant)

    def test_every_module(self) -> None:
        """architecture.md says what each module is for, in the table of its folder, and names no others."""
        section = ARCHITECTURE.read_text().split("\n## The folders\n")[1].partition("\n## ")[0]
        folder, named = "", []
        for line in section.splitlines():
            if line.startswith("|"):
                files = re.findall(r"`([\w.]+\.(?:py|lua))`", line.split("|")[1])
                named += [folder + file for file in files]
            elif heading := re.search(r"`(imd/[\w/]*)`", line):
                folder = heading[1]
        there = [path for path in (ROOT / "imd").rglob("*.*") if path.suffix in (".py", ".lua")]
        names = [str(path.relative_to(ROOT)) for path in there if path.name != "__init__.py"]
        self.assertEqual(set(named) ^ set(names), set())

    def test_version(self) -> None:
        """NEWS.md begins with the version at hand."""
        self.assertRegex((ROOT / "NEWS.md").read_text(), rf"(?m)\A# .*\n\n## {re.escape(imd.__version__)}\b")

    def test_python_examples(self) -> None:
        """Examples in Python can be compiled."""
        for path in documents():
            for block in blocks(path.read_text()):
                if block.info == "python":
                    compile(block.text, f"{path.name}:{block.line}", "exec")
