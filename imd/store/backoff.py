"""How long to wait before a try is repeated."""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.application.internet import backoffPolicy


def backoff(first_seconds: float, max_seconds: float, factor: float) -> Callable[[int], float]:
    """failures → seconds; `first_seconds` for 0. Up to half is taken off, at random: nodes spread out."""
    policy = backoffPolicy(first_seconds, max_seconds, factor, jitter=lambda: 0.0)

    def seconds(failures: int) -> float:
        return float(policy(failures)) * random.uniform(0.5, 1)

    return seconds
