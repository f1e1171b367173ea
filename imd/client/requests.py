"""Questions to the node, such as pages of history. No I/O.

A few are asked at a time, again on each connection, until a deadline.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from imd.client.agenda import Agenda
from imd.client.conversation import Conversation, of_frame
from imd.client.effects import Answer
from imd.client.events import (
    Changes,
    ClientError,
    ConversationPage,
    ListedConversation,
    MemberPage,
    Page,
    Refused,
    RoomInfo,
    RoomPage,
    Unanswered,
)
from imd.client.link import Link
from imd.client.numbered import Change, Member, Message, RoomEvent, entry_of
from imd.client.outgoing import NO_EVENTS, Refusal
from imd.client.reconnect import Backoff
from imd.client.sound import check_sound

MAX_IN_FLIGHT = 4
"""requests without an answer; a node refuses more"""
KINDS = ("history", "messages", "changes", "rooms", "members", "conversations", "block", "blocked")

Result = Any
Then = Callable[[Result | ClientError], None]


@dataclass(slots=True)
class _Request:
    frame: dict[str, Any]
    deadline: float
    then: Then | None
    """called with the node's frame or an error; None: the shell gets an Answer"""
    sent: bool = False


def question(kind: str, **fields: Any) -> dict[str, Any]:
    """A frame with a ref of its own; fields that are None are left out.

    Raises ValueError for a lone surrogate.
    """
    frame = {"type": kind, "ref": uuid.uuid4().hex[:12]}
    frame |= {name: value for name, value in fields.items() if value is not None}
    check_sound(frame)
    return frame


def selector(
    with_: str | None, group: Sequence[str] | None, room: str | None, everything: bool
) -> dict[str, Any]:
    """The fields that name a conversation. Raises ValueError unless exactly one is given."""
    if [with_ is not None, group is not None, room is not None, everything].count(True) != 1:
        raise ValueError("one of with_, group, room and everything is expected")
    if with_ is not None:
        return {"with": with_}
    if group is not None:
        return {"group": list(group)}
    return {"all": True} if room is None else {"room": room}


class Requests:
    """Questions by their ref."""

    def __init__(self, agenda: Agenda, link: Link, backoff: Backoff) -> None:
        self._agenda = agenda
        self._link = link
        self._backoff = backoff
        self._requests: dict[str, _Request] = {}

    def __contains__(self, ref: object) -> bool:
        return ref in self._requests

    def ask(self, frame: dict[str, Any], seconds: float, then: Then | None = None) -> str:
        """Send a frame of `question` when that is possible; gives its ref. `seconds`: until it fails."""
        ref: str = frame["ref"]
        self._requests[ref] = _Request(frame, self._agenda.seconds() + seconds, then)
        self.flush()
        return ref

    def flush(self) -> None:
        """Send every request that may be sent now."""
        if not self._link.is_open:
            return
        in_flight = sum(request.sent for request in self._requests.values())
        for request in list(self._requests.values()):
            if in_flight >= MAX_IN_FLIGHT:
                return
            if _needs_events(request.frame) and not self._link.knows_events:
                self._settle(request.frame["ref"], Refused(NO_EVENTS))
            elif not request.sent:
                request.sent = True
                in_flight += 1
                self._agenda.transmit(request.frame)

    # ---- from the node

    def answered(self, frame: Mapping[str, Any]) -> None:
        ref = frame.get("ref") or ""
        request = self._requests.get(ref)
        if request is not None:
            result = frame if request.then is not None else result_of(frame)
            self._settle(ref, result)
        self.flush()

    def refused(self, ref: str, refusal: Refusal, temporary: bool, retry_seconds: float) -> None:
        """`retry_seconds`: the pause that the node asks for."""
        if temporary:
            self._requests[ref].sent = False
            self._agenda.later("ask", max(retry_seconds, self._backoff.next()), self.flush)
        else:
            self._settle(ref, Refused(refusal))
            self.flush()

    def lost(self) -> None:
        """The connection is gone: the program's requests are sent again on the next one."""
        self._requests = {ref: request for ref, request in self._requests.items() if request.then is None}
        for request in self._requests.values():
            request.sent = False

    # ---- deadlines

    def deadline(self) -> float | None:
        return min((request.deadline for request in self._requests.values()), default=None)

    def end_overdue(self) -> None:
        now = self._agenda.seconds()
        for ref in [ref for ref, request in self._requests.items() if request.deadline <= now]:
            self._settle(ref, Unanswered("no answer in time"))

    def end_all(self, error: ClientError) -> None:
        for ref in list(self._requests):
            self._settle(ref, error)

    def _settle(self, ref: str, result: Result | ClientError) -> None:
        request = self._requests.pop(ref)
        if request.then is not None:
            request.then(result)
        else:
            self._agenda.add(Answer(ref, result))


def _needs_events(frame: Mapping[str, Any]) -> bool:
    return frame["type"] != "history" or not frame.keys().isdisjoint(("room", "after", "around"))


def result_of(frame: Mapping[str, Any]) -> Result:
    """The answer as programs see it."""
    match frame["type"]:
        case "history":
            return Page(_shown(frame["messages"]), bool(frame["more"]), bool(frame.get("moreAfter")))
        case "messages":
            return _shown(frame["messages"])
        case "changes":
            found = [entry for each in frame["events"] if (entry := entry_of(each)) is not None]
            events = [entry for entry in found if isinstance(entry, Change | RoomEvent)]
            return Changes(events, bool(frame["more"]), frame["complete"])
        case "conversations":
            return ConversationPage([listed(each) for each in frame["conversations"]], bool(frame["more"]))
        case "block":
            return None
        case "blocked":
            return list(frame["users"])
        case "rooms":
            return RoomPage([_room_info(each) for each in frame["rooms"]], bool(frame["more"]))
        case _:
            users = [Member(each["userId"], each["role"]) for each in frame["users"]]
            return MemberPage(frame["room"], frame["version"], users, bool(frame["more"]))


def _shown(frames: Iterable[Mapping[str, Any]]) -> list[Message | RoomEvent]:
    """The entries that a history shows; others are left out."""
    return [entry for each in frames if isinstance(entry := entry_of(each), Message | RoomEvent)]


def listed(frame: Mapping[str, Any]) -> ListedConversation:
    """An entry of the list. Raises KeyError without its place."""
    known = of_frame(frame)
    last = frame.get("last")
    marks = {each.name: getattr(known, each.name) for each in fields(Conversation)}
    return ListedConversation(
        **(marks | {"mark": known.read}),
        at=frame["at"],
        last=None if last is None else Message.of(last),
        unread=frame.get("unread") or 0,
        name=frame.get("name") or "",
        version=frame.get("version") or 0,
    )


def _room_info(frame: Mapping[str, Any]) -> RoomInfo:
    return RoomInfo(
        room=frame["room"],
        name=frame["name"],
        role=frame["role"],
        count=frame["count"],
        version=frame["version"],
        posting=frame.get("posting") or "all",
        history=frame.get("history") or "joined",
        joining=frame.get("joining") or "invite",
        data=frame.get("data"),
        closed=bool(frame.get("closed")),
    )
