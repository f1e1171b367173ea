"""The pace of `typing`: one for a conversation and two seconds of a connection passes."""

from __future__ import annotations

from collections.abc import Callable

PACE_SECONDS = 2.0
MAX_CONVERSATIONS = 64
"""of a connection that are remembered; past it the oldest is forgotten"""


class TypingPace:
    """Of all connections of a node."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._passed: dict[str, dict[str, float]] = {}
        """channel → conversation → when one passed last"""

    def passes(self, channel: str, conversation: str) -> bool:
        """Whether another one may go on now; then it counts."""
        passed = self._passed.setdefault(channel, {})
        now = self._seconds()
        if now - passed.get(conversation, float("-inf")) < PACE_SECONDS:
            return False
        passed.pop(conversation, None)
        passed[conversation] = now
        if len(passed) > MAX_CONVERSATIONS:
            del passed[next(iter(passed))]
        return True

    # from the connections

    def ended(self, channel: str) -> None:
        self._passed.pop(channel, None)
