"""When to come back: by the range of the close code, after a random pause that grows."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from imd.protocol.errors import CLOSE_UNAUTHORIZED

MAX_HASTY = 3
"""most returns to nodes that leave, without a pause of the client's own, until a connection lasts"""


class Verdict(Enum):
    NEVER = "never"
    NEW_TOKEN = "new token"
    BACK_OFF = "back off"
    AT_ONCE = "at once"


def judge(code: int | None) -> Verdict:
    """The reaction to a close code. A connection that broke without one is like 4101."""
    if code == CLOSE_UNAUTHORIZED:
        return Verdict.NEW_TOKEN
    if code is not None and 4000 <= code < 4100:
        return Verdict.NEVER
    if code is not None and 4200 <= code < 4300:
        return Verdict.AT_ONCE
    return Verdict.BACK_OFF


class Backoff:
    """Full jitter: a random pause between 0 and a limit that doubles with each failure, in seconds."""

    def __init__(self, least: float, most: float, chance: Callable[[], float]) -> None:
        self._least = least
        self._most = most
        self._chance = chance
        self._asked = 0.0
        self.failures = 0

    def at_least(self, seconds: float) -> None:
        """The node asks for a pause: the next one has this, and up to half as much again."""
        self._asked = seconds

    def next(self) -> float:
        limit = min(self._most, self._least * 2.0 ** min(self.failures, 30))
        self.failures += 1
        pause = self._chance() * limit
        return max(pause, self._take_asked())

    def reset(self) -> None:
        self._asked = 0.0
        self.failures = 0

    def _take_asked(self) -> float:
        asked, self._asked = self._asked, 0.0
        return asked * (1 + self._chance() / 2) if asked else 0.0


class Comeback(Backoff):
    """The pauses between two connections."""

    def __init__(self, least: float, most: float, chance: Callable[[], float]) -> None:
        super().__init__(least, most, chance)
        self._hasty = 0

    def after(self, verdict: Verdict, leaving: float | None) -> float:
        """Seconds until the next attempt. `leaving`: the pause that a leaving node has named, if it has.

        A node that leaves is no failure of the client's: it is left at once, also during the login and
        between failures. A few times only, or a node that closes each connection so would be stormed.
        """
        least = leaving or 0.0
        if (leaving is not None or verdict is Verdict.AT_ONCE) and self._hasty < MAX_HASTY:
            self._hasty += 1
            return max(least, self._take_asked())
        if verdict is Verdict.NEW_TOKEN and not self.failures:
            self.failures = 1
            return max(least, self._take_asked())
        return max(least, self.next())

    def reset(self) -> None:
        super().reset()
        self._hasty = 0
