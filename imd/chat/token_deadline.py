"""The moment at which a token expires, by a wall clock that may be set meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from imd.contracts.timer import Cancellable

# The longest time between two looks at the wall clock.
LOOK_SECONDS = 300.0


class TokenDeadline:
    """Calls `expired` once, when the wall clock has reached `end` (Unix time in seconds)."""

    __slots__ = ("_call", "_call_later", "_end", "_expired", "_unix_seconds")

    def __init__(
        self,
        end: float,
        expired: Callable[[], None],
        unix_seconds: Callable[[], float],
        call_later: Callable[..., Cancellable],
    ) -> None:
        self._end = end
        self._expired = expired
        self._unix_seconds = unix_seconds
        self._call_later = call_later
        self._call = self._look_again()

    def active(self) -> bool:
        return self._call.active()

    def cancel(self) -> None:
        self._call.cancel()

    def _look_again(self) -> Cancellable:
        left = max(0.0, self._end - self._unix_seconds())
        return self._call_later(min(left, LOOK_SECONDS), self._look)

    def _look(self) -> None:
        if self._unix_seconds() >= self._end:
            self._expired()
        else:
            self._call = self._look_again()
