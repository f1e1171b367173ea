"""The queue to the archive and the archive, whose answers a test gives."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from imd.contracts.archive import History, HistoryQuery, Record
from imd.protocol.errors import Unavailable
from tests.support.doubles.backend import Backed


class QueueDouble(Backed):
    """An ArchiveQueue: batches in `published`, each with the Deferred that waits for it."""

    def __init__(self) -> None:
        self.published: list[tuple[list[Record], Deferred[None]]] = []

    def bodies(self, which: int = 0) -> list[bytes]:
        """The messages in the batch with this number."""
        records, _ = self.published[which]
        return [record if isinstance(record, bytes) else record.body for record in records]

    def publish(self, records: Sequence[Record]) -> Deferred[None]:
        confirmed: Deferred[None] = Deferred()
        self.published.append((list(records), confirmed))
        return confirmed

    def confirm(self, which: int = 0) -> None:
        """Confirm the batch with this number."""
        self.published[which][1].callback(None)

    def fail(self, which: int = 0) -> None:
        self.published[which][1].errback(Unavailable("no confirm"))


class ArchiveDouble(Backed):
    """imd.contracts.archive.Archive: queries in `asked`, answered by the test."""

    def __init__(self) -> None:
        self.asked: list[tuple[HistoryQuery, Deferred[History]]] = []

    def history(self, query: HistoryQuery) -> Deferred[History]:
        page: Deferred[History] = Deferred()
        self.asked.append((query, page))
        return page
