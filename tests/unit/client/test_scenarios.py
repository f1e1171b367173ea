"""The Python core plays the scenarios that imd.js plays, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial import unittest

from tests.support.paths import ROOT
from tests.unit.client.player import Player


class ScenarioTests(unittest.TestCase):
    """A test for each file, which plays all of its scenarios."""

    def play(self, path: Path) -> None:
        failed = []
        for scenario in json.loads(path.read_text()):
            try:
                Player(scenario, Path(self.mktemp())).play()
            except AssertionError as error:
                failed.append(str(error))
        self.assertEqual(failed, [], "\n".join(failed))


def _test(path: Path) -> Any:
    def test(self: ScenarioTests) -> None:
        self.play(path)

    return test


for _path in sorted((ROOT / "tests" / "scenarios").glob("*.json")):
    setattr(ScenarioTests, f"test_{_path.stem}", _test(_path))
