"""Looks at whether a message would be accepted: what they find, and for how long it counts."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.ops.readiness import READY, SLOW_SECONDS, STEADY_SECONDS, Readiness
from imd.protocol.errors import Unavailable


class ReadinessTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Deferred[int]] = []
        self.others: dict[str, str] = {}
        self.looks: list[tuple[str, float | None]] = []
        self.readiness = Readiness(
            self.clock,
            {"inbox": self.probe},
            lambda: dict(self.others),
            lambda *look: self.looks.append(look),
        )
        self.readiness.start()
        self.addCleanup(self.readiness.stop)

    def probe(self) -> Deferred[int]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def well(self, run: int = 1) -> None:
        self.asked[-1].callback(run)

    def ill(self, reason: str = "redis: full") -> None:
        self.asked[-1].errback(Unavailable(reason))

    def pass_seconds(self, seconds: int, *, well: bool = True) -> None:
        """One look a second, each answered at once."""
        for _ in range(seconds):
            self.clock.advance(1)
            if well:
                self.well()
            else:
                self.ill()

    def test_named_and_over(self) -> None:
        """A look that fails names the reason; it is over two seconds after the last that did."""
        self.well()
        self.assertEqual(self.readiness.problems(), {})
        self.pass_seconds(3, well=False)
        self.assertEqual(self.readiness.problems(), {"inbox": "redis: full"})
        self.assertEqual(READY._value.get(), 0)
        self.pass_seconds(int(STEADY_SECONDS) - 1)
        self.assertEqual(self.readiness.problems(), {"inbox": "redis: full"})
        self.pass_seconds(1)
        self.assertEqual(self.readiness.problems(), {})
        self.pass_seconds(1)
        self.assertEqual(READY._value.get(), 1)

    def test_looks_are_told(self) -> None:
        """Each one when it has ended, and one without an answer each second."""
        self.well()
        self.pass_seconds(1, well=False)
        self.pass_seconds(1)
        self.assertEqual(self.looks, [("inbox", None), ("inbox", 1.0), ("inbox", None)])
        self.looks.clear()
        self.clock.pump([1] * 5)
        self.assertEqual(self.looks, [("inbox", 3.0)] * 2)

    def test_every_other_look_fails(self) -> None:
        """In between it is not well."""
        for _ in range(5):
            self.pass_seconds(1, well=False)
            self.pass_seconds(1)
            self.assertEqual(self.readiness.problems(), {"inbox": "redis: full"})

    def test_late_node(self) -> None:
        """One good moment does not make a node that looks late ready, nor do two looks at once."""
        self.ill()
        self.clock.advance(4.9)
        self.well()
        self.assertEqual(self.readiness.problems(), {"inbox": "redis: full"})
        self.clock.advance(0.1)
        self.well()
        self.assertEqual(self.readiness.problems(), {"inbox": "redis: full"})
        self.pass_seconds(1)
        self.assertEqual(self.readiness.problems(), {})

    def test_looks_that_miss_the_bad_moments(self) -> None:
        """Looks that find one run after another prove that the part was not well in between."""
        self.ill()
        for run in range(10):
            self.clock.advance(1)
            self.well(run)
            self.assertEqual(self.readiness.problems(), {"inbox": "redis: full"})
        self.clock.advance(1)
        self.well(run)
        self.assertEqual(self.readiness.problems(), {})
        self.clock.advance(1)
        self.well(run + 1)
        self.assertEqual(self.readiness.problems(), {}, "a loss that refused nobody is over")

    def test_call_of_a_message(self) -> None:
        """A message's call that fails counts as a look, even while one is under way that ends well."""
        self.clock.advance(1)
        self.readiness.failed("inbox", "redis: replica")
        self.well()
        self.assertEqual(self.readiness.problems(), {"inbox": "redis: replica"})
        self.pass_seconds(4)
        self.assertEqual(self.readiness.problems(), {})
        self.readiness.failed("of another part", "no matter")
        self.assertEqual(self.readiness.problems(), {})

    def test_look_without_an_answer(self) -> None:
        """One look is under way at a time; one that takes long is a reason."""
        self.clock.pump([1] * int(SLOW_SECONDS))
        self.assertEqual(self.readiness.problems(), {})
        self.clock.advance(1)
        self.assertIn("slow", self.readiness.problems()["inbox"])
        self.assertEqual(len(self.asked), 1)
        self.well()
        self.assertEqual(self.readiness.problems(), {})

    def test_what_others_say(self) -> None:
        """A part's own problem comes first."""
        self.ill()
        self.others = {"archive": "MongoDB: away"}
        self.assertEqual(self.readiness.problems(), {"archive": "MongoDB: away", "inbox": "redis: full"})
        self.others = {"inbox": "redis: down"}
        self.assertEqual(self.readiness.problems(), {"inbox": "redis: down"})

    def test_look_that_breaks(self) -> None:
        """An exception that no backend may raise is a reason, too, and the next look is made."""
        self.asked[-1].errback(RuntimeError("broken"))
        self.assertEqual(self.readiness.problems(), {"inbox": "broken"})
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.pass_seconds(4)
        self.assertEqual(self.readiness.problems(), {})
