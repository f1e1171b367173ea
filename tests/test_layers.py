"""Imports point one way: the domain knows no driver and no reactor, and only imd.tap knows a backend."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

from twisted.trial import unittest

ROOT = Path(__file__).resolve().parents[1]

STORE_DRIVERS = {"txredisapi", "hiredis", "redis", "pika", "pymongo", "bson", "sqlite3"}
DRIVERS = STORE_DRIVERS | {"autobahn"}
# What a backend may know of the project, besides other backends.
BACKENDS_MAY_KNOW = {"imd"} | {
    f"imd.{name}" for name in ("errors", "ids", "interfaces", "message", "metrics", "seldom", "trace")
}
# Modules that begin with these are edges: what clients reach. Whatever has no layer of its own is domain.
EDGES = ("imd.websocket", "imd.listener", "imd.lean", "imd.http", "imd.pages", "imd.control")


def layer_of(module: str) -> str:
    """Which layer a module of the project belongs to."""
    if module.startswith("imd.backends"):
        return "backend"
    if module.startswith(("imd.client", "imd.command")):
        return module.split(".")[1]
    if module in ("imd.tap", "imd.node"):
        return module.removeprefix("imd.")
    return "edge" if module.startswith(EDGES) else "domain"


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


def top(name: str) -> str:
    return name.partition(".")[0]


class ImportFinderTests(unittest.TestCase):
    def test_all_ways_to_import(self) -> None:
        """Plain, from, relative and late imports are all seen."""
        source = (
            "import pika.channel\nfrom twisted.internet import reactor\nfrom . import errors\n"
            "from .lua import x\nfrom ..ids import y\ndef f():\n    import sqlite3\n"
        )
        found = imports_of(source, "imd.backends")
        expected = {"pika.channel", "twisted.internet.reactor", "imd.backends.errors", "sqlite3"}
        self.assertLessEqual(expected | {"imd.backends.lua.x", "imd.ids.y"}, found)


class LayerTests(unittest.TestCase):
    def setUp(self) -> None:
        self.modules = project_modules()
        self.own = set(self.modules)

    def violations(self, layers: set[str], forbidden: Callable[[str], bool]) -> list[str]:
        """`module imports what`, for modules of these layers and what `forbidden` is true of."""
        return [
            f"{module} imports {name}"
            for module, imports in self.modules.items()
            if layer_of(module) in layers
            for name in sorted(imports)
            if forbidden(name)
        ]

    def test_modules_are_found(self) -> None:
        """The rules below are about something."""
        self.assertIn("imd.interfaces", self.own)
        self.assertIn("imd.backends", self.own)

    def test_domain_knows_no_driver(self) -> None:
        """Domain modules and the node import none of the libraries that talk to something outside."""
        self.assertEqual(self.violations({"domain", "node"}, lambda name: top(name) in DRIVERS), [])

    def test_stores_are_behind_backends(self) -> None:
        """Only backends import the drivers of stores and of the bus."""
        layers = {"domain", "edge", "node", "tap"}
        self.assertEqual(self.violations(layers, lambda name: top(name) in STORE_DRIVERS), [])
        self.assertEqual(self.violations({"backend"}, lambda name: top(name) == "autobahn"), [])

    def test_reactor_is_passed_in(self) -> None:
        """Domain, edges and node do not import the global reactor: clocks and reactors are arguments."""
        layers = {"domain", "edge", "node"}
        self.assertEqual(self.violations(layers, lambda name: name == "twisted.internet.reactor"), [])

    def test_backends_know_interfaces_only(self) -> None:
        """Backends import the interfaces and what those are made of, and one another."""

        def forbidden(name: str) -> bool:
            return name in self.own and name not in BACKENDS_MAY_KNOW and not name.startswith("imd.backends")

        self.assertEqual(self.violations({"backend"}, forbidden), [])

    def test_only_tap_names_backends(self) -> None:
        """Which class implements an interface is decided in one place."""
        layers = {"domain", "edge", "node"}
        self.assertEqual(self.violations(layers, lambda name: name.startswith("imd.backends")), [])

    def test_imports_point_down(self) -> None:
        """domain ← edge ← node ← tap: nobody imports from above itself."""
        order = ["domain", "edge", "node", "tap"]
        for height, layer in enumerate(order):
            above = {module for module in self.own if layer_of(module) in order[height + 1 :]}
            self.assertEqual(self.violations({layer}, above.__contains__), [])

    def test_clients_know_no_daemon(self) -> None:
        """A client can be taken along alone: it imports the codes of errors, and nothing of the daemon."""

        def forbidden(name: str) -> bool:
            return name in self.own - {"imd", "imd.errors"} and not name.startswith("imd.client")

        self.assertEqual(self.violations({"client"}, forbidden), [])
        layers = {"domain", "edge", "node", "tap", "backend"}
        self.assertEqual(self.violations(layers, lambda name: name.startswith("imd.client")), [])

    def test_nobody_needs_the_command(self) -> None:
        """The command looks at everything; nothing looks at it."""
        layers = {"domain", "edge", "node", "tap", "backend", "client"}
        self.assertEqual(self.violations(layers, lambda name: name.startswith("imd.command")), [])

    def test_clients_core_has_no_io(self) -> None:
        """Only the shells know a network library, and only the alarms of the one a thread."""
        shells = ("imd.client.asyncio", "imd.client.twisted", "imd.client.alarm")
        self.modules = {name: found for name, found in self.modules.items() if name not in shells}
        outside = {"asyncio", "twisted", "autobahn", "websockets", "socket", "threading"}
        self.assertEqual(self.violations({"client"}, lambda name: top(name) in outside), [])

    def test_no_cycles(self) -> None:
        """No module imports itself by a detour."""
        graph = {module: (imports & self.own) - {module, "imd"} for module, imports in self.modules.items()}
        # A package's own modules name the package when they import from it.
        graph = {module: names - {module.rpartition(".")[0]} for module, names in graph.items()}
        while free := [module for module, names in graph.items() if not names]:
            graph = {
                module: names.difference(free) for module, names in graph.items() if module not in free
            }
        self.assertEqual(graph, {}, "these import one another")
