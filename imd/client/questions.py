"""Pages of history that are asked for: a few at a time, again on each connection, until a deadline."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MAX_IN_FLIGHT = 4
"""a node refuses more"""


@dataclass(slots=True)
class _Question:
    frame: dict[str, Any]
    deadline: float
    sent: bool = False


def history_frame(
    with_: str | None, group: Sequence[str] | None, everything: bool, before: str | None, limit: int
) -> dict[str, Any]:
    """Raises ValueError unless exactly one of the first three is asked for."""
    if [with_ is not None, group is not None, everything].count(True) != 1:
        raise ValueError("one of with_, group and everything is expected")
    frame: dict[str, Any] = {"type": "history", "ref": uuid.uuid4().hex[:12], "limit": limit}
    if with_ is not None:
        frame["with"] = with_
    elif group is not None:
        frame["group"] = list(group)
    else:
        frame["all"] = True
    if before is not None:
        frame["before"] = before
    return frame


class Questions:
    """By their ref. Times are the core's."""

    def __init__(self) -> None:
        self._all: dict[str, _Question] = {}

    def __contains__(self, ref: object) -> bool:
        return ref in self._all

    def add(self, frame: dict[str, Any], deadline: float) -> str:
        ref: str = frame["ref"]
        self._all[ref] = _Question(frame, deadline)
        return ref

    def to_send(self) -> Iterator[dict[str, Any]]:
        """Frames that may go out now; they then count as sent."""
        in_flight = sum(question.sent for question in self._all.values())
        for question in self._all.values():
            if in_flight >= MAX_IN_FLIGHT:
                return
            if not question.sent:
                question.sent = True
                in_flight += 1
                yield question.frame

    def done(self, ref: str) -> bool:
        """It is answered; False if it was not asked (any more)."""
        return self._all.pop(ref, None) is not None

    def again(self, ref: str) -> None:
        self._all[ref].sent = False

    def lost(self) -> None:
        """The connection is gone."""
        for question in self._all.values():
            question.sent = False

    def deadline(self) -> float | None:
        return min((question.deadline for question in self._all.values()), default=None)

    def overdue(self, now: float) -> list[str]:
        """Given up, with these refs."""
        refs = [ref for ref, question in self._all.items() if question.deadline <= now]
        for ref in refs:
            del self._all[ref]
        return refs

    def give_up(self) -> list[str]:
        refs = list(self._all)
        self._all.clear()
        return refs
