"""The group commit: many operations in one transaction, so one fsync for all of them.

A failed operation must not take others with it. So after a failure the transaction is rolled back, and the
same operations are done again one at a time, each within a savepoint. The rollback leaves nothing of the
first attempt, so nothing is done twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prometheus_client import Histogram
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.inbox import Failed, Outcome, Submission
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable
from imd.store.embedded.accept import Placing
from imd.store.embedded.reasons import plain_reason
from imd.store.embedded.state import State

COMMIT_SECONDS = Histogram(
    "imd_embedded_commit_seconds",
    "Time that SQLite took to commit a transaction.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)


@dataclass(slots=True, eq=False)
class Operation:
    """Work for the thread: either `work`, or placing `batch`."""

    work: Callable[[], Any] | None = None
    batch: Sequence[Submission] = ()
    user: str | None = None
    """the user whose row and devices `work` reads"""
    alone: bool = False
    """in a transaction of its own, since it may well fail"""
    result: Any = None
    asked_at: float = 0.0
    answer: Deferred[Any] = field(default_factory=Deferred)

    @property
    def items(self) -> int:
        return len(self.batch) or 1


class Group:
    """Does operations in the thread. Each one's `result` is then what it returned, or an Unavailable."""

    _log = Logger()

    def __init__(self, state: State, placing: Placing) -> None:
        self._state = state
        self._placing = placing
        self._seldom = Seldom(self._log)
        self.failures = 0
        """groups of which nothing was written"""

    def run(self, operations: Sequence[Operation]) -> None:
        """Never raises."""
        self._run(operations)
        self._state.write_ahead.tend()

    def _run(self, operations: Sequence[Operation]) -> None:
        try:
            try:
                self._run_together(operations)
            except sqlite3.OperationalError:
                # A full or broken disk: one at a time they would fail as well.
                raise
            except Exception as error:
                self._seldom.warn("a group failed, repeating it one at a time: {error}", error=error)
                self._undo()
                self._run_apart(operations)
        except Exception as error:
            # Nothing of the group is in the file, even if single operations have a result.
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
            # All messages come first, so that they share one set of statements. The order is free: none of
            # these operations has been answered.
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
        """The result of `work`, or a `refusal`. Raises sqlite3.OperationalError: SQLite cannot go on."""
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
