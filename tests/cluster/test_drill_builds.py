"""Every build that is broken on purpose is found out, in a short drill on real servers."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.cluster.test_drill import backends
from tests.tools.drill.broken import BUILDS
from tests.tools.drill.builds import TOGETHER, Proof, short_plan, under

_notes: list[str] = []


def note(text: str) -> None:
    """Keep it for a test that fails, and for scripts/test, which names a file to print at the end."""
    _notes.append(text)
    if path := os.environ.get("IMD_TEST_NOTES"):
        with Path(path).open("a") as file:
            file.write(text + "\n")


@cache
def proof() -> Proof:
    return Proof(backends(), note)


class BuildTests(unittest.TestCase):
    """Each finds the kind of violation that it is named for, and the same plan unbroken finds none."""

    timeout = 600

    async def found_out(self, name: str) -> None:
        """`name`: one build, or several that share a cluster."""
        began = len(_notes)
        wrong = await deferToThread(lambda: proof().prove(name, short_plan(under(name))))
        self.assertEqual(wrong, [], "\n".join(_notes[began:]))

    async def test_accepted_early(self) -> None:
        await self.found_out("accepted-early")

    async def test_unpublished(self) -> None:
        await self.found_out("unpublished")

    async def test_cursor_on_send(self) -> None:
        await self.found_out("cursor-on-send")

    async def test_skips_gaps(self) -> None:
        await self.found_out("skips-gaps")

    async def test_no_dedup(self) -> None:
        await self.found_out("no-dedup")

    async def test_no_reset(self) -> None:
        await self.found_out("no-reset")

    async def test_unordered(self) -> None:
        await self.found_out("unordered")

    async def test_gives_up(self) -> None:
        await self.found_out("gives-up")

    async def test_arrival_order(self) -> None:
        await self.found_out("arrival-order")

    async def test_went_back(self) -> None:
        await self.found_out("went-back")

    async def test_left_by_a_node(self) -> None:
        """A room as it was, and an event that nobody finishes with."""
        await self.found_out(TOGETHER[0])

    async def test_judged_otherwise(self) -> None:
        """Versions, resends and newcomers."""
        await self.found_out(TOGETHER[1])

    def test_none_is_left_out(self) -> None:
        """Each build has a test here, alone or with others."""
        tested = {name.removeprefix("test_").replace("_", "-") for name in vars(BuildTests)}
        together = {name for group in TOGETHER for name in group.split("+")}
        self.assertEqual(len(TOGETHER), 2)
        self.assertLessEqual(set(BUILDS), tested | together)
