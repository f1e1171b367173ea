"""The thread that owns the embedded backend's file, and its queue.

Whenever the thread is free it takes all operations that wait, up to a bound, as one group.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from prometheus_client import Gauge, Histogram
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from imd.protocol.errors import Unavailable
from imd.store.embedded.group import Group, Operation

WAITING = Gauge("imd_embedded_waiting_items", "Messages and operations that wait for the file's thread.")
GROUP_ITEMS = Histogram(
    "imd_embedded_group_items",
    "Messages and other operations done in one transaction.",
    buckets=(1, 3, 10, 30, 100, 300, 1000, 3000, 10000),
)

MAX_WAITING_ITEMS = 20_000
MAX_GROUP_ITEMS = 5_000
ANSWER_SECONDS = 10.0


class Worker:
    """The queue and its thread, seen from the reactor."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=1, maxthreads=1, name="imd-embedded")
        # A disk that never answers must not keep the process from ending.
        self._pool.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]
        self._watch = LoopingCall(self._fail_overdue)
        self._watch.clock = reactor
        self._group: Group | None = None
        self._waiting: deque[Operation] = deque()
        self._waiting_items = 0
        self._running: Sequence[Operation] = ()
        self._busy = False
        self._idle: list[Deferred[None]] = []
        self._stopped = False
        self._stopping: list[Deferred[None]] | None = None

    def start(self, begin: Callable[[], Group]) -> Deferred[None]:
        """Run `begin` in the thread; fails as it fails."""
        done: Deferred[None] = Deferred()
        self._pool.start()
        self._watching = self._watch.start(ANSWER_SECONDS / 10, now=False)
        self._watching.addErrback(lambda failure: Logger().failure("watching the file failed", failure))

        def finish(success: bool, result: Group | Failure) -> None:
            if success:
                assert isinstance(result, Group)
                self._group = result
                self._run_next()
                done.callback(None)
            else:
                assert isinstance(result, Failure)
                done.errback(result)

        self._call(begin, finish)
        return done

    def _call(self, work: Callable[[], Any], finish: Callable[[bool, Any], None]) -> None:
        def back(success: bool, result: Any) -> None:
            self._reactor.callFromThread(finish, success, result)

        self._pool.callInThreadWithCallback(back, work)

    def problem(self) -> str | None:
        if self._stopped:
            return "embedded: stopped"
        if self._group is None:
            return "embedded: not started"
        if self._running and self._reactor.seconds() - self._running[0].asked_at > ANSWER_SECONDS:
            return "embedded: the disk does not answer"
        return None

    def do(self, operation: Operation) -> Deferred[Any]:
        """Its result; Unavailable if the queue is full, the worker is not running or too slow."""
        problem = self.problem()
        if problem is not None:
            return fail(Unavailable(problem))
        if self._waiting_items + operation.items > MAX_WAITING_ITEMS:
            return fail(Unavailable("embedded: the queue is full"))
        operation.asked_at = self._reactor.seconds()
        self._waiting.append(operation)
        self._waiting_items += operation.items
        WAITING.set(self._waiting_items)
        self._run_next()
        return operation.answer

    def _run_next(self) -> None:
        if self._busy or self._group is None or not self._waiting:
            return
        group: list[Operation] = []
        items = 0
        while self._waiting and (not group or items + self._waiting[0].items <= MAX_GROUP_ITEMS):
            if group and (self._waiting[0].alone or group[-1].alone):
                break
            operation = self._waiting.popleft()
            items += operation.items
            group.append(operation)
        self._waiting_items -= items
        WAITING.set(self._waiting_items)
        GROUP_ITEMS.observe(items)
        self._running = group
        self._busy = True
        self._call(partial(self._group.run, group), self._finished)

    def _finished(self, success: bool, result: Failure | None) -> None:
        operations, self._running = self._running, ()
        self._busy = False
        self._run_next()
        for operation in operations:
            self._answer(operation, operation.result if success else Unavailable(f"embedded: {result}"))
        if not self._busy:
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)

    @staticmethod
    def _answer(operation: Operation, result: Any) -> None:
        if operation.answer.called:
            return
        if isinstance(result, Exception):
            operation.answer.errback(result)
        else:
            operation.answer.callback(result)

    def _fail_overdue(self) -> None:
        """Fail operations that have waited for too long. The running group may still be written."""
        overdue = self._reactor.seconds() - ANSWER_SECONDS
        late = [operation for operation in self._running if operation.asked_at < overdue]
        while self._waiting and self._waiting[0].asked_at < overdue:
            operation = self._waiting.popleft()
            self._waiting_items -= operation.items
            late.append(operation)
        WAITING.set(self._waiting_items)
        for operation in late:
            self._answer(operation, Unavailable("embedded: the disk does not answer"))

    def stop(self, end: Callable[[], None]) -> Deferred[None]:
        """Do the operations that wait, then run `end` in the thread and end that. Never fails."""
        if self._stopping is not None or not self._pool.started:
            self._stopped = True
            if not self._stopping:
                return succeed(None)
            waiter: Deferred[None] = Deferred()
            self._stopping.append(waiter)
            return waiter
        self._stopped = True
        waiter = Deferred()
        self._stopping = [waiter]

        def give_up() -> None:
            Logger().error("the disk did not answer within {seconds} s of the stop", seconds=ANSWER_SECONDS)
            self._gone()

        def close(_: object) -> None:
            self._call(end, closed)

        def closed(success: bool, result: Any) -> None:
            if not success:
                Logger().failure("closing the file failed", result)
            self._pool.stop()
            if deadline.active():
                deadline.cancel()
                self._gone()

        deadline = self._reactor.callLater(ANSWER_SECONDS, give_up)
        idle: Deferred[None] = Deferred()
        idle.addCallback(close)
        if self._busy:
            self._idle.append(idle)
        else:
            idle.callback(None)
        return waiter

    def _gone(self) -> None:
        if self._watch.running:
            self._watch.stop()
        waiters, self._stopping = self._stopping or [], []
        for waiter in waiters:
            waiter.callback(None)
