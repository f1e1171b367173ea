"""A batch of messages on its way through the acceptor: its entries, and the answers that they will get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from prometheus_client import Counter

from imd.chat.refusals import told
from imd.contracts.archive import ArchiveRecord, Record, left_out
from imd.contracts.inbox import (
    Closed,
    Conflict,
    Duplicate,
    Failed,
    Late,
    NoRoom,
    NotAllowed,
    NotMember,
    Outcome,
    Submission,
    TooManyNew,
)
from imd.protocol.errors import (
    CONFLICT,
    FORBIDDEN,
    INVALID_MESSAGE,
    NOT_FOUND,
    RATE_LIMITED,
    TOO_LARGE,
    UNAVAILABLE,
    Refused,
)
from imd.protocol.events import first_copy


class _LeftOut(msgspec.Struct):
    without: list[str] = []


_read_left_out = msgspec.json.Decoder(_LeftOut).decode

LATE = Counter(
    "imd_late_messages_total",
    "Messages and events answered with unavailable because they were not placed within 5 seconds.",
)
COLD = Counter(
    "imd_rooms_cold_total",
    "Messages and events answered with unavailable because the inboxes did not know their room.",
)
"""it could not be loaded, or the inboxes had forgotten it when the message came"""


class Refusal(msgspec.Struct, gc=False):
    """A message frame that is refused already, but answered in its turn."""

    origin: Any
    client_msg_id: str | None
    refused: Refused


class Answer(msgspec.Struct, gc=False):
    """The finished answer to a frame, which is sent in its turn."""

    origin: Any
    client_msg_id: str | None
    payload: bytes


Entry = Submission | Refusal | Answer


class Batch:
    """`others` has, by their place, answers other than `accepted`: bytes are sent as they are. `events` has
    the places and kinds of the events that were placed."""

    __slots__ = ("born", "done", "entries", "events", "others", "size", "submissions")

    def __init__(self, entries: list[Entry], size: int, born: float) -> None:
        self.entries = entries
        self.size = size
        self.submissions = [entry for entry in entries if type(entry) is Submission]
        self.others: dict[int, Refused | Duplicate | bytes] = {}
        self.events: list[tuple[int, str]] = []
        self.born = born
        self.done = False
        if len(self.submissions) != len(entries):
            for index, entry in enumerate(entries):
                if type(entry) is Refusal:
                    self.others[index] = entry.refused
                elif type(entry) is Answer:
                    self.others[index] = entry.payload

    def places(self) -> Sequence[int]:
        """Of the submissions among the entries."""
        if len(self.submissions) == len(self.entries):
            return range(len(self.entries))
        return [index for index, entry in enumerate(self.entries) if type(entry) is Submission]

    def refuse(self, index: int, code: str, reason: str, retry_after_ms: int | None = None) -> None:
        """The first refusal counts, and so does an answer that was known before."""
        if code == UNAVAILABLE:
            retry_after_ms = 1000
        if not isinstance(self.others.get(index), Refused | bytes):
            self.others[index] = Refused(code, reason, retry_after_ms=retry_after_ms)

    def refuse_all(self, reason: str) -> None:
        """Refuse every entry as `unavailable`, for a backend's reason."""
        reason = told(reason)
        for index in range(len(self.entries)):
            self.refuse(index, UNAVAILABLE, reason)

    def refuse_outcome(self, index: int, outcome: Outcome) -> None:
        """Refuse an entry that the inbox has not placed."""
        if isinstance(outcome, TooManyNew):
            self._refuse_new(index, outcome)
        elif isinstance(outcome, Conflict):
            self.refuse(index, INVALID_MESSAGE, "the clientMsgId was used for another message")
        elif isinstance(outcome, NotAllowed):
            self.refuse(index, FORBIDDEN, outcome.reason)
        elif isinstance(outcome, NotMember):
            self.refuse(index, NOT_FOUND, "no such room")
        elif isinstance(outcome, Closed):
            self.refuse(index, CONFLICT, "the room is closed")
        elif isinstance(outcome, NoRoom):
            COLD.inc()
            self.refuse(index, UNAVAILABLE, "the room is being loaded")
        elif isinstance(outcome, Late):
            LATE.inc()
            self.refuse(index, UNAVAILABLE, "not placed in time")
        elif isinstance(outcome, Failed):
            self.refuse(index, UNAVAILABLE, told(outcome.reason))

    def _refuse_new(self, index: int, outcome: TooManyNew) -> None:
        who = "ids that have never connected"
        if outcome.retry_after_ms is None:
            self.refuse(index, TOO_LARGE, f"group: too many {who}")
        else:
            self.refuse(index, RATE_LIMITED, f"too many messages to {who}", outcome.retry_after_ms)


def event_body(submission: Submission, version: int) -> bytes:
    """An event as the archive gets it. `version`: of its room, as it was placed."""
    if submission.room is not None:
        submission.body = submission.room.body(version)
    return _with_members(submission.body, submission.archived)


def first_record(submission: Submission, first: Duplicate) -> Record:
    """A resend as the archive got it, or should have got it, when it was placed first."""
    body = submission.body if submission.room is None else submission.room.body(first.version)
    body = first_copy(body, first.message_id, first.send_time, first.version)
    body = _with_members(body, _members(submission, first.without))
    return ArchiveRecord(body, first.agent) if first.agent else body


def partial_record(submission: Submission, without: Sequence[str]) -> bytes:
    """A message or event to a list as the archive gets it, if blocks have left out some recipients."""
    return _with_members(submission.body, _members(submission, without))


def _members(submission: Submission, without: Sequence[str]) -> bytes:
    """The members that the archive gets behind the body's own."""
    if not without:
        return submission.archived
    # An event goes to those only who got its message.
    return left_out(sorted({*_read_left_out(b"{%b}" % submission.archived).without, *without}))


def _with_members(body: bytes, members: bytes) -> bytes:
    """The JSON of an object, with more members behind its own."""
    return b"%b,%b}" % (body[:-1], members) if members else body
