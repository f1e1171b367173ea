"""Channels that are leaving the registry, until the inbox has answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.inbox import Inbox, Leave
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable


class Departures:
    """Removes channels from the registry. A removal that fails is forgotten: the lease ends by itself."""

    log = Logger()

    def __init__(self, inbox: Inbox, seconds: Callable[[], float]) -> None:
        self._inbox = inbox
        self._seldom = Seldom(self.log, seconds)
        self._leaves: set[Deferred[None]] = set()

    def leave(self, leave: Leave) -> None:
        left = self._inbox.leave(leave)
        self._leaves.add(left)
        left.addErrback(self._failed).addBoth(lambda _: self._leaves.discard(left))

    def finished(self) -> Deferred[Any]:
        """Fires when all removals that were begun have ended."""
        return DeferredList(list(self._leaves))

    def _failed(self, failure: Failure) -> None:
        if failure.check(Unavailable) is None:
            self._seldom.failure("a channel could not be removed from the registry", failure)
