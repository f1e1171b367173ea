"""The limits on one client's bad frames, and on its frames that are no messages: past them it is closed."""

from __future__ import annotations

from collections.abc import Callable

from imd.entry.allowance import MAX_STRANGERS_ERRORS, Allowance
from imd.protocol.errors import CLOSE_BAD_FRAMES, CLOSE_OVERLOADED, Closing

# After so many unreadable frames in a row the client is told not to come back.
MAX_BAD_FRAMES = 32


class Patience:
    """The limits of one connection. A method that finds one exceeded returns a Closing.

    `seconds` is a monotonic clock.
    """

    __slots__ = ("_allowance", "_seconds", "_strangers_errors", "bad_frames")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._allowance: Allowance | None = None
        """created when it is first needed"""
        self._strangers_errors = 0
        self.bad_frames = 0
        """frames in a row that could not be read; the owner resets it"""

    @property
    def allowance(self) -> Allowance:
        if self._allowance is None:
            self._allowance = Allowance(self._seconds)
        return self._allowance

    def spend(self, cost: float) -> Closing | None:
        """Take the cost of a frame that is no message."""
        if self.allowance.spend(cost):
            return None
        return Closing(CLOSE_OVERLOADED, "too many frames that are no messages")

    def bad_frame(self) -> Closing | None:
        """A frame could not be read."""
        self.bad_frames += 1
        if self.bad_frames < MAX_BAD_FRAMES:
            return None
        return Closing(CLOSE_BAD_FRAMES, "bad_frame, again and again")

    def stranger_erred(self) -> Closing | None:
        """A frame before the connect signal was answered with an error."""
        self._strangers_errors += 1
        if self._strangers_errors < MAX_STRANGERS_ERRORS:
            return None
        return Closing(CLOSE_BAD_FRAMES, "errors before the connect signal, again and again")
