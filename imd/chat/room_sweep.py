"""Looks for events of rooms that a node has left in MongoDB when it died, and finishes with them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.room_changes import RoomChanges
from imd.contracts.timer import Cancellable
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable

SWEEP_SECONDS = 5.0


class RoomSweep:
    """Looks about every SWEEP_SECONDS, at least that long after a look."""

    log = Logger()

    def __init__(self, changes: RoomChanges, call_later: Callable[..., Cancellable]) -> None:
        self._changes = changes
        self._call_later = call_later
        self._seldom = Seldom(self.log)
        self._next: Cancellable | None = None
        self._looking: Deferred[None] | None = None
        self._stopped = False

    def start(self) -> None:
        # Nodes that start together do not look together.
        self._next = self._call_later(SWEEP_SECONDS * random.uniform(0.5, 1.5), self._look)

    def stop(self) -> None:
        self._stopped = True
        if self._next is not None and self._next.active():
            self._next.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _look(self) -> None:
        self._looking = Deferred.fromCoroutine(self._changes.finish_leftovers())
        self._looking.addBoth(self._looked)

    def _looked(self, result: Any) -> None:
        self._looking = None
        if isinstance(result, Failure) and result.check(Unavailable, CancelledError) is None:
            self._seldom.failure("rooms' events could not be finished", result)
        if not self._stopped:
            self._next = self._call_later(SWEEP_SECONDS * random.uniform(1.0, 1.5), self._look)
