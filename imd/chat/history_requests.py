"""The questions of one connection that are not answered yet: for pages of history, rooms, members."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.rate import too_fast
from imd.chat.services import Services
from imd.entry.ratelimit import TokenBucket
from imd.observe.seldom import Seldom
from imd.protocol.author import Author
from imd.protocol.errors import RATE_LIMITED, UNAVAILABLE, Refused, Unavailable
from imd.protocol.frames import check_history
from imd.protocol.requests import HistoryFrame

MAX_REQUESTS = 4


class Asker(Protocol):
    """The part of a connection that history requests need."""

    @property
    def is_open(self) -> bool:
        """False once the connection has ended."""

    def send(self, payload: bytes) -> None:
        """Send a frame."""

    def send_error(self, refused: Refused, client_msg_id: str | None = None, ref: str | None = None) -> None:
        """Send an error frame."""


def requests_of(peer: Any) -> HistoryRequests:
    """The questions of an imd.chat.peer.Peer; made for the first one."""
    if peer.history_requests is None:
        peer.history_requests = HistoryRequests(peer.services, peer, peer.author, peer.bucket)
    requests: HistoryRequests = peer.history_requests
    return requests


class HistoryRequests:
    """One connection's requests: at most MAX_REQUESTS at a time. Each costs `bucket` as much as a message."""

    __slots__ = ("_asker", "_author", "_bucket", "_count", "_services")

    log = Seldom(Logger())

    def __init__(self, services: Services, asker: Asker, author: Author, bucket: TokenBucket) -> None:
        self._services = services
        self._asker = asker
        self._author = author
        self._bucket = bucket
        self._count = 0

    def ask(self, frame: HistoryFrame) -> None:
        """Answer `frame` when the archive has answered. Raises Refused: a bad frame, or too many of them."""
        check_history(frame, self._services.settings.limits.group_members)
        self.answer(frame.ref, partial(self._services.historian.page, self._author, frame))

    def answer(self, ref: str | None, ask: Callable[[], Deferred[bytes]]) -> None:
        """Send the payload that `ask` gives, or an error for its Refused or Unavailable.

        Raises Refused: too many questions.
        """
        early = self._bucket.take(1.0)
        if early:
            raise too_fast(self._services.settings.limits.messages_per_second, early)
        if self._count >= MAX_REQUESTS:
            why = f"{MAX_REQUESTS} questions at a time"
            raise Refused(RATE_LIMITED, why, retry_after_ms=100)
        self._count += 1
        ask().addBoth(self._came).addCallbacks(self._answer, self._failed, errbackArgs=(ref,))

    def _came(self, result: Any) -> Any:
        self._count -= 1
        return result

    def _answer(self, payload: bytes) -> None:
        if self._asker.is_open:
            self._asker.send(payload)

    def _failed(self, failure: Failure, ref: str | None) -> None:
        error = failure.value
        if not isinstance(error, Refused):
            if failure.check(Unavailable) is None:
                self.log.failure("a question could not be answered", failure)
            error = Refused(UNAVAILABLE, failure.getErrorMessage(), retry_after_ms=1000)
        if self._asker.is_open:
            self._asker.send_error(error, ref=ref)
