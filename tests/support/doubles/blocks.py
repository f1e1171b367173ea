"""A store of blocks whose answers a test gives."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.defer import Deferred

from tests.support.doubles.backend import Backed


class BlocksDouble(Backed):
    """imd.contracts.blocks.BlockStore: calls in `asked`, each with the Deferred that waits for its answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Deferred[Any]]] = []
        self.is_loaded = True

    def _ask(self, *question: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.asked.append((question, answer))
        return answer

    def block(self, user: str, other: str, on: bool) -> Deferred[Any]:
        return self._ask("block", user, other, on)

    def of(self, user: str) -> Deferred[Any]:
        return self._ask("of", user)

    def among(self, user: str, others: Collection[str]) -> Deferred[Any]:
        return self._ask("among", user, others)

    def loaded(self) -> bool:
        return self.is_loaded
