"""The systemd units: sound, hardened, and in step with the configuration."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from configparser import RawConfigParser
from pathlib import Path

from twisted.trial import unittest

from imd.config.settings import Settings
from tests.support.paths import ROOT

UNITS = ROOT / "etc" / "systemd"
NAMES = ("imd.service", "imd@.service")


def read_unit(name: str, *without: str) -> RawConfigParser:
    """A unit's sections and directives, their case kept; those not left out are there once."""
    unit = RawConfigParser(comment_prefixes=("#",), delimiters=("=",))
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    lines = (UNITS / name).read_text().splitlines()
    unit.read_string("\n".join(line for line in lines if line.partition("=")[0] not in without))
    return unit


class UnitTests(unittest.TestCase):
    def test_systemd_accepts_them(self) -> None:
        """systemd-analyze finds nothing to say; where it is not installed, the syntax at least is right."""
        analyze = shutil.which("systemd-analyze")
        true = shutil.which("true")
        assert true is not None
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        for name in NAMES:
            if analyze is None:
                self.assertEqual(read_unit(name).sections(), ["Unit", "Service", "Install"])
                continue
            # It wants the program to exist, and a template to be an instance.
            text = (UNITS / name).read_text()
            for program in ("twistd", "imd"):
                text = text.replace(f"/opt/imd/bin/{program} ", f"{true} ")
            copy = folder / name.replace("@.", "@east.")
            copy.write_text(text)
            done = subprocess.run(
                [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=180
            )
            said = [line for line in done.stderr.splitlines() if copy.name in line]
            self.assertEqual((done.returncode, said), (0, []), done.stderr)

    def test_command(self) -> None:
        """twistd stays in the foreground, writes no pid file, logs to the journal and reads /etc/imd."""
        for name, config in (("imd.service", "node"), ("imd@.service", "%i")):
            command = read_unit(name)["Service"]["ExecStart"]
            expected = f"twistd --nodaemon --pidfile= --logfile=- imd --config /etc/imd/{config}.ini"
            self.assertTrue(command.endswith(expected), command)
            before = read_unit(name)["Service"]["ExecStartPre"]
            self.assertTrue(before.endswith(f"/imd check --quiet /etc/imd/{config}.ini"), before)

    def test_started_for_ever(self) -> None:
        """However often it ends, and however: nothing makes systemd give up on any unit."""
        names = sorted(file.name for file in UNITS.iterdir())
        self.assertEqual({name.rpartition(".")[2] for name in names}, {"service"})
        self.assertLess({*NAMES}, {*names})
        for name in names:
            unit = read_unit(name, "ExecReload")
            self.assertEqual(unit["Unit"]["StartLimitIntervalSec"], "0", name)
            self.assertNotIn("StartLimitBurst", unit["Unit"], name)
            self.assertEqual(unit["Service"]["Restart"], "always", name)
            self.assertEqual(unit["Service"]["RestartSec"], "2", name)

    def test_time_to_stop(self) -> None:
        """systemd waits for longer than the node takes to drain and to stop."""
        node = Settings().node
        for name in NAMES:
            seconds = float(read_unit(name)["Service"]["TimeoutStopSec"])
            self.assertGreater(seconds, node.stop_seconds + node.drain_seconds)

    def test_files_suffice(self) -> None:
        """The limit on open files leaves room for all connections that the limits allow."""
        for name in NAMES:
            self.assertGreater(int(read_unit(name)["Service"]["LimitNOFILE"]), Settings().limits.connections)

    def test_same_but_for_the_instance(self) -> None:
        """Plain unit and template differ in nothing but where configuration and state are."""
        plain, template = (read_unit(name)["Service"] for name in NAMES)
        different = {key for key in {*plain, *template} if plain.get(key) != template.get(key)}
        self.assertEqual(different, {"ExecStart", "ExecStartPre", "StateDirectory", "WorkingDirectory"})

    def test_hardened(self) -> None:
        """A user of its own, no way to more rights, nothing writable but its state."""
        service = read_unit("imd.service")["Service"]
        expected = {
            "User": "imd",
            "NoNewPrivileges": "yes",
            "CapabilityBoundingSet": "",
            "ProtectSystem": "strict",
            "ProtectHome": "yes",
            "PrivateTmp": "yes",
            "PrivateDevices": "yes",
            "StateDirectory": "imd",
            "Restart": "always",
            "ExecReload": "/bin/kill -HUP $MAINPID",
            "UMask": "0077",
        }
        self.assertEqual({key: service.get(key) for key in expected}, expected)
