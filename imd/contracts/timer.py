"""A call that has been scheduled, as a reactor's `callLater` returns it."""

from __future__ import annotations

from typing import Protocol


class Cancellable(Protocol):
    def cancel(self) -> None: ...

    def active(self) -> bool: ...
