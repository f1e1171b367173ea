"""The questions that one connection has asked and that are not answered yet."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.rate import pay
from imd.chat.refusals import refusal_of
from imd.chat.services import Services
from imd.entry.ratelimit import TokenBucket
from imd.observe.seldom import Seldom
from imd.protocol.errors import RATE_LIMITED, Refused

MAX_QUESTIONS = 4

_log = Seldom(Logger())


class Asker(Protocol):
    """The part of a connection that questions need."""

    services: Services
    bucket: TokenBucket

    @property
    def is_open(self) -> bool:
        """False once the connection has ended."""

    def send(self, payload: bytes, /) -> None:
        """Send a frame."""

    def send_error(self, refused: Refused, client_msg_id: str | None = None, ref: str | None = None) -> None:
        """Send an error frame."""


class Questions:
    """At most MAX_QUESTIONS at a time. Each costs a part of the connection's rate, as messages do."""

    __slots__ = ("_asker", "_count")

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._count = 0

    def ask(
        self,
        ref: str | None,
        find: Callable[[], Coroutine[Any, Any, bytes] | Deferred[bytes]],
        cost: float = 1.0,
    ) -> None:
        """Send the payload that `find` gives, when it does; it may fail with Refused or Unavailable.

        Raises Refused: questions come too fast, or too many are under way.
        """
        asker = self._asker
        pay(asker.bucket, cost)
        if self._count >= MAX_QUESTIONS:
            why = f"{MAX_QUESTIONS} questions at a time: of history, messages, changes, rooms, members, lists"
            raise Refused(RATE_LIMITED, why, retry_after_ms=100)
        self._count += 1
        found = ensureDeferred(find())
        found.addBoth(self._came).addCallbacks(self._answer, self._failed, errbackArgs=(ref,))
        found.addErrback(lambda failure: _log.failure("a question was not answered", failure))

    def _came(self, result: Any) -> Any:
        self._count -= 1
        return result

    def _answer(self, payload: bytes) -> None:
        if self._asker.is_open:
            self._asker.send(payload)

    def _failed(self, failure: Failure, ref: str | None) -> None:
        refused = refusal_of(failure, _log, "a question could not be answered")
        if self._asker.is_open:
            self._asker.send_error(refused, ref=ref)
