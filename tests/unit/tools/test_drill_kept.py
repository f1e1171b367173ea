"""Histories that a drill keeps."""

from __future__ import annotations

from twisted.trial import unittest

from tests.tools.drill.checker import check
from tests.tools.drill.kept import keep, main
from tests.unit.tools.test_drill_checker import Story


class KeptTests(unittest.TestCase):
    def kept(self, story: Story) -> str:
        path = keep(story.history)
        self.addCleanup(path.unlink)
        return str(path)

    def test_judged_again(self) -> None:
        """A kept history is judged as it was before."""
        good, bad = Story(), Story()
        good.good("c-1", "c-2")
        bad.stay("c-1")
        self.assertNotEqual(check(bad.history), [])
        self.assertEqual((main([self.kept(good)]), main([self.kept(good), self.kept(bad)])), (0, 1))
