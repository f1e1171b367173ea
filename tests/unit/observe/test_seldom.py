"""Lines about lasting trouble are few, and say how many were left out."""

from __future__ import annotations

from twisted.logger import Logger, formatEvent
from twisted.python.failure import Failure
from twisted.trial import unittest

from imd.observe import seldom
from imd.observe.seldom import Seldom


class SeldomTests(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.levels: list[str] = []
        self.seldom = Seldom(Logger(observer=self.observe), lambda: self.now)

    def observe(self, event: dict[str, object]) -> None:
        self.lines.append(formatEvent(event))
        self.levels.append(event["log_level"].name)  # type: ignore[attr-defined]

    def test_a_cause_now_and_then(self) -> None:
        """A cause a hundred times a second, for two minutes, gives three lines that count the others."""
        for tick in range(12_001):
            self.now = tick / 100
            self.seldom.warn("a batch failed: {reason}", reason="redis: full")
        said = "a batch failed: redis: full"
        more = " (5999 more since the last such line)"
        self.assertEqual(self.lines, [said, said + more, said + more])

    def test_causes_are_apart(self) -> None:
        """Another cause has its own lines. A line with other numbers has the same cause."""
        for reason in ("full, 10 bytes", "busy", "full, 20 bytes"):
            self.seldom.error("a batch failed: {reason}", reason=reason)
        self.assertEqual(self.lines, ["a batch failed: full, 10 bytes", "a batch failed: busy"])
        self.seldom.info("{who} is back", cause="back", who="one")
        self.seldom.info("{who} is back", cause="back", who="another")
        self.assertEqual(self.lines[2:], ["one is back"])
        self.assertEqual(self.levels, ["error", "error", "info"])

    def test_failures(self) -> None:
        """The cause of a failure is the exception's type, not its text."""
        for error in (ValueError("a"), ValueError("b"), KeyError("a")):
            self.seldom.failure("{what} failed", Failure(error), what="it")
        self.assertEqual(len(self.lines), 2)
        self.assertEqual(self.levels, ["critical", "critical"])

    def test_causes_without_end(self) -> None:
        """Past the bound causes share a line; old causes make room."""
        self.patch(seldom, "MAX_CAUSES", 3)
        for name in "abcdefgh":
            self.seldom.warn("no: {name}", name=name)
        self.assertEqual(self.lines, ["no: a", "no: b", "no: c", "no: d"])
        self.now = seldom.SECONDS
        self.seldom.warn("no: {name}", name="h")
        self.assertEqual(self.lines[4:], ["no: h"])
