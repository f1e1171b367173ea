"""/serving, state by state."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.ops.serving import RedisTrouble, reason_not_to_serve


class ServingTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.trouble = RedisTrouble(self.clock.seconds)
        self.others = ["n2", "n3", "n4"]
        self.trouble.passed()

    def reason(self, listening: bool = True, draining: bool = False, taken: bool = False) -> str | None:
        return reason_not_to_serve(listening, draining, taken, self.trouble, self.others)

    def fail_for(self, seconds: float, *well: str) -> None:
        """Redis fails every half a second, and these others say each time that it is well."""
        for _ in range(round(seconds * 2)):
            self.trouble.failed(self.clock.seconds())
            for node in well:
                self.trouble.heard(node)
            self.clock.advance(0.5)

    def test_states(self) -> None:
        self.assertIsNone(self.reason())
        self.assertEqual(self.reason(listening=False), "not listening")
        self.assertEqual(self.reason(draining=True), "draining")
        self.assertIn("name", str(self.reason(taken=True)))
        self.assertIsNone(reason_not_to_serve(True, False, False, None, []))

    def test_ours_alone(self) -> None:
        """After 5 s, while half of the four are well; 200 as soon as Redis is back."""
        self.fail_for(4.5, "n2", "n3")
        self.assertIsNone(self.reason())
        self.fail_for(0.5, "n2", "n3")
        self.assertIn("Redis", str(self.reason()))
        self.trouble.passed()
        self.assertIsNone(self.reason())

    def test_everybodys(self) -> None:
        """One of four is well, or none, or all were and say no more: clients stay."""
        self.fail_for(10, "n2")
        self.assertIsNone(self.reason())
        self.fail_for(1, "n2", "n3", "n4")
        self.assertIsNotNone(self.reason())
        self.fail_for(3)
        self.assertIsNone(self.reason())

    def test_strangers_do_not_count(self) -> None:
        """Nodes that are not in the table have no word."""
        self.fail_for(10, "x1", "x2", "x3")
        self.assertIsNone(self.reason())

    def test_alone(self) -> None:
        self.others = []
        self.fail_for(10)
        self.assertIsNone(self.reason())

    def test_two(self) -> None:
        self.others = ["n2"]
        self.fail_for(10, "n2")
        self.assertIsNotNone(self.reason())

    def test_asking_and_answering(self) -> None:
        self.assertTrue(self.trouble.may_answer())
        self.fail_for(0.5)
        self.assertFalse(self.trouble.may_answer())
        self.assertFalse(self.trouble.others_are_to_be_asked())
        self.fail_for(3)
        self.assertTrue(self.trouble.others_are_to_be_asked())
        self.trouble.passed()
        self.assertTrue(self.trouble.may_answer())
        self.clock.advance(3)
        self.assertFalse(self.trouble.may_answer())

    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, 6), st.lists(st.tuples(st.integers(0, 7), st.floats(0, 12)), max_size=20))
    def test_never_without_half(self, count: int, words: list[tuple[int, float]]) -> None:
        """However others answer: 503 for Redis only while half of all said lately that they are well."""
        clock = Clock()
        trouble = RedisTrouble(clock.seconds)
        others = [f"n{number}" for number in range(count)]
        trouble.failed(0.0)
        said: dict[str, float] = {}
        for number, seconds in sorted(words, key=lambda word: word[1]):
            clock.advance(seconds - clock.seconds())
            trouble.heard(f"n{number}")
            # Not `seconds`: a sum of floats may differ in its last digit.
            said[f"n{number}"] = clock.seconds()
            well = sum(node in said and clock.seconds() - said[node] <= 2 for node in others)
            if reason_not_to_serve(True, False, False, trouble, others) is not None:
                self.assertGreaterEqual(2 * well, count + 1)
                self.assertGreaterEqual(clock.seconds(), 5)
