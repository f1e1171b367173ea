"""The moment at which a token expires, by a wall clock that may be set meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from imd.chat.services import Services
from imd.contracts.timer import Cancellable
from imd.entry.auth import Identity

# The longest time between two looks at the wall clock.
LOOK_SECONDS = 300.0


def watch_token(identity: Identity, services: Services, expired: Callable[[], None]) -> Cancellable | None:
    """Have `expired` called when the token expires; at once if it has. None: nothing to cancel."""
    if identity.exp is None:
        return None
    end = identity.exp + services.settings.auth.leeway_seconds
    if end <= services.unix_seconds():
        expired()
        return None
    return TokenDeadline(end, expired, services.unix_seconds, services.call_later)


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
