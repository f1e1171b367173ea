"""The scripts and their parts, as files."""

from __future__ import annotations

import re
from importlib.resources import files

from twisted.trial import unittest

from imd.store.redis.scripts import PARTS, load_scripts

FOLDER = files("imd.store.redis") / "lua"
# Lua's limit for one function; a script's own level is one.
MAX_LOCALS = 200


class ScriptTests(unittest.TestCase):
    def test_every_file_is_used(self) -> None:
        """The folder holds the scripts and their parts, and nothing else."""
        used = {f"{name}.lua" for name in PARTS}.union(
            f"{part}.lua" for parts in PARTS.values() for part in parts
        )
        self.assertEqual({file.name for file in FOLDER.iterdir()}, used)

    def test_every_file_says_its_purpose(self) -> None:
        """The first line, behind a line of flags, is a comment."""
        for file in FOLDER.iterdir():
            lines = [line for line in file.read_text().split("\n") if not line.startswith("#!")]
            self.assertRegex(lines[0], r"^-- [A-Z].*[.:]$", file.name)

    def test_flags_come_first(self) -> None:
        """Redis reads flags from the first line of a script only."""
        for name, text in load_scripts().items():
            self.assertEqual(text.count(b"#!lua"), name != "desk", name)
            self.assertTrue(name == "desk" or text.startswith(b"#!lua"), name)

    def test_locals(self) -> None:
        """No script comes near Lua's limit of local variables."""
        for name, text in load_scripts().items():
            declared = re.findall(r"^local (?:function )?([^=(\n]+)", text.decode(), re.MULTILINE)
            count = sum(len(names.split(",")) for names in declared)
            self.assertGreater(count, 30, name)
            self.assertLess(count, MAX_LOCALS - 40, name)

    def test_all_commands_are_asked_for(self) -> None:
        """A probe asks whether Redis lets the user run each command that placing messages may take."""
        accept = load_scripts()["accept"].decode()
        used = set(re.findall(r"redis\.p?call\('([A-Z]+)'", accept))
        asked = set(re.findall(r"'([A-Z]+) k", accept))
        self.assertIn("ZADD", used)
        # TIME and INFO touch no keys.
        self.assertEqual(used - asked - {"TIME", "INFO"}, set())
