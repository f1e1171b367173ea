"""Devices that replace their own connections over and over have to wait."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imd.entry.replacing import AT_ONCE, MAX_DEVICES, MAX_WAIT_SECONDS, PER_SECOND, Replacing


class ReplacingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.replacing = Replacing(lambda: self.now)

    def replaced(self, times: int, device: str = "phone") -> None:
        for _ in range(times):
            self.replacing.replaced("alice", device)

    def wait(self, device: str = "phone") -> float:
        return self.replacing.wait_seconds("alice", device)

    def test_some_are_free(self) -> None:
        """The first replacements cost no time, and neither does another device."""
        self.assertEqual(self.wait(), 0)
        self.replaced(AT_ONCE)
        self.assertEqual(self.wait(), 0)
        self.replaced(1)
        self.assertAlmostEqual(self.wait(), 1 / PER_SECOND)
        self.assertEqual(self.wait("laptop"), 0)

    def test_never_longer_than_the_bound(self) -> None:
        """The wait grows up to its bound, and a pause ends it."""
        self.replaced(10 * AT_ONCE)
        self.assertAlmostEqual(self.wait(), MAX_WAIT_SECONDS)
        self.now += MAX_WAIT_SECONDS
        self.assertEqual(self.wait(), 0)

    def test_bound_of_devices(self) -> None:
        """Past the bound the device with the oldest replacement is forgotten."""
        self.replaced(2 * AT_ONCE)
        for number in range(MAX_DEVICES - 1):
            self.replaced(1, f"device {number}")
        self.assertGreater(self.wait(), 0)
        self.replaced(1, "one more")
        self.assertEqual(self.wait(), 0)
