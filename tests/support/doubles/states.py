"""A store of marks and settings whose answers a test gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from imd.contracts.state import Changes, Mark, Setting
from tests.support.doubles.backend import Backed


class StatesDouble(Backed):
    """imd.contracts.state.StateStore: calls in `asked`, each with the Deferred that waits for its answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Deferred[Any]]] = []
        self.clear: dict[str, str] = {}
        """the answer to `cleared`"""
        self.tell: Callable[[Sequence[Changes]], None] = lambda changes: None

    def _ask(self, *question: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.asked.append((question, answer))
        return answer

    def answer(self, result: Any, which: int = 0) -> Any:
        """Answer the oldest call, or the one with this number; gives the call."""
        question, answer = self.asked.pop(which)
        answer.callback(result)
        return question

    def fail(self, error: Exception, which: int = 0) -> None:
        self.asked.pop(which)[1].errback(error)

    def listen(self, changed: Callable[[Sequence[Changes]], None]) -> None:
        self.tell = changed

    def change(
        self, user: str, marks: Sequence[Mark], setting: Setting | None, since: int | None
    ) -> Deferred[Any]:
        return self._ask("change", user, marks, setting, since)

    def since(self, user: str, version: int | None) -> Deferred[Changes]:
        return self._ask("since", user, version)

    def versions(self, users: Sequence[str]) -> Deferred[dict[str, int]]:
        return self._ask("versions", users)

    def entries(self, user: str, conversations: Sequence[str]) -> Deferred[Any]:
        return self._ask("entries", user, conversations)

    def cleared(self, user: str) -> Deferred[dict[str, str]]:
        return succeed(self.clear)

    def touch(self, pairs: Sequence[tuple[str, str]]) -> Deferred[None]:
        return self._ask("touch", pairs)
