"""The messages that frames want to change, read from the archive: one query for all frames that wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import Counter, Gauge
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from imd.contracts.archive import Archive, Asked, Target
from imd.protocol.errors import unavailable

MAX_WAITING = 5_000
MAX_IN_QUERY = 200
# A second one, so that a query that hangs does not stop all others.
MAX_QUERIES = 2

WAITING = Gauge(
    "imd_changes_waiting", f"Edits, recalls and reactions whose message is being read (bound: {MAX_WAITING})."
)
QUERIES = Counter("imd_changes_queries_total", "Queries for the messages of edits, recalls and reactions.")

Found = Mapping[str, Target | None]


class Targets:
    """`call_soon` runs a function in the reactor's next turn."""

    def __init__(self, archive: Archive, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._archive = archive
        self._call_soon = call_soon
        self._waiting: dict[Deferred[Found], Asked] = {}
        self._asked = 0
        """frames in queries that are under way"""
        self._queries = 0
        self._scheduled = False

    def read(self, asked: Asked) -> Deferred[Found]:
        """Fires with what the query found, as `Archive.targets` gives it. May be cancelled.

        Fails with Unavailable; with Refused if too many wait.
        """
        if len(self._waiting) + self._asked >= MAX_WAITING:
            why = "too many edits, recalls and reactions are waiting"
            return fail(unavailable(why))
        found: Deferred[Found] = Deferred(self._forget)
        self._waiting[found] = asked
        WAITING.set(len(self._waiting) + self._asked)
        self._schedule()
        return found

    def _forget(self, found: Deferred[Found]) -> None:
        self._waiting.pop(found, None)
        WAITING.set(len(self._waiting) + self._asked)

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled and self._queries < MAX_QUERIES:
            self._scheduled = True
            self._call_soon(self._ask)

    def _ask(self) -> None:
        self._scheduled = False
        batch = list(self._waiting.items())[:MAX_IN_QUERY]
        if not batch:
            return
        for found, _ in batch:
            del self._waiting[found]
        self._queries += 1
        self._asked += len(batch)
        QUERIES.inc()
        waiting = [found for found, _ in batch]
        answer = self._archive.targets([asked for _, asked in batch])
        answer.addCallbacks(self._found, self._failed, (waiting,), errbackArgs=(waiting,))
        self._schedule()

    def _found(self, found: Found, waiting: list[Deferred[Found]]) -> None:
        self._done(waiting)
        for one in waiting:
            if not one.called:
                one.callback(found)

    def _failed(self, failure: Failure, waiting: list[Deferred[Found]]) -> None:
        self._done(waiting)
        for one in waiting:
            if not one.called:
                one.errback(failure)

    def _done(self, waiting: list[Deferred[Found]]) -> None:
        self._queries -= 1
        self._asked -= len(waiting)
        WAITING.set(len(self._waiting) + self._asked)
        self._schedule()
