"""Reconciling feeds of state: each device's version is compared with its user's, so no hint is missed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from imd.chat.state_feed import Feed, Feeds
from imd.contracts.state import StateStore
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable

BEHIND = Counter(
    "imd_state_found_behind_total", "Devices that had missed a change of state, found by comparing."
)

TICK_SECONDS = 1.0
HURRIED_SECONDS = 5.0
"""for all feeds, while hints may be lost between nodes, and once afterwards"""
SLICE = 200
"""feeds that are compared with one question"""


class StateUpkeep:
    """Runs from `start` to `stop`. All feeds are compared once in `seconds`.

    `problem` says why hints do not reach other nodes; None if they do.
    """

    log = Seldom(Logger())

    def __init__(
        self,
        reactor: Any,
        states: StateStore,
        feeds: Feeds,
        problem: Callable[[], str | None],
        seconds: float,
    ) -> None:
        self._states = states
        self._feeds = feeds
        self._problem = problem
        self._reactor = reactor
        self._seconds = seconds
        self._left: deque[Feed] = deque()
        """of the present pass"""
        self._per_tick = SLICE
        self._next_pass = reactor.seconds()
        self._hurried = False
        self._call = LoopingCall(self._tick)
        self._call.clock = reactor

    def start(self) -> None:
        self._call.start(min(TICK_SECONDS, self._seconds), now=False).addErrback(
            lambda failure: self.log.failure("reconciling of state has ended", failure)
        )

    def stop(self) -> None:
        if self._call.running:
            self._call.stop()

    def _tick(self) -> Deferred[None] | None:
        """The next slices of a pass. The next tick waits for the answers."""
        if not self._left:
            self._begin_pass()
        return Deferred.fromCoroutine(self._compare(self._per_tick)) if self._left else None

    def _begin_pass(self) -> None:
        now = self._reactor.seconds()
        before, self._hurried = self._hurried, self._problem() is not None
        if self._hurried is not before:
            # At once; and after a problem, since its last hints were lost, too.
            self._next_pass = now
        if now < self._next_pass:
            return
        self._left.extend(self._feeds.all())
        seconds = min(self._seconds, HURRIED_SECONDS) if self._hurried else self._seconds
        self._next_pass = now + seconds
        self._per_tick = max(1, int(len(self._left) * TICK_SECONDS / seconds + 1))

    async def _compare(self, count: int) -> None:
        while count > 0 and self._left:
            part = [self._left.popleft() for _ in range(min(count, SLICE, len(self._left)))]
            count -= len(part)
            part = [feed for feed in part if not (feed.ended or feed.asks or feed.answers)]
            try:
                versions = await self._states.versions(sorted({feed.user for feed in part}))
            except Unavailable:
                # The next pass looks again.
                self._left.clear()
                return
            for feed in part:
                if versions[feed.user] != feed.version and not (feed.ended or feed.asks or feed.answers):
                    if versions[feed.user] > feed.version:
                        BEHIND.inc()
                    self._feeds.ask(feed, "reconcile")
