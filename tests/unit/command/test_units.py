"""How long systemd lets a node stop, and the advice on it."""

from __future__ import annotations

import math
from pathlib import Path

from twisted.trial import unittest

from imd.command import advice
from imd.command.findings import Level
from imd.command.units import DEFAULT_SECONDS, Unit, node_units, parse_span
from imd.config.settings import Auth, Cluster, Node, Settings, Websocket
from tests.support.paths import ROOT


class UnitTests(unittest.TestCase):
    def test_spans(self) -> None:
        for text, seconds in (
            ("20", 20),
            ("1min 30s", 90),
            ("1.5h", 5400),
            ("500ms", 0.5),
            ("infinity", math.inf),
            ("0", math.inf),
            ("", DEFAULT_SECONDS),
            ("20 parsecs", DEFAULT_SECONDS),
        ):
            self.assertEqual(parse_span(text), seconds, text)

    def test_installed(self) -> None:
        """Units and drop-ins of nodes, and no others."""
        folder = Path(self.mktemp())
        for name, text in (
            ("imd.service", "[Service]\nTimeoutStopSec=20\nTimeoutStopSec = 1min\n"),
            ("imd@.service", "[Service]\nRestart=always\n"),
            ("imd@east.service.d/more.conf", "[Service]\nTimeoutSec=15\n"),
            ("imd@east.service.d/files.conf", "[Service]\nLimitNOFILE=1\n"),
            ("imd-haproxy.service", "[Service]\nTimeoutStopSec=1\n"),
            ("other.service", "[Service]\nTimeoutStopSec=1\n"),
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        found = {str(unit.file.relative_to(folder)): unit.stop_seconds for unit in node_units(folder)}
        self.assertEqual(
            found, {"imd.service": 60, "imd@.service": DEFAULT_SECONDS, "imd@east.service.d/more.conf": 15}
        )
        self.assertEqual(list(node_units(folder / "none")), [])

    def test_the_projects_own(self) -> None:
        found = {unit.file.name: unit.stop_seconds for unit in node_units(ROOT / "etc" / "systemd")}
        self.assertEqual(found, {"imd.service": 40, "imd@.service": 40})

    def test_advice(self) -> None:
        """A warning where systemd would kill a node that stops in order."""
        units = [Unit(Path("imd.service"), 20), Unit(Path("imd@.service"), math.inf)]
        for node, count in ((Node(), 0), (Node(drain_seconds=10), 1), (Node(stop_seconds=20), 1)):
            findings = list(advice._units(Settings(node=node), units))
            self.assertEqual([finding.level for finding in findings], [Level.WARNING] * count)
            self.assertEqual(["imd.service" in finding.what for finding in findings], [True] * count)


class ProxyAdviceTests(unittest.TestCase):
    def test_everybody_is_trusted(self) -> None:
        for word, count in (("10.0.0.0/8", 0), ("0.0.0.0/0", 1), ("::/0", 1)):
            settings = Settings(websocket=Websocket(trusted_proxies=(word,)))
            found = [finding for finding in advice.advise(settings) if "trusted_proxies" in finding.what]
            self.assertEqual(len(found), count, word)

    def test_nobody_comes_through(self) -> None:
        """A gateway, or a proxy that is believed, is of no use to a node in mode open."""
        trusted = Websocket(trusted_proxies=("10.0.0.1",))
        gateway = Cluster(routing="gateway")
        for settings, count in (
            (Settings(websocket=trusted), 1),
            (Settings(cluster=gateway), 1),
            (Settings(), 0),
            (Settings(websocket=trusted, cluster=gateway, auth=Auth(mode="jwt")), 0),
        ):
            found = [finding for finding in advice.advise(settings) if "refuses everybody" in finding.what]
            self.assertEqual([finding.level for finding in found], [Level.WARNING] * count)

    def test_a_gateway_that_nobody_believes(self) -> None:
        for routing, proxies, count in (
            ("gateway", (), 1),
            ("gateway", ("10.0.0.1",), 0),
            ("search", (), 0),
        ):
            settings = Settings(
                cluster=Cluster(routing=routing),
                websocket=Websocket(trusted_proxies=proxies),
                auth=Auth(mode="jwt"),
            )
            found = [finding for finding in advice.advise(settings) if "names nobody" in finding.what]
            self.assertEqual([finding.level for finding in found], [Level.WARNING] * count, settings.cluster)
