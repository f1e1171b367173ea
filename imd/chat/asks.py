"""Frames about state that are not answered yet: marks, settings, presence, blocks.

Later frames of the connection do not wait for them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.rate import pay
from imd.chat.refusals import refusal_of
from imd.contracts.timer import Cancellable
from imd.entry.ratelimit import TokenBucket
from imd.observe.seldom import Seldom
from imd.protocol.errors import RATE_LIMITED, Refused

MAX_ASKS = 16
ANSWER_SECONDS = 2.0

_log = Seldom(Logger())


class Asker(Protocol):
    """The part of a connection that its asks need."""

    bucket: TokenBucket

    @property
    def is_open(self) -> bool:
        """False once the connection has ended."""

    def send(self, payload: bytes, /) -> None:
        """Send a frame now."""

    def send_error(self, refused: Refused, client_msg_id: str | None = None, ref: str | None = None) -> None:
        """Send an error frame now."""


class Asks:
    """The asks of all connections of a node: at most MAX_ASKS of a connection at a time."""

    def __init__(self, call_later: Callable[..., Cancellable]) -> None:
        self._call_later = call_later
        self._counts: dict[Asker, int] = {}
        """only of connections that have some"""

    def ask(
        self,
        asker: Asker,
        ref: str | None,
        cost: float,
        find: Callable[[], Coroutine[Any, Any, bytes | None]],
    ) -> None:
        """Send the payload that `find` gives, when it does; None: there is no answer.

        `find` may raise Refused or Unavailable. After ANSWER_SECONDS it is cancelled, and the answer is
        `unavailable`. Raises Refused (`rate_limited`): frames come too fast, or too many are under way.
        """
        pay(asker.bucket, cost)
        count = self._counts.get(asker, 0)
        if count >= MAX_ASKS:
            why = f"{MAX_ASKS} unanswered frames about state at a time"
            raise Refused(RATE_LIMITED, why, retry_after_ms=100)
        self._counts[asker] = count + 1
        found: Deferred[bytes | None] = Deferred.fromCoroutine(find())
        deadline = self._call_later(ANSWER_SECONDS, found.cancel)

        def came(result: Any) -> Any:
            if deadline.active():
                deadline.cancel()
            self._counts[asker] -= 1
            if not self._counts[asker]:
                del self._counts[asker]
            return result

        def answer(payload: bytes | None) -> None:
            if payload is not None and asker.is_open:
                asker.send(payload)

        def failed(failure: Failure) -> None:
            if asker.is_open:
                what = "a frame about state could not be answered"
                asker.send_error(refusal_of(failure, _log, what, ANSWER_SECONDS), ref=ref)

        found.addBoth(came).addCallbacks(answer, failed)
        found.addErrback(lambda failure: _log.failure("a frame about state was not answered", failure))
