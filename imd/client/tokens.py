"""Tokens of a client: the present one, a newer one that was offered, and refused ones. No I/O."""

from __future__ import annotations

from collections import deque

AGAIN_SECONDS = 5.0
"""pause before a newer token is asked for again"""
MAX_REFUSED = 16
"""most refused tokens that are remembered"""


class Tokens:
    """The tokens of one client. A refused token may be tried again after the next `connected`."""

    def __init__(self) -> None:
        self.current: str | None = None
        """the token of this connection or attempt"""
        self.why = ""
        """the reason of the last refusal"""
        self._exp_ms: float = 0.0
        self._offered: str | None = None
        self._refused: deque[str | None] = deque(maxlen=MAX_REFUSED)

    def begin(self) -> None:
        """A new attempt begins, without a token yet."""
        self.current = self._offered = None

    def connected(self, exp_ms: float | None) -> None:
        """The present token was accepted. `exp_ms`: its expiry by the node's clock, in milliseconds."""
        self._refused.clear()
        self._exp_ms = exp_ms or 0.0

    def refused(self, why: str) -> None:
        """The node has closed the connection because of the present token."""
        self._refused.append(self.current)
        self.why = why or "the node has refused this token"

    def is_refused(self, token: str) -> bool:
        return token in self._refused

    def offer(self, token: str) -> bool:
        """Offer a token in place of the present one; False if it is the same."""
        if token == self.current:
            return False
        self._offered = token
        return True

    def renewed(self, exp_ms: float | None) -> None:
        """The node has accepted the offered token."""
        self.current, self._offered = self._offered or self.current, None
        self._exp_ms = exp_ms or 0.0

    def not_renewed(self) -> bool:
        """The node may have refused the offered token: the present one stands. False if none was offered."""
        offered, self._offered = self._offered, None
        return offered is not None

    def ask_in(self, now_ms: float) -> float:
        """Seconds until a newer token is to be asked for: four fifths of the time left.

        `now_ms` is by the node's clock. A token may be past its expiry, as a node has a leeway.
        """
        left = (self._exp_ms - now_ms) / 1000
        return 0.8 * left if left > 1.0 else AGAIN_SECONDS
