"""Requests for pages of history: a few at a time, again on each connection, until a deadline. No I/O."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imd.client.agenda import Agenda
from imd.client.effects import Answer
from imd.client.events import ClientError, Message, Page, Refusal, Refused, Unanswered
from imd.client.link import Link
from imd.client.reconnect import Backoff

MAX_IN_FLIGHT = 4
"""requests without an answer; a node refuses more"""


@dataclass(slots=True)
class _Request:
    frame: dict[str, Any]
    deadline: float
    sent: bool = False


def history_frame(
    with_: str | None, group: Sequence[str] | None, everything: bool, before: str | None, limit: int
) -> dict[str, Any]:
    """Raises ValueError unless exactly one of the first three is given."""
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


class History:
    """Requests by their ref."""

    def __init__(self, agenda: Agenda, link: Link, backoff: Backoff) -> None:
        self._agenda = agenda
        self._link = link
        self._backoff = backoff
        self._requests: dict[str, _Request] = {}

    def __contains__(self, ref: object) -> bool:
        return ref in self._requests

    def ask(self, frame: dict[str, Any], seconds: float) -> str:
        """Send a frame of `history_frame` when that is possible; gives its ref. `seconds`: until it fails."""
        ref: str = frame["ref"]
        self._requests[ref] = _Request(frame, self._agenda.seconds() + seconds)
        self.flush()
        return ref

    def flush(self) -> None:
        """Send every request that may be sent now."""
        if not self._link.is_open:
            return
        in_flight = sum(request.sent for request in self._requests.values())
        for request in self._requests.values():
            if in_flight >= MAX_IN_FLIGHT:
                return
            if not request.sent:
                request.sent = True
                in_flight += 1
                self._agenda.transmit(request.frame)

    # ---- from the node

    def answered(self, frame: Mapping[str, Any]) -> None:
        ref = frame.get("ref") or ""
        if self._requests.pop(ref, None) is not None:
            messages = [Message.of(each) for each in frame["messages"]]
            self._agenda.add(Answer(ref, Page(messages, bool(frame["more"]))))
        self.flush()

    def refused(self, ref: str, refusal: Refusal, temporary: bool, retry_seconds: float) -> None:
        """`retry_seconds`: the pause that the node asks for."""
        if temporary:
            self._requests[ref].sent = False
            self._agenda.later("ask", max(retry_seconds, self._backoff.next()), self.flush)
        else:
            del self._requests[ref]
            self._agenda.add(Answer(ref, Refused(refusal)))

    def lost(self) -> None:
        """The connection is gone: every request is sent again on the next one."""
        for request in self._requests.values():
            request.sent = False

    # ---- deadlines

    def deadline(self) -> float | None:
        return min((request.deadline for request in self._requests.values()), default=None)

    def end_overdue(self) -> None:
        now = self._agenda.seconds()
        for ref in [ref for ref, request in self._requests.items() if request.deadline <= now]:
            del self._requests[ref]
            self._agenda.add(Answer(ref, Unanswered("no page of history in time")))

    def end_all(self, error: ClientError) -> None:
        for ref in self._requests:
            self._agenda.add(Answer(ref, error))
        self._requests.clear()
