"""The door that slows down: a device that replaces its own connections over and over has to wait.

Two clients with the same device name do that, each taking the other for gone. The protocol forbids it, as
each connect costs as much as a login. Only such a device becomes slower.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from prometheus_client import Counter

SLOWED = Counter(
    "imd_replacements_slowed_total", "Connects that had to wait because their device replaces itself."
)

AT_ONCE = 20
PER_SECOND = 0.5
MAX_WAIT_SECONDS = 5.0
# Devices that are remembered. Past this the one with the oldest replacement is forgotten.
MAX_DEVICES = 10_000


class Replacing:
    """The replacements on one node. `seconds` is a monotonic clock."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._full_at: OrderedDict[tuple[str, str], float] = OrderedDict()
        """user and device → when it may replace itself AT_ONCE times again"""

    def replaced(self, user: str, device: str) -> None:
        """A connect of the device has replaced its live channel."""
        key = user, device
        now = self._seconds()
        latest = now + (AT_ONCE + MAX_WAIT_SECONDS * PER_SECOND) / PER_SECOND
        self._full_at[key] = min(max(now, self._full_at.get(key, now)) + 1 / PER_SECOND, latest)
        self._full_at.move_to_end(key)
        if len(self._full_at) > MAX_DEVICES:
            self._full_at.popitem(last=False)

    def wait_seconds(self, user: str, device: str) -> float:
        """The time that the next connect of the device has to wait; nearly always 0."""
        full_at = self._full_at.get((user, device))
        if full_at is None:
            return 0.0
        left = full_at - self._seconds() - AT_ONCE / PER_SECOND
        if left <= 0:
            return 0.0
        SLOWED.inc()
        return left
