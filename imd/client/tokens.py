"""Which token a client is in by, which it has offered, and which a node has refused. No I/O."""

from __future__ import annotations

from collections import deque

AGAIN_SECONDS = 5.0
"""until a newer token is asked for once more"""
MAX_REFUSED = 16
"""that are known again"""


class Tokens:
    """Of one client. What was refused may be tried again after the next `connected`."""

    def __init__(self) -> None:
        self.current: str | None = None
        """of this connection, or of the attempt"""
        self.why = ""
        """the node's word for the last refusal"""
        self._exp_ms: float = 0.0
        self._offered: str | None = None
        self._refused: deque[str | None] = deque(maxlen=MAX_REFUSED)

    def begin(self) -> None:
        """Another attempt: no token yet."""
        self.current = self._offered = None

    def connected(self, exp_ms: float | None) -> None:
        """In, until then; milliseconds by the node's clock."""
        self._refused.clear()
        self._exp_ms = exp_ms or 0.0

    def refused(self, why: str) -> None:
        """The node has closed the connection for the present one."""
        self._refused.append(self.current)
        self.why = why or "the node has refused this token"

    def is_refused(self, token: str) -> bool:
        return token in self._refused

    def offer(self, token: str) -> bool:
        """Hand it in for the present one; False if it is the same."""
        if token == self.current:
            return False
        self._offered = token
        return True

    def renewed(self, exp_ms: float | None) -> None:
        """The node has taken what was offered."""
        self.current, self._offered = self._offered or self.current, None
        self._exp_ms = exp_ms or 0.0

    def not_renewed(self) -> bool:
        """The present one stands; False if no other was offered."""
        offered, self._offered = self._offered, None
        return offered is not None

    def ask_in(self, now_ms: float) -> float:
        """Seconds until a newer one is asked for: four fifths of what is left. `now_ms`: by the node's clock.

        The token may be over, as a node has a leeway.
        """
        left = (self._exp_ms - now_ms) / 1000
        return 0.8 * left if left > 1.0 else AGAIN_SECONDS
