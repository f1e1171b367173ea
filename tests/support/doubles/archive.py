"""The queue to the archive and the archive, whose answers a test gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from imd.contracts.archive import (
    Asked,
    Changes,
    ChangesQuery,
    Entry,
    History,
    HistoryQuery,
    Record,
    Target,
)
from imd.contracts.talks import Places, PlacesQuery, Talk, TalksQuery
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


class TalksDouble:
    """imd.contracts.talks.TalkStore: nobody has any conversation."""

    def __init__(self) -> None:
        self.asked: list[PlacesQuery] = []

    def places(self, query: PlacesQuery) -> Deferred[Places]:
        self.asked.append(query)
        return succeed(Places([], False))

    def talks(self, query: TalksQuery) -> Deferred[list[Talk]]:
        return succeed([])


class ArchiveDouble(Backed):
    """imd.contracts.archive.Archive: queries in `asked`, answered by the test."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Deferred[Any]]] = []
        self.talks = TalksDouble()
        self.complete_id = "0" * 28
        self.known: dict[str, Target | None] = {}
        """what `targets` finds, by id"""
        self.wanted: list[tuple[list[Asked], Deferred[dict[str, Target | None]]]] = []
        """questions for targets, which `find` answers"""

    def history(self, query: HistoryQuery) -> Deferred[History]:
        return self._ask(query)

    def messages(self, message_ids: Sequence[str], viewer: str) -> Deferred[list[Entry]]:
        return self._ask((tuple(message_ids), viewer))

    def targets(self, asked: Sequence[Asked]) -> Deferred[dict[str, Target | None]]:
        found: Deferred[dict[str, Target | None]] = Deferred()
        self.wanted.append((list(asked), found))
        return found

    def find(self) -> bool:
        """Answer the oldest question for targets; False if there is none."""
        if not self.wanted:
            return False
        asked, found = self.wanted.pop(0)
        ids = {one.message_id for one in asked}
        found.callback({message_id: self.known[message_id] for message_id in ids if message_id in self.known})
        return True

    def changes(self, query: ChangesQuery) -> Deferred[Changes]:
        return self._ask(query)

    def complete(self) -> Deferred[str]:
        return succeed(self.complete_id)

    def _ask(self, query: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.asked.append((query, answer))
        return answer
