"""The files that are shipped: the wheel, the constraints, the configuration files and the scripts."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from twisted.trial import unittest

import imd
from imd.config import settings
from tests.support.paths import ROOT


def run(*command: object, cwd: Path, **environment: str) -> str:
    """The output of a command; an AssertionError with it if the command fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


class FolderTests(unittest.TestCase):
    def setUp(self) -> None:
        # With spaces: what is shipped has to work in any folder.
        self.folder = Path(tempfile.mkdtemp(prefix="imd packaging "))
        self.addCleanup(shutil.rmtree, self.folder)


class WheelTests(FolderTests):
    def build(self) -> Path:
        """A wheel from a copy of the sources, so that nothing of an older build gets in."""
        source = self.folder / "source"
        source.mkdir()
        for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, source)
        ignored = shutil.ignore_patterns("__pycache__", "*.cache")
        for name in ("imd", "twisted"):
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        alone = ["--no-deps", "--no-index"]
        run(*pip, "wheel", *alone, "--no-build-isolation", "-w", self.folder, source, cwd=self.folder)
        [wheel] = self.folder.glob("*.whl")
        run(*pip, "install", *alone, "--target", self.folder / "site", wheel, cwd=self.folder)
        return wheel

    def test_installed_from_a_wheel(self) -> None:
        """The wheel holds modules, scripts, web pages and the plugin; `twistd imd` works from any folder."""
        wheel = self.build()
        inside = set(zipfile.ZipFile(wheel).namelist())
        sources = [*(ROOT / "imd").rglob("*.py"), *(ROOT / "imd").rglob("*.lua")]
        sources += (ROOT / "imd" / "web").glob("*/*")
        expected = {str(path.relative_to(ROOT)) for path in sources} | {"twisted/plugins/imd_plugin.py"}
        info = f"imd-{imd.__version__}.dist-info/"
        packed = {name for name in inside if not name.startswith(info)}
        self.assertEqual(packed, expected)
        self.assertTrue([name for name in inside if name.startswith(info) and name.endswith("LICENSE")])

        # -S leaves out an editable installation of this very folder.
        path = os.pathsep.join([str(self.folder / "site"), sysconfig.get_path("purelib")])
        python = [sys.executable, "-S"]
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        where = run(*python, "-c", "import imd; print(imd.__file__)", cwd=elsewhere, PYTHONPATH=path)
        self.assertTrue(where.startswith(str(self.folder / "site")), where)
        twistd = [*python, Path(sysconfig.get_path("scripts"), "twistd")]
        self.assertIn("instant-messaging", run(*twistd, "--help", cwd=elsewhere, PYTHONPATH=path))
        self.assertIn("--config", run(*twistd, "imd", "--help", cwd=elsewhere, PYTHONPATH=path))
        version = run(*twistd, "imd", "--version", cwd=elsewhere, PYTHONPATH=path)
        self.assertIn(imd.__version__, version)
        self.assertEqual(list(elsewhere.iterdir()), [])


def pins() -> dict[str, str]:
    """The version of each package in constraints.txt."""
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
        assert match is not None, f"not a pin: {line}"
        pinned[canonicalize_name(match[1])] = match[2]
    return pinned


def requirements() -> list[Requirement]:
    """The requirements of the project and all its extras."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = dict(config["options.extras_require"])
    text = "\n".join([config["options"]["install_requires"], *extras.values()])
    return [Requirement(line) for line in text.splitlines() if line.strip()]


class ConstraintsTests(unittest.TestCase):
    def test_pins_are_allowed(self) -> None:
        """setup.cfg allows each version that the tests run with."""
        pinned = pins()
        wrong = [
            str(one) for one in requirements() if pinned[canonicalize_name(one.name)] not in one.specifier
        ]
        self.assertEqual(wrong, [])

    def test_bounds_were_tried(self) -> None:
        """No later series is allowed of a library whose undocumented parts are used."""
        pinned = pins()
        bounds = {one.name: one.specifier for one in requirements() if one.name in ("autobahn", "twisted")}
        for name, specifier in bounds.items():
            major, minor = map(int, pinned[name].split(".")[:2])
            self.assertNotIn(f"{major}.{minor + 1}", specifier, name)
        self.assertEqual(len(bounds), 2)

    def test_everything_is_pinned(self) -> None:
        """Each package that is installed with the project and its extras has one exact version."""
        pinned = pins()
        waiting = requirements()
        needed: set[str] = set()
        while waiting:
            requirement = waiting.pop()
            name = canonicalize_name(requirement.name)
            if name in needed:
                continue
            needed.add(name)
            for further in map(Requirement, metadata.requires(name) or []):
                if further.marker is None or further.marker.evaluate({"extra": ""}):
                    waiting.append(further)
        self.assertEqual(needed - set(pinned), set(), "not in constraints.txt")
        self.assertEqual(set(pinned) - needed, set(), "nobody needs these")


class ConfigurationFileTests(unittest.TestCase):
    def test_node_ini(self) -> None:
        """The first configuration one meets is the default, written out."""
        node = settings.Node(control="unix:imd.control:mode=600")
        self.assertEqual(settings.load(str(ROOT / "etc" / "node.ini")), settings.Settings(node=node))

    def test_cluster_ini_has_every_key(self) -> None:
        """cluster.ini names each key that there is, with its default but for what makes it a cluster."""
        file = ConfigParser(interpolation=None)
        file.read(ROOT / "etc" / "cluster.ini")
        named = {(section, key) for section in file.sections() for key in file[section]}
        known = {
            (section.name, key.name)
            for section in dataclasses.fields(settings.Settings)
            for key in dataclasses.fields(getattr(settings.Settings(), section.name))
        }
        self.assertEqual(named, known)

        self.patch(os, "environ", {**os.environ, "IMD_SECRET": "s" * 48})
        loaded = dataclasses.asdict(settings.load(str(ROOT / "etc" / "cluster.ini")))
        default = dataclasses.asdict(settings.Settings())
        different = {
            f"{section}.{key}" for section, key in known if loaded[section][key] != default[section][key]
        }
        expected = {"node.backend", "node.control", "websocket.listen", "auth.mode", "auth.secret"}
        self.assertEqual(different, expected)


class ScriptTests(FolderTests):
    def test_syntax(self) -> None:
        """bash can read all scripts, and they may be run."""
        names = ("run", "test", "services", "cluster", "bench", "drill")
        scripts = [ROOT / "scripts" / name for name in names]
        for script in [*scripts, ROOT / ".ci" / "run"]:
            run("bash", "-n", script, cwd=self.folder)
            self.assertTrue(os.access(script, os.X_OK), script)

    def start_run(self, *arguments: str) -> list[str]:
        """Words that `scripts/run` gives to twistd, in a copy whose virtual environment is made of stubs."""
        copy = self.folder / "a copy"
        if not copy.exists():
            # Other processes compile modules there, into files that are renamed in the end.
            compiled = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / "scripts", copy / "scripts", ignore=compiled)
            for name in ("setup.cfg", "pyproject.toml", "constraints.txt"):
                shutil.copy(ROOT / name, copy)
            programs = copy / ".venv" / "bin"
            programs.mkdir(parents=True)
            for name in ("python", "pip"):
                (programs / name).write_text(f'#!/bin/sh\necho "$@" >>"{self.folder}/{name}.calls"\n')
            (programs / "twistd").write_text('#!/bin/sh\nfor word in "$@"; do echo "word $word"; done\n')
            for program in programs.iterdir():
                program.chmod(0o755)
        printed = run(copy / "scripts" / "run", *arguments, cwd=self.folder)
        self.assertEqual("ws://127.0.0.1:9000/ws" in printed, not arguments, printed)
        return [line.removeprefix("word ") for line in printed.splitlines() if line.startswith("word ")]

    def test_run(self) -> None:
        """It starts the project's own configuration unless another is given, installing just once."""
        first = ["-n", "--pidfile=", "imd"]
        own = str(self.folder / "a copy" / "etc" / "node.ini")
        self.assertEqual(self.start_run(), [*first, "--config", own])
        self.assertEqual(self.start_run("--config", "my own.ini"), [*first, "--config", "my own.ini"])
        self.assertEqual(self.start_run("--config=x.ini"), [*first, "--config=x.ini"])
        self.assertEqual(self.start_run("--help"), [*first, "--config", own, "--help"])
        calls = (self.folder / "python.calls").read_text()
        self.assertEqual(calls.count("pip install"), 1, calls)
