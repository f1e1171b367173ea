"""Timers by the monotonic clock, for a reactor whose own timers follow the time of day.

When the time of day is set back an hour, such a reactor's timers stand still for an hour. Here one thread for
all clients of a process waits, and has the reactor make the calls.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any


class Alarm:
    """One call to come, made by `call_later`. `cancel` is for the reactor's thread, which makes the call."""

    def __init__(self, reactor: Any, call: Callable[[], None]) -> None:
        self._reactor = reactor
        self._call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self._call = None

    @property
    def cancelled(self) -> bool:
        return self._call is None

    def ring(self) -> None:
        """The time has come. Called in the waiting thread."""
        self._reactor.callFromThread(self._fire)

    def _fire(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


class _Waiting:
    """The alarms of a process, and the thread that waits for the first one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def add(self, at: float, alarm: Alarm) -> None:
        with self._changed:
            heapq.heappush(self._alarms, (at, next(self._numbers), alarm))
            if self._thread is None:
                self._thread = threading.Thread(target=self._wait, name="imd-client-alarms", daemon=True)
                self._thread.start()
            elif self._alarms[0][2] is alarm:
                self._changed.notify()

    def _wait(self) -> None:
        with self._changed:
            while True:
                while self._alarms and self._alarms[0][2].cancelled:
                    heapq.heappop(self._alarms)
                left = self._alarms[0][0] - time.monotonic() if self._alarms else None
                if left is not None and left <= 0:
                    heapq.heappop(self._alarms)[2].ring()
                else:
                    self._changed.wait(left)


_WAITING = _Waiting()


def call_later(reactor: Any, seconds: float, call: Callable[[], None]) -> Any:
    """Call in the reactor's thread, so many seconds of the monotonic clock from now.

    Gives an object whose `cancel` prevents the call.
    """
    if reactor.seconds is time.monotonic:
        return reactor.callLater(seconds, call)
    alarm = Alarm(reactor, call)
    _WAITING.add(time.monotonic() + seconds, alarm)
    return alarm
