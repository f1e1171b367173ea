"""The table of nodes over a node's own connection to Redis, each answer with a deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from imd.gateway import table
from imd.gateway.nodes import Row
from imd.gateway.table import Announced
from imd.protocol.errors import Unavailable

# Less than half a lease: an announcement without an answer leaves time for others.
ANSWER_SECONDS = 2.0

Answer = TypeVar("Answer")


class RedisNodeTable:
    """Implements imd.gateway.table.NodeTable."""

    def __init__(
        self, call_later: Callable[[float, Callable[[], None]], Any], command: Callable[..., Deferred[Any]]
    ) -> None:
        """`command` runs a command of Redis, and fails with Unavailable."""
        self._call_later = call_later
        self._command = command

    def announce(self, row: Row) -> Deferred[Announced]:
        return self._ask(table.announce(row), table.announced)

    def leave(self, row: Row) -> Deferred[None]:
        return self._ask(table.leave(row), lambda _: None)

    def _ask(self, words: table.Words, read: Callable[[Any], Answer]) -> Deferred[Answer]:
        # The driver's Deferred must not be cancelled: the answer would be taken for the next command's.
        answer: Deferred[Answer] = Deferred()

        def too_late() -> None:
            answer.errback(Failure(Unavailable(f"redis: slow, no answer within {ANSWER_SECONDS:g} s")))

        deadline = self._call_later(ANSWER_SECONDS, too_late)

        def done(result: Any) -> None:
            if not deadline.active():
                return
            deadline.cancel()
            try:
                answer.callback(read(result))
            except ValueError as error:
                answer.errback(Failure(Unavailable(f"redis: {error}")))

        def failed(failure: Failure) -> None:
            if deadline.active():
                deadline.cancel()
                answer.errback(failure)

        self._command(*words).addCallbacks(done, failed)
        return answer
