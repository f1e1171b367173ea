"""The allowed imports follow from the folders: a folder knows the folders above it, and never one below."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from twisted.trial import unittest

from tests.support.paths import ROOT

# From the words that everybody knows down to what is known by nobody.
FOLDERS = (
    "protocol",
    "contracts",
    "observe",
    "config",
    "gateway",
    "entry",
    "wire",
    "chat",
    "desk",
    "ops",
    "store",
    "node",
    "tap",
    "client",
    "command",
)
# Folders that know less than all that is above them.
KNOWS_ONLY = {
    "store": {"protocol", "contracts", "observe", "gateway"},
    "client": {"protocol"},
    "node": set(FOLDERS[: FOLDERS.index("node")]) - {"store"},
}
# The places that a library may be imported from. The command may import anything.
HOMES = {
    "autobahn": ("imd.wire", "imd.client.twisted"),
    "txredisapi": ("imd.store.redis",),
    "hiredis": ("imd.store.redis",),
    "pika": ("imd.store.rabbit", "imd.store.archiver"),
    "pymongo": ("imd.store.mongo",),
    "bson": ("imd.store.mongo",),
    "websockets": ("imd.client.asyncio",),
    "regex": ("imd.protocol.grapheme",),
}
# Parts of `store/` that join others, and those that they know beside the shared ones.
JOINED_STORES = {
    "archiver": {"rabbit", "mongo"},
    "blocks": {"mongo", "redis"},
    "rooms": {"mongo", "redis"},
    "state": {"mongo"},
}
REACTOR = "twisted.internet.reactor"


class Import(NamedTuple):
    """`name` is the full name of what is imported, by `module` of the project."""

    module: str
    name: str


def imports_of(source: str, package: str) -> set[str]:
    """Full names of everything that a module's source imports, anywhere in it.

    `from a import b` gives `a` and `a.b`, as b may be a module. `package` is the one the module is in.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def project_modules() -> dict[str, set[str]]:
    """Each module of imd, by full name, and what it imports."""
    modules = {}
    for path in sorted((ROOT / "imd").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        package = ".".join(parts[:-1])
        name = package if parts[-1] == "__init__" else ".".join(parts)
        modules[name] = imports_of(path.read_text(), package)
    return modules


def folder_of(module: str) -> str:
    """The folder that a module of the project is in; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def is_inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


class ImportFinderTests(unittest.TestCase):
    def test_all_ways_to_import(self) -> None:
        """Plain, from, relative and late imports are all seen."""
        source = (
            "import pika.channel\nfrom twisted.internet import reactor\nfrom . import errors\n"
            "from .lua import x\nfrom ..ids import y\ndef f():\n    import sqlite3\n"
        )
        found = imports_of(source, "imd.store")
        expected = {"pika.channel", REACTOR, "imd.store.errors", "imd.store.lua.x", "imd.ids.y", "sqlite3"}
        self.assertLessEqual(expected, found)


class FolderTests(unittest.TestCase):
    def setUp(self) -> None:
        self.modules = project_modules()

    def imports(self) -> Iterator[Import]:
        for module, names in self.modules.items():
            for name in sorted(names):
                yield Import(module, name)

    def own_imports(self) -> Iterator[tuple[Import, str, str]]:
        """Imports of one folder from another, with the names of both."""
        for one in self.imports():
            here, there = folder_of(one.module), folder_of(one.name) if is_inside(one.name, "imd") else ""
            if here and there in FOLDERS and here != there:
                yield one, here, there

    def test_each_folder_has_its_place(self) -> None:
        """A new folder takes its place in the order."""
        folders = {folder_of(module) for module in self.modules} - {""}
        self.assertEqual(folders, set(FOLDERS))

    def test_imports_point_up(self) -> None:
        wrong = [one for one, here, there in self.own_imports() if FOLDERS.index(there) > FOLDERS.index(here)]
        self.assertEqual(wrong, [])

    def test_folders_that_know_less(self) -> None:
        """Stores know contracts only, and clients know the protocol only."""
        wrong = [
            one for one, here, there in self.own_imports() if there not in KNOWS_ONLY.get(here, set(FOLDERS))
        ]
        self.assertEqual(wrong, [])

    def test_stores_do_not_know_one_another(self) -> None:
        """Each folder of `store/` knows its own modules and the shared ones, and these know no folder."""
        folders = {path.name for path in (ROOT / "imd" / "store").iterdir() if path.is_dir()}
        wrong = []
        for one in self.imports():
            if is_inside(one.module, "imd.store") and is_inside(one.name, "imd.store"):
                here, there = (*one.module.split("."), "")[2], (*one.name.split("."), "")[2]
                if there in folders and there not in {here, *JOINED_STORES.get(here, ())}:
                    wrong.append(one)
        self.assertEqual(wrong, [])

    def test_only_tap_and_the_command_know_stores(self) -> None:
        wrong = [
            one
            for one, here, there in self.own_imports()
            if there == "store" and here not in ("store", "tap", "command")
        ]
        self.assertEqual(wrong, [])

    def test_nobody_knows_tap_and_the_command(self) -> None:
        wrong = [one for one, _, there in self.own_imports() if there in ("tap", "command")]
        self.assertEqual(wrong, [])

    def test_libraries_have_homes(self) -> None:
        """Each driver is imported in one folder."""
        wrong = [
            one
            for one in self.imports()
            if (homes := HOMES.get(one.name.partition(".")[0]))
            and not any(is_inside(one.module, home) for home in homes)
            and folder_of(one.module) != "command"
        ]
        self.assertEqual(wrong, [])

    def test_the_reactor_is_passed_in(self) -> None:
        """Clocks and reactors are arguments; they enter in tap, the command and a client's shell.

        The embedded backend asks for it when nobody gives it one.
        """
        places = ("imd.tap", "imd.command", "imd.client.twisted", "imd.store.embedded.backend")
        wrong = [
            one
            for one in self.imports()
            if one.name == REACTOR and not any(is_inside(one.module, place) for place in places)
        ]
        self.assertEqual(wrong, [])

    def test_clients_core_has_no_io(self) -> None:
        """Only the shells know a network library, and only the alarms of the one a thread."""
        shells = ("imd.client.asyncio", "imd.client.twisted", "imd.client.alarm")
        outside = {"asyncio", "twisted", "autobahn", "websockets", "socket", "threading"}
        wrong = [
            one
            for one in self.imports()
            if folder_of(one.module) == "client"
            and one.module not in shells
            and one.name.partition(".")[0] in outside
        ]
        self.assertEqual(wrong, [])

    def test_no_cycles(self) -> None:
        """No module imports itself by a detour."""
        own = set(self.modules)
        graph = {module: (imports & own) - {module, "imd"} for module, imports in self.modules.items()}
        # A package's own modules name the package when they import from it.
        graph = {module: names - {module.rpartition(".")[0]} for module, names in graph.items()}
        while free := [module for module, names in graph.items() if not names]:
            graph = {module: names.difference(free) for module, names in graph.items() if module not in free}
        self.assertEqual(graph, {}, "these import one another")
