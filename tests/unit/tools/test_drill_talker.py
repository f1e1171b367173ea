"""The talkers of a rolling restart: made-up receipts are judged, and absences found."""

from __future__ import annotations

from twisted.trial import unittest

from tests.tools.drill.talker import Absence, Talker, judge


class JudgeTests(unittest.TestCase):
    def test_good(self) -> None:
        self.assertEqual(judge("bob", 3, [0, 1, 2]), [])
        self.assertEqual(judge("bob", 0, []), [])

    def test_bad(self) -> None:
        """Each kind of objection, alone."""
        for got, objection in (
            ([0, 2], "bob: lost 1 of 3, as 1"),
            ([0, 1, 1, 2], "bob: 1 came twice"),
            ([1, 0, 2], "bob: out of order"),
            ([0, 1, 2, 3], "bob: 3 was never sent"),
        ):
            self.assertEqual(judge("bob", 3, got), [objection])

    def test_late_repeat(self) -> None:
        """A message that comes again later is a repeat, and no disorder."""
        self.assertEqual(judge("bob", 3, [0, 1, 2, 0]), ["bob: 1 came twice"])


class AwayTests(unittest.TestCase):
    def test_overlaps(self) -> None:
        talker = Talker(0, "ws://127.0.0.1:1/ws", "token")
        talker.absences.append(Absence(10.0, 12.0, True))
        seen = [talker.was_away(*times) for times in ((0, 9), (0, 11), (11, 11.5), (11, 20), (13, 20))]
        self.assertEqual(seen, [False, True, True, True, False])
