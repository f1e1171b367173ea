"""Calls that are gathered while one is under way, and then done together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from imd.protocol.errors import Unavailable
from imd.store.in_time import bound

MAX_BATCH = 200
MAX_WAITING = 10_000


class Gathering:
    """`work` gets items and gives a Deferred of as many results. At most `calls` of it are under way.

    A call has MAX_BATCH items at most; MAX_WAITING items may wait. Each answer is there within `seconds`.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        work: Callable[[Sequence[Any]], Deferred[Sequence[Any]]],
        *,
        calls: int,
        seconds: float,
        waiting: Callable[[int], None] = lambda count: None,
    ) -> None:
        """`waiting` is told how many items wait, when that changes."""
        self._reactor = reactor
        self._name = name
        self._work = work
        self._calls = calls
        self._seconds = seconds
        self._told = waiting
        self._running = 0
        self._items: deque[tuple[Any, Deferred[Any]]] = deque()

    def add(self, item: Any) -> Deferred[Any]:
        """The item's result; Unavailable if the call fails or is too slow, or if too many wait."""
        if len(self._items) >= MAX_WAITING:
            return fail(Unavailable(f"{self._name}: {MAX_WAITING} wait"))
        answer: Deferred[Any] = Deferred()
        bound(self._reactor, self._seconds, answer, self._name)
        self._items.append((item, answer))
        self._next()
        return answer

    def _next(self) -> None:
        while self._items and self._running < self._calls:
            taken = [self._items.popleft() for _ in range(min(len(self._items), MAX_BATCH))]
            # An item whose time is over has been answered.
            taken = [(item, answer) for item, answer in taken if not answer.called]
            if taken:
                self._running += 1
                answers = [answer for _, answer in taken]
                self._work([item for item, _ in taken]).addBoth(self._done, answers)
        self._told(len(self._items))

    def _done(self, results: Sequence[Any] | Failure, answers: Sequence[Deferred[Any]]) -> None:
        self._running -= 1
        for n, answer in enumerate(answers):
            if not answer.called:
                answer.callback(results if isinstance(results, Failure) else results[n])
        self._next()
