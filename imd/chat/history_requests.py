"""The pages of history that one connection has asked for and not got yet."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.history import Historian
from imd.observe.seldom import Seldom
from imd.protocol.author import Author
from imd.protocol.errors import RATE_LIMITED, UNAVAILABLE, Refused, Unavailable
from imd.protocol.frames import HistoryFrame

MAX_REQUESTS = 4


class Asker(Protocol):
    """What history requests need of their connection."""

    def send_if_open(self, payload: bytes) -> None: ...

    def send_error_if_open(self, refused: Refused, ref: str | None) -> None: ...


class HistoryRequests:
    """One connection's: at most MAX_REQUESTS are under way."""

    __slots__ = ("_asker", "_author", "_count", "_historian")

    log = Seldom(Logger())

    def __init__(self, historian: Historian, asker: Asker, author: Author) -> None:
        self._historian = historian
        self._asker = asker
        self._author = author
        self._count = 0

    def ask(self, frame: HistoryFrame) -> None:
        """Answer `frame` when the archive has answered. Raises Refused (`rate_limited`)."""
        if self._count >= MAX_REQUESTS:
            why = f"{MAX_REQUESTS} pages of history at a time"
            raise Refused(RATE_LIMITED, why, retry_after_ms=100)
        self._count += 1
        page = self._historian.page(self._author, frame)
        page.addBoth(self._came).addCallbacks(
            self._asker.send_if_open, self._failed, errbackArgs=(frame.ref,)
        )

    def _came(self, result: Any) -> Any:
        self._count -= 1
        return result

    def _failed(self, failure: Failure, ref: str | None) -> None:
        if failure.check(Unavailable) is None:
            self.log.failure("history", failure)
        refused = Refused(UNAVAILABLE, failure.getErrorMessage(), retry_after_ms=1000)
        self._asker.send_error_if_open(refused, ref)
