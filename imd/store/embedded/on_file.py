"""A store on the embedded backend's file, as the reactor sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, succeed

Tables = TypeVar("Tables")


class OnFile(Generic[Tables]):
    """Implements imd.contracts.backend.Backend: the file is opened, closed and looked after by its owner."""

    def __init__(self, do: Callable[[Callable[[Tables], Any]], Deferred[Any]]) -> None:
        """`do` has its argument called with the tables, in the thread that owns the file."""
        self._do = do

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def problem(self) -> str | None:
        return None
