"""Every build that is broken on purpose is found out, in a short drill on real servers."""

from __future__ import annotations

import os
import re
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.cluster.test_drill import backends
from tests.support.group_end import group_cache
from tests.tools.drill.broken import BUILDS
from tests.tools.drill.builds import Proof, grouped, short_plan

_notes: list[str] = []


def note(text: str) -> None:
    """Keep it for a test that fails, and for scripts/test, which names a file to print at the end."""
    _notes.append(text)
    if path := os.environ.get("IMD_TEST_NOTES"):
        with Path(path).open("a") as file:
            file.write(text + "\n")


@group_cache
def proof() -> Proof:
    return Proof(backends(), note)


class BuildTests(unittest.TestCase):
    """Each finds the kind of violation that it is named for, and the same faults unbroken find none."""

    timeout = 1800

    async def found_out(self, name: str) -> None:
        """`name`: one build, or several that share a cluster."""
        began = len(_notes)
        wrong = await deferToThread(lambda: proof().prove(name, short_plan(name)))
        self.assertEqual(wrong, [], "\n".join(_notes[began:]))

    async def test_accepted_early(self) -> None:
        """Alone: what is answered early is sent once, and so never found twice."""
        await self.found_out("accepted-early")

    async def test_hints_resends_and_the_archive(self) -> None:
        await self.found_out("skips-gaps+unpublished+no-dedup")

    async def test_cursors_order_and_marks(self) -> None:
        await self.found_out("cursor-on-send+unordered+marks-overwritten+not-compared")

    async def test_no_reset(self) -> None:
        await self.found_out("no-reset")

    async def test_gives_up(self) -> None:
        await self.found_out("gives-up")

    async def test_arrival_order(self) -> None:
        await self.found_out("arrival-order")

    async def test_overtaken(self) -> None:
        await self.found_out("overtaken")

    async def test_went_back(self) -> None:
        await self.found_out("went-back")

    async def test_left_by_a_node(self) -> None:
        """A room as it was, and an event that nobody finishes with."""
        await self.found_out("stale-loader+no-sweep")

    async def test_judged_otherwise(self) -> None:
        """Versions, resends and newcomers."""
        await self.found_out("swapped-versions+judged-anew+tells-newcomers")

    def test_none_is_left_out(self) -> None:
        """Each build has a test here, alone or with others."""
        tested = set(re.findall(r'found_out\("(.*)"\)', Path(__file__).read_text()))
        self.assertEqual(tested, set(grouped(list(BUILDS))))
