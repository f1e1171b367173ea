"""Marks and settings of the embedded backend, seen from the reactor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from imd.contracts.state import Changes, Entry, Mark, Setting
from imd.protocol.errors import Refused
from imd.store.embedded.marks import Made, MarkTables
from imd.store.embedded.on_file import OnFile


class EmbeddedStates(OnFile[MarkTables]):
    """Implements imd.contracts.state.StateStore. A change and its peers' are one transaction."""

    def __init__(self, do: Callable[[Callable[[MarkTables], Any]], Deferred[Any]]) -> None:
        """As OnFile."""
        super().__init__(do)
        self._tell: Callable[[Sequence[Changes]], None] = lambda changes: None

    # StateStore

    def listen(self, changed: Callable[[Sequence[Changes]], None]) -> None:
        self._tell = changed

    def change(
        self, user: str, marks: Sequence[Mark], setting: Setting | None, since: int | None
    ) -> Deferred[Changes | Refused]:
        return self._do(lambda tables: tables.change(user, marks, setting, since)).addCallback(self._made)

    def _made(self, made: Made) -> Changes | Refused:
        self._tell(made.told)
        return made.outcome

    def since(self, user: str, version: int | None) -> Deferred[Changes]:
        return self._do(lambda tables: tables.since(user, version))

    def versions(self, users: Sequence[str]) -> Deferred[dict[str, int]]:
        return self._do(lambda tables: tables.versions(users))

    def entries(self, user: str, conversations: Sequence[str]) -> Deferred[dict[str, Entry]]:
        return self._do(lambda tables: tables.entries(user, conversations))

    def cleared(self, user: str) -> Deferred[dict[str, str]]:
        return self._do(lambda tables: tables.cleared(user))

    def touch(self, pairs: Sequence[tuple[str, str]]) -> Deferred[None]:
        return self._do(lambda tables: tables.touch(pairs)).addCallback(self._tell)
