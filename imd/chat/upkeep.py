"""Periodic work for all sessions: renewing leases, finding lost hints, serving the desk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import Counter, Gauge
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.session import Session
from imd.contracts.inbox import Delivery, Head, Inbox
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable

RECONCILED = Counter("imd_reconciled_sessions_total", "Sessions compared with their inbox.")
FOUND_BEHIND = Counter("imd_reconciled_behind_total", "Sessions that reconciling found a lost hint of.")
SESSIONS = Gauge("imd_sessions", "Channels that are registered on this node.")

SLICE = 500
TICK_SECONDS = 1.0
LOOK_SECONDS = 0.5


class Upkeep:
    """Compares all sessions with their inboxes every `reconcile_seconds`, and every second while
    `bus_problem` says that hints may be lost; renews leases on the way, three times in a lease. A new
    era means that the store may have forgotten channels: then all sessions are compared at once."""

    log = Logger()

    def __init__(
        self,
        clock: Any,
        inbox: Inbox,
        sessions: dict[str, Session],
        desk_served: Callable[[Sequence[Delivery]], None],
        bus_problem: Callable[[], str | None],
        *,
        reconcile_seconds: float,
        lease_seconds: float,
    ) -> None:
        self._clock = clock
        self._seldom = Seldom(self.log, clock.seconds)
        self._inbox = inbox
        self._sessions = sessions
        self._desk_served = desk_served
        self._bus_problem = bus_problem
        self._reconcile_seconds = min(reconcile_seconds, lease_seconds / 3)
        # A lost hint is found within one pass plus one tick. The two must fit reconcile_seconds.
        self._patience = TICK_SECONDS if self._reconcile_seconds >= 5 * TICK_SECONDS else 0.0
        self._renew_seconds = lease_seconds / 3
        self._reconciled_at = self._renewed_at = clock.seconds()
        self._once_more = False
        self._late: list[tuple[Session, Head]] = []
        """sessions that the last pass found behind, with their heads; the hints may have been on their way"""
        self._passing: Deferred[None] | None = None
        self._serving: Deferred[None] | None = None
        self._serve_again = False
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        self._era = ""
        self._looking: Deferred[None] | None = None
        self._look_loop = LoopingCall(self._look)
        self._look_loop.clock = clock

    def start(self) -> None:
        self._loop.start(min(TICK_SECONDS, self._reconcile_seconds), now=False).addErrback(
            lambda failure: self.log.failure("upkeep has stopped", failure)
        )
        self._look_loop.start(LOOK_SECONDS, now=True).addErrback(
            lambda failure: self.log.failure("upkeep no longer checks the store's era", failure)
        )

    def stop(self) -> None:
        for loop in (self._loop, self._look_loop):
            if loop.running:
                loop.stop()
        for running in (self._passing, self._serving, self._looking):
            if running is not None:
                running.cancel()

    def serve_desk(self) -> None:
        """Serve the desk now; if that is under way, once more after it."""
        if self._serving is not None:
            self._serve_again = True
            return
        self._serving = Deferred.fromCoroutine(self._serve())
        self._serving.addBoth(self._served)

    def _tick(self) -> None:
        now = self._clock.seconds()
        SESSIONS.set(len(self._sessions))
        self._look_for_late()
        down = self._bus_problem() is not None
        # One more pass after the bus is back: hints that were sent meanwhile may be lost.
        every_second = down or self._once_more
        self._once_more = down
        if self._passing is not None:
            return
        if every_second or self._is_due(now):
            renew = now - self._renewed_at >= self._renew_seconds - TICK_SECONDS / 2 or not every_second
            hints_lost = every_second or not self._patience or self._reconciled_at == float("-inf")
            self._reconciled_at = now
            if renew:
                self._renewed_at = now
            self._passing = Deferred.fromCoroutine(self._pass(renew, hints_lost))
            self._passing.addBoth(self._passed)
            self.serve_desk()

    def _is_due(self, now: float) -> bool:
        return now - self._reconciled_at >= self._reconcile_seconds - self._patience - TICK_SECONDS / 2

    def _look(self) -> None:
        if self._looking is None:
            self._looking = self._inbox.era().addCallback(self._era_seen)
            self._looking.addBoth(self._looked)

    def _era_seen(self, era: str) -> None:
        forgotten = self._era not in ("", era)
        self._era = era
        if forgotten:
            # No hint reaches a session until its channel is registered again.
            self._reconciled_at = float("-inf")
            self._tick()
            # One more pass serves the desk again, when agents have registered again.
            self._once_more = True

    def _looked(self, result: Any) -> None:
        self._looking = None
        self._note(result, "checking the store's era")

    async def _pass(self, renew: bool, hints_lost: bool) -> None:
        seen = self._behind if hints_lost else self._seen
        sessions = [session for session in self._sessions.values() if session.epoch]
        for start in range(0, len(sessions), SLICE):
            waits = []
            for session in sessions[start : start + SLICE]:
                if not session.ended:
                    waits.append(self._inbox.renew(session.lease(renew)).addCallback(seen, session))
            results: list[tuple[bool, Any]] = await DeferredList(waits, consumeErrors=True)
            failed = [result for ok, result in results if not ok]
            RECONCILED.inc(len(waits) - len(failed))
            for failure in failed:
                failure.trap(Unavailable)
            if failed and len(failed) == len(waits):
                # The backend is down: the next pass asks again.
                return
            await deferLater(self._clock, 0)

    def _seen(self, head: Head, session: Session) -> None:
        if _is_behind(session, head):
            # The hint may still be on its way. Reading the inbox now would make a busy node busier.
            self._late.append((session, head))
            head = head._replace(seq=session.known)
        session.head_seen(head)

    def _behind(self, head: Head, session: Session) -> None:
        if _is_behind(session, head):
            FOUND_BEHIND.inc()
        session.head_seen(head)

    def _look_for_late(self) -> None:
        late, self._late = self._late, []
        for session, head in late:
            # The head is a second old. If the epoch has changed since, it says nothing.
            if head.epoch == session.epoch:
                self._behind(head, session)

    def _passed(self, result: Any) -> None:
        self._passing = None
        self._note(result, "reconciling")

    async def _serve(self) -> None:
        while True:
            self._serve_again = False
            deliveries = await self._inbox.serve_desk()
            if deliveries:
                self._desk_served(deliveries)
            if not deliveries and not self._serve_again:
                return

    def _served(self, result: Any) -> None:
        self._serving = None
        self._note(result, "serving the desk")

    def _note(self, result: Any, what: str) -> None:
        # `stop` cancels the calls under way.
        if isinstance(result, Failure) and result.check(Unavailable, CancelledError) is None:
            self._seldom.failure("{what} failed", result, what=what)


def _is_behind(session: Session, head: Head) -> bool:
    return head.epoch == session.epoch and head.seq > session.known
