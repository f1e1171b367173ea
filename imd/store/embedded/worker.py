"""The thread that owns the embedded backend's file, and the group commit.

Operations wait in one queue. Whenever the thread is free it takes all that wait (up to a bound) and does
them in one transaction: one fsync for all. An operation that fails must not take the others with it, so
after a failure the transaction is rolled back and the same operations are done again one at a time, each
within a savepoint: nothing of the first attempt is left, so nothing is done twice.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prometheus_client import Gauge, Histogram
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from imd.contracts.inbox import Failed, Outcome, Submission
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable
from imd.store.embedded.accept import Placing
from imd.store.embedded.reasons import plain_reason
from imd.store.embedded.state import State

WAITING = Gauge("imd_embedded_waiting_items", "Messages and operations that wait for the file's thread.")
GROUP_ITEMS = Histogram(
    "imd_embedded_group_items",
    "Messages and other operations done in one transaction.",
    buckets=(1, 3, 10, 30, 100, 300, 1000, 3000, 10000),
)
COMMIT_SECONDS = Histogram(
    "imd_embedded_commit_seconds",
    "Time that SQLite took to commit a transaction.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)

MAX_WAITING_ITEMS = 20_000
MAX_GROUP_ITEMS = 5_000
ANSWER_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class Operation:
    """Something to be done in the thread: either `work`, or placing `batch`."""

    work: Callable[[], Any] | None = None
    batch: Sequence[Submission] = ()
    user: str | None = None
    """whose row and devices it will ask for"""
    alone: bool = False
    """in a transaction of its own: what may well fail takes nothing with it"""
    result: Any = None
    asked_at: float = 0.0
    answer: Deferred[Any] = field(default_factory=Deferred)

    @property
    def items(self) -> int:
        return len(self.batch) or 1


class Group:
    """Does operations in the thread: leaves in each one's `result` what it gave, or an Unavailable."""

    _log = Logger()

    def __init__(self, state: State, placing: Placing) -> None:
        self._state = state
        self._placing = placing
        self._seldom = Seldom(self._log)
        self.failures = 0
        """groups of which nothing could be written"""

    def run(self, operations: Sequence[Operation]) -> None:
        """Never raises."""
        try:
            try:
                self._run_together(operations)
            except sqlite3.OperationalError:
                # A full or broken disk: nobody's fault, and no better one at a time.
                raise
            except Exception as error:
                self._seldom.warn("done one at a time, since one of them failed: {error}", error=error)
                self._undo()
                self._run_apart(operations)
        except Exception as error:
            # Nothing of it is in the file, whatever single operations had as their result.
            self.failures += 1
            why = plain_reason(error)
            self._seldom.error("SQLite: {why}; {count} operations failed", why=why, count=len(operations))
            for operation in operations:
                operation.result = Unavailable(f"embedded: {why}")
            self._undo_quietly()

    def _run_together(self, operations: Sequence[Operation]) -> None:
        state = self._state
        state.connection.execute("BEGIN")
        batches = [operation for operation in operations if operation.work is None]
        if batches:
            # All messages first, so that they need one set of statements; nobody can tell, since
            # none of these operations has been answered.
            together = [submission for operation in batches for submission in operation.batch]
            outcomes = self._placing.accept(together)
            start = 0
            for operation in batches:
                end = start + len(operation.batch)
                operation.result = outcomes[start:end]
                start = end
            state.write()
        users = [operation.user for operation in operations if operation.user is not None]
        if users:
            state.load_devices(users)
        for operation in operations:
            if operation.work is not None:
                operation.result = operation.work()
        state.write()
        self._commit()

    def _commit(self) -> None:
        with COMMIT_SECONDS.time():
            self._state.connection.execute("COMMIT")
        self._state.committed()

    def _undo(self) -> None:
        if self._state.connection.in_transaction:
            self._state.connection.execute("ROLLBACK")
        self._state.forget()

    def _undo_quietly(self) -> None:
        try:
            self._undo()
        except sqlite3.Error as error:
            self._seldom.error("SQLite cannot roll back: {error}", error=error)
            self._state.forget()

    def _run_apart(self, operations: Sequence[Operation]) -> None:
        self._state.connection.execute("BEGIN")
        for operation in operations:
            if operation.work is not None:
                operation.result = self._run_alone(operation.work)
            else:
                operation.result = self._place_apart(operation.batch)
        self._commit()

    def _place_apart(self, batch: Sequence[Submission]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for submission in batch:
            result = self._run_alone(partial(self._placing.accept, (submission,)), Failed)
            outcomes += (result,) if isinstance(result, Failed) else result
        return outcomes

    def _run_alone(self, work: Callable[[], Any], refusal: Callable[[str], Any] = Unavailable) -> Any:
        """What `work` gives, or a `refusal`. Raises sqlite3.OperationalError: SQLite cannot go on."""
        state = self._state
        mark = state.channels.mark()
        state.connection.execute("SAVEPOINT one")
        try:
            result = work()
            state.write()
        except sqlite3.OperationalError:
            raise
        except Exception as error:
            self._seldom.failure("an operation failed", Failure())
            state.connection.execute("ROLLBACK TO one")
            state.forget(mark)
            result = refusal(f"embedded: {error}")
        state.connection.execute("RELEASE one")
        return result


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
        """Whoever has waited for too long is told so; what is under way may still be done."""
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
        """Do what waits, then run `end` in the thread and let go of it. Never fails."""
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
