"""The door that says when: it lets in as many clients at a time as the node can serve beside its users.

There is no fixed rate. Handshakes get a slice of each turn of the reactor; logins get a bounded number of
places at the inbox. While too many wait, or have not logged in, the listener is shut: clients wait in the
kernel's queue, where they cost nothing. A login that has waited too long for a place is refused (4100).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from prometheus_client import Counter, Gauge, Histogram
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from imd.protocol.errors import CLOSE_OVERLOADED, UNAVAILABLE, Closing, Refused

WAITING = Gauge("imd_gate_waiting", "Handshakes that wait for their turn, logins for a place.", ["stage"])
PLACES = Gauge("imd_gate_logins", "Logins that the inbox is working on (bound: 256).")
WAIT_SECONDS = Histogram(
    "imd_gate_wait_seconds",
    "How long a login waited for a place.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
SHUT = Counter("imd_gate_shut_total", "Times that the listener stopped accepting because too many waited.")
REFUSED = Counter("imd_gate_refused_total", "Logins sent away (4100) because they had waited for too long.")

STRANGERS = Gauge("imd_half_open_connections", "Connections that have not logged in (bound: 2,000).")
EVICTED = Counter("imd_half_open_evicted_total", "Idle connections without a login dropped for others.")

_HANDSHAKES = WAITING.labels("handshake")
_LOGINS = WAITING.labels("login")

MAX_PLACES = 256
# Connections that have not logged in. A quarter of all connections, if that is less.
MAX_STRANGERS = 2_000
IDLE_SECONDS = 5.0
# Past this number of waiting clients the listener is shut, until half of them wait.
MAX_WAITING = 256
MAX_WAIT_SECONDS = 5.0
RETRY_MS = 2000
ACCEPTS_PER_TURN = 16
# Handshakes get a quarter of the time that the rest of a turn took, within these bounds.
MIN_SLICE_SECONDS, MAX_SLICE_SECONDS = 0.002, 0.010


class Listener(Protocol):
    """A listener as the gate sees it; it is open at first."""

    def shut(self) -> None: ...

    def open(self) -> None: ...

    def accept_at_most(self, count: int) -> None:
        """Bound the connections that are accepted in one turn of the reactor, until it ends."""


class Stranger(Protocol):
    """A connection that has not logged in."""

    def is_idle(self) -> bool:
        """The node waits for the client, not the client for the node."""

    def make_room(self) -> None:
        """Others want to come in: end the connection."""


class Gate:
    """`call_later` is the reactor's; `seconds` its clock."""

    log = Logger()

    def __init__(self, seconds: Callable[[], float], call_later: Callable[..., Any]) -> None:
        self._seconds = seconds
        self._call_later = call_later
        self._handshakes: deque[Callable[[], None]] = deque()
        self._logins: deque[tuple[float, Deferred[None]]] = deque()
        self._places = 0
        self._calling = False
        self._spent = 0.0
        self._turn_ended = seconds()
        self._turn_call: Any = None
        self._overdue_call: Any = None
        self._strangers: dict[Stranger, float] = {}
        self._max_strangers = MAX_STRANGERS
        self._evict_call: Any = None
        self._sockets = 0
        self._max_sockets = 0
        self._listener: Listener | None = None
        self._shut = False

    # from the node

    def guard(self, listener: Listener, max_connections: int, max_sockets: int | None = None) -> None:
        """Shut this listener while too many wait.

        `max_connections` bounds all connections. `max_sockets` bounds all sockets, including those of
        strangers; None: no bound.
        """
        self._max_sockets = max_sockets or 0
        self._max_strangers = max(1, min(MAX_STRANGERS, max_connections // 4))
        self._listener = listener
        listener.accept_at_most(ACCEPTS_PER_TURN)

    def unguard(self) -> None:
        """The listener is about to be closed."""
        self._listener = None
        self._shut = False

    def stop(self) -> None:
        """Refuse all that wait, and cancel all scheduled calls."""
        self._listener = None
        for call in (self._turn_call, self._overdue_call, self._evict_call):
            if call is not None and call.active():
                call.cancel()
        self._handshakes.clear()
        while self._logins:
            self._logins.popleft()[1].errback(_too_late())

    # from WebSockets

    def accepted(self, stranger: Stranger) -> None:
        """A socket was accepted."""
        self._strangers[stranger] = self._seconds()
        self._sockets += 1
        if self._is_full():
            if self._evict_call is None:
                self._evict_call = self._call_later(0, self._evict)
            self._watch()

    def logged_in(self, stranger: Stranger) -> None:
        """The connection is no stranger any more."""
        if self._strangers.pop(stranger, None) is not None:
            self._watch()

    def closed(self, stranger: Stranger) -> None:
        """Its socket is closed. It may have logged in before."""
        self._sockets -= 1
        self._strangers.pop(stranger, None)
        self._watch()

    def run_handshake(self, work: Callable[[], None]) -> None:
        """Run `work` at once, or in a later turn of the reactor."""
        if not self._handshakes and self._spent < MIN_SLICE_SECONDS:
            self._work(work)
            self._next_turn()
            return
        self._handshakes.append(work)
        self._next_turn()
        self._watch()

    # from connections

    def enter(self) -> Deferred[None]:
        """Fires when there is a place at the inbox: call `leave` afterwards. Fails with Closing (4100)."""
        if self._places < MAX_PLACES and not self._logins:
            self._places += 1
            PLACES.set(self._places)
            WAIT_SECONDS.observe(0)
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._logins.append((self._seconds(), done))
        if self._overdue_call is None:
            self._overdue_call = self._call_later(MAX_WAIT_SECONDS, self._overdue)
        self._watch()
        return done

    def leave(self) -> None:
        """A login has succeeded or failed: its place is free."""
        self._places -= 1
        if self._calling:
            # Re-entrant: an admitted login left synchronously. The outer loop goes on.
            return
        self._calling = True
        while self._logins and self._places < MAX_PLACES:
            self._places += 1
            since, done = self._logins.popleft()
            WAIT_SECONDS.observe(self._seconds() - since)
            done.callback(None)
        self._calling = False
        PLACES.set(self._places)
        self._watch()

    # from within

    def _work(self, work: Callable[[], None]) -> None:
        began = self._seconds()
        try:
            work()
        except Exception:
            self.log.failure("a handshake has failed")
        self._spent += self._seconds() - began

    def _next_turn(self) -> None:
        if self._turn_call is None:
            self._turn_call = self._call_later(0, self._turn)

    def _turn(self) -> None:
        self._turn_call = None
        rest = self._seconds() - self._turn_ended - self._spent
        self._spent = 0.0
        slice_seconds = min(max(MIN_SLICE_SECONDS, rest / 4), MAX_SLICE_SECONDS)
        while self._handshakes and self._spent < slice_seconds:
            self._work(self._handshakes.popleft())
        if self._spent:
            self._next_turn()
        if self._listener is not None:
            self._listener.accept_at_most(ACCEPTS_PER_TURN)
        self._turn_ended = self._seconds()
        self._watch()

    def _overdue(self) -> None:
        """Refuse logins that have waited too long; look again when the next one has."""
        self._overdue_call = None
        now = self._seconds()
        while self._logins and now - self._logins[0][0] >= MAX_WAIT_SECONDS:
            REFUSED.inc()
            self._logins.popleft()[1].errback(_too_late())
        if self._logins:
            left = MAX_WAIT_SECONDS - (now - self._logins[0][0])
            self._overdue_call = self._call_later(left, self._overdue)
        self._watch()

    def _evict(self) -> None:
        """End strangers that have been idle for long, while there are too many."""
        self._evict_call = None
        before = self._seconds() - IDLE_SECONDS
        for stranger, since in list(self._strangers.items()):
            if since > before:
                break
            if stranger.is_idle():
                del self._strangers[stranger]
                EVICTED.inc()
                stranger.make_room()
        if self._is_full():
            self._evict_call = self._call_later(IDLE_SECONDS / 4, self._evict)
        self._watch()

    def _is_full(self) -> bool:
        return len(self._strangers) >= self._max_strangers or 0 < self._max_sockets <= self._sockets

    def _watch(self) -> None:
        """Set the metrics, and shut or open the listener."""
        _HANDSHAKES.set(len(self._handshakes))
        _LOGINS.set(len(self._logins))
        STRANGERS.set(len(self._strangers))
        waiting = len(self._handshakes) + len(self._logins)
        full = self._is_full()
        if self._listener is None:
            return
        if not self._shut and (waiting > MAX_WAITING or full):
            self._shut = True
            SHUT.inc()
            self._listener.shut()
        elif self._shut and waiting <= MAX_WAITING // 2 and not full:
            self._shut = False
            self._listener.open()


def _too_late() -> Closing:
    why = "too many come at once"
    return Closing(CLOSE_OVERLOADED, why, Refused(UNAVAILABLE, why, retry_after_ms=RETRY_MS))
