"""A token bucket: it bounds the average rate and the size of a burst."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """`per_second` 0 means no limit. `seconds` is a monotonic clock."""

    __slots__ = ("_burst", "_seconds", "_then", "_tokens", "per_second")

    def __init__(self, per_second: float, burst: float, seconds: Callable[[], float]) -> None:
        self.per_second = per_second
        self._burst = max(burst, 1.0)
        self._seconds = seconds
        self._tokens = self._burst
        self._then = seconds() if per_second else 0.0

    def take(self, cost: float) -> float:
        """Spend `cost` and return 0; or spend nothing and return the seconds until there is enough.

        A cost above the bucket's size is lowered to it.
        """
        if not self.per_second:
            return 0.0
        now = self._seconds()
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self.per_second)
        self._then = now
        cost = min(cost, self._burst)
        if self._tokens >= cost:
            self._tokens -= cost
            return 0.0
        return (cost - self._tokens) / self.per_second

    def owe(self, cost: float) -> None:
        """Spend `cost` for something already done, even if there is not enough."""
        self._tokens -= cost
