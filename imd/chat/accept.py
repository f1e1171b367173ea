"""Group commit: messages that arrive while a batch is under way go in together as the next.

A batch is placed in the inboxes by one call, then its hints go out, then it is published to the archive
queue as one. Only when that has been confirmed are its senders answered. Batches are answered in the
order they were made, so each sender gets its answers in the order it sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Protocol

from prometheus_client import Counter, Gauge, Histogram
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.batch import Batch, Entry, Refusal, event_body, first_record, partial_record
from imd.contracts.archive import ArchiveQueue, ArchiveRecord, Record
from imd.contracts.inbox import (
    Delivery,
    Duplicate,
    Failed,
    Inbox,
    NoRoom,
    Outcome,
    Placed,
    PlacedPartly,
    Submission,
)
from imd.observe.seldom import Seldom
from imd.observe.trace import TRACE
from imd.protocol.errors import Refused, Unavailable, unavailable
from imd.protocol.ids import ServerClock

ACCEPTED = Counter("imd_accepted_messages_total", "Messages answered with accepted.", ["kind"])
EVENTS = Counter("imd_accepted_events_total", "Events answered with accepted for the first time.", ["kind"])
ACCEPT_SECONDS = Histogram(
    "imd_accept_seconds",
    "From a batch's oldest message to its answers.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BATCH_MESSAGES = Histogram(
    "imd_accept_batch_messages", "Messages in a batch.", buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)
)
WAITING = Gauge("imd_accept_waiting_messages", "Messages that wait to go into a batch (bound: 50,000).")
WAITING_BYTES = Gauge("imd_accept_waiting_bytes", "Size of the messages that wait (bound: 64 MiB).")
IN_FLIGHT = Gauge("imd_accept_batches_in_flight", "Batches that are not answered yet (bound: 64).")

UNCHECKED = Counter(
    "imd_unchecked_messages_total",
    "Messages and events that were placed while the inboxes did not know all lists of blocked users.",
)

_ACCEPTED_NEW = ACCEPTED.labels("new")
_ACCEPTED_AGAIN = ACCEPTED.labels("resent")

# The inbox does nothing else while it places a batch, so its work is bound: to some 15 ms. Most is to open
# inboxes and to write them. A message to a list or a room, behind another to the same, finds them open: it
# costs Redis a sixth, 15 thousand instructions for each inbox instead of 90.
BATCH_WORK = 7_000
OPENING_WORK = 6
BATCH_BYTES = 1 << 20
MAX_WAITING = 50_000
MAX_WAITING_BYTES = 64 << 20
# One waiting message in so many has its time of arrival noted. The others cost nothing.
MARK_EVERY = 64
MAX_SCRIPTS_IN_FLIGHT = 4
# As many as the archive queue takes without a confirm, and fewer bytes: what is in an inbox has room there.
MAX_BATCHES_IN_FLIGHT = 64
MAX_BYTES_IN_FLIGHT = 12 << 20


class Sender(Protocol):
    """The receiver of the answer."""

    def message_accepted(self, client_msg_id: str | None, message_id: str, send_time: int) -> None: ...

    def message_refused(self, client_msg_id: str | None, refused: Refused) -> None: ...

    def frame_answered(self, payload: bytes) -> None: ...


class Acceptor:
    """`call_soon` runs a function in the reactor's next turn; `deliver` sends hints of what was placed;
    `handed_over` tells the archive which agents got a visitor's older messages.

    `call_failed` is told which part failed a call, by the names that /readyz uses, and why. `blocks_loaded`
    tells whether the inbox knows all lists of blocked users.
    """

    log = Logger()

    def __init__(
        self,
        inbox: Inbox,
        queue: ArchiveQueue,
        deliver: Callable[[Sequence[Delivery]], None],
        clock: ServerClock,
        call_soon: Callable[[Callable[[], None]], object],
        handed_over: Callable[[Sequence[ArchiveRecord]], None],
        call_failed: Callable[[str, str], None] = lambda part, reason: None,
        room_heard: Callable[[str, int], None] = lambda room, members: None,
        blocks_loaded: Callable[[], bool] = lambda: True,
    ) -> None:
        self._inbox = inbox
        self._queue = queue
        self._deliver = deliver
        self._clock = clock
        self._call_soon = call_soon
        self._handed_over = handed_over
        self._call_failed = call_failed
        self._room_heard = room_heard
        self._blocks_loaded = blocks_loaded
        self._seldom = Seldom(self.log, clock.monotonic)
        self._waiting: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._taken = 0
        self._marks: deque[tuple[int, float]] = deque()
        """for one waiting message in MARK_EVERY: how many came before it, and when it came"""
        self._next_mark = 0
        """the length of `waiting` at which the next mark is due"""
        self._scheduled = False
        self._starting = False
        self._scripts = 0
        self._batches: deque[Batch] = deque()
        self._bytes_in_flight = 0
        self._idle: list[Deferred[None]] = []

    # from connections

    def submit(self, entry: Entry) -> None:
        """Take a message frame; its sender gets exactly one answer."""
        waiting = self._waiting
        length = len(waiting)
        if type(entry) is Submission:
            if length >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES:
                refused = unavailable("too many messages are waiting")
                entry = Refusal(entry.origin, entry.client_msg_id, refused)
            else:
                self._waiting_bytes += len(entry.body)
        if length >= self._next_mark:
            self._marks.append((self._taken + length, self._clock.monotonic()))
            self._next_mark = length + MARK_EVERY
        waiting.append(entry)
        if not self._scheduled and self._may_start():
            self._scheduled = True
            self._call_soon(self._flush)

    # from the node

    def drained(self) -> Deferred[None]:
        """Fires when everything that was submitted has been answered."""
        if not self._waiting and not self._batches:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._idle.append(done)
        return done

    # from those who look at the archive

    def oldest_ms(self) -> int | None:
        """When the id of the oldest message that is not answered was made, ms; None if all are answered."""
        for submission in chain((one for batch in self._batches for one in batch.submissions), self._waiting):
            if type(submission) is Submission:
                return int(submission.message_id[:12], 16)
        return None

    # from within

    def _may_start(self) -> bool:
        return (
            self._scripts < MAX_SCRIPTS_IN_FLIGHT
            and len(self._batches) < MAX_BATCHES_IN_FLIGHT
            and self._bytes_in_flight < MAX_BYTES_IN_FLIGHT
        )

    def _flush(self) -> None:
        self._scheduled = False
        self._answer_done()
        self._start()

    def _start(self) -> None:
        """Place waiting messages, as far as may be. Refused ones make room, so repeat until nothing moves."""
        if self._starting:
            return
        self._starting = True
        try:
            while self._waiting and self._may_start():
                batch = self._take()
                self._batches.append(batch)
                self._bytes_in_flight += batch.size
                self._place(batch)
                self._answer_done()
        finally:
            self._starting = False
        WAITING.set(len(self._waiting))
        WAITING_BYTES.set(self._waiting_bytes)
        IN_FLIGHT.set(len(self._batches))

    def _take(self) -> Batch:
        """The next messages, up to the bounds of a batch; at least one."""
        waiting = self._waiting
        entries: list[Entry] = []
        work = size = 0
        met: set[object] = set()
        while waiting:
            entry = waiting[0]
            if type(entry) is Submission:
                count = len(entry.recipients)
                work += OPENING_WORK if count == 1 else _work(entry, count, met)
                size += len(entry.body)
                if entries and (work > BATCH_WORK or size > BATCH_BYTES):
                    size -= len(entry.body)
                    break
            entries.append(waiting.popleft())
        self._waiting_bytes -= size
        return Batch(entries, size, self._came_at(len(entries)))

    def _came_at(self, count: int) -> float:
        """When the oldest of the `count` that were just taken came, or one of the MARK_EVERY before it."""
        marks = self._marks
        born = marks[0][1]
        self._taken += count
        while len(marks) > 1 and marks[1][0] <= self._taken:
            marks.popleft()
        if self._waiting:
            self._next_mark -= count
        else:
            marks.clear()
            self._next_mark = 0
        return born

    def _place(self, batch: Batch) -> None:
        problem = self._inbox.problem() or self._queue.problem()
        if problem is not None:
            # A message that cannot be archived is not delivered over and over.
            batch.refuse_all(problem)
        if problem is not None or not batch.submissions:
            batch.done = True
            return
        BATCH_MESSAGES.observe(len(batch.submissions))
        self._scripts += 1
        placed = self._inbox.accept(batch.submissions)
        placed.addBoth(self._script_answered)
        placed.addCallback(self._placed, batch).addErrback(self._fail, batch, "inbox")

    def _script_answered(self, result: Any) -> Any:
        self._scripts -= 1
        # The next call starts before the hints go out: the inbox works while this node sends them.
        self._start()
        return result

    def _placed(self, outcomes: Sequence[Outcome], batch: Batch) -> None:
        if TRACE.on:
            TRACE.placed(batch.submissions, outcomes)
        deliveries: list[Delivery] = []
        records: list[Record] = []
        for index, submission, outcome in zip(batch.places(), batch.submissions, outcomes, strict=True):
            if type(outcome) is Placed:
                deliveries += outcome.deliveries
                body = submission.body
                if submission.kind:
                    batch.events.append((index, submission.kind))
                    body = event_body(submission, outcome.version)
                    self._note_room(submission, outcome.members)
                if outcome.agent:
                    records.append(ArchiveRecord(body, outcome.agent))
                    earlier = [d for d in outcome.deliveries if d.body != submission.body]
                    if earlier:
                        self._handed_over([ArchiveRecord(d.body, d.user) for d in earlier])
                else:
                    records.append(body)
            elif type(outcome) is PlacedPartly:
                deliveries += outcome.deliveries
                if submission.kind:
                    batch.events.append((index, submission.kind))
                records.append(partial_record(submission, outcome.without))
            elif type(outcome) is Duplicate:
                # The first copy may have missed the archive. It goes there under its first id.
                batch.others[index] = outcome
                records.append(first_record(submission, outcome))
            else:
                batch.refuse_outcome(index, outcome)
                if type(outcome) is NoRoom:
                    self._note_room(submission, 0)
        if not self._blocks_loaded():
            UNCHECKED.inc(sum(isinstance(outcome, Placed) for outcome in outcomes))
        failed = [outcome.reason for outcome in outcomes if type(outcome) is Failed]
        if failed:
            self._seldom.error("{n} messages could not be placed: {reason}", n=len(failed), reason=failed[0])
        self._deliver(deliveries)
        if records:
            published = self._queue.publish(records)
            if TRACE.on:
                TRACE.publishing(records, published)
            published.addCallback(self._published, batch).addErrback(self._fail, batch, "archive queue")
        else:
            batch.done = True
        self._flush()

    def _note_room(self, submission: Submission, members: int) -> None:
        if submission.room is not None:
            self._room_heard(submission.room.room, members)

    def _published(self, _: None, batch: Batch) -> None:
        batch.done = True
        self._flush()

    def _fail(self, failure: Failure, batch: Batch, part: str) -> None:
        if failure.check(Unavailable):
            self._seldom.warn("a batch failed: {reason}", reason=failure.getErrorMessage())
            self._call_failed(part, failure.getErrorMessage())
        else:
            self._seldom.failure("a batch failed", failure)
        if batch.done:
            return
        batch.refuse_all(failure.getErrorMessage())
        batch.done = True
        self._flush()

    def _answer_done(self) -> None:
        """Answer the oldest batches, as far as they are done."""
        batches = self._batches
        while batches and batches[0].done:
            batch = batches.popleft()
            self._bytes_in_flight -= batch.size
            self._answer(batch)
            ACCEPT_SECONDS.observe(self._clock.monotonic() - batch.born)
        if not batches and not self._waiting:
            idle, self._idle = self._idle, []
            for done in idle:
                done.callback(None)

    def _answer(self, batch: Batch) -> None:
        others = batch.others
        accepted = again = 0
        if TRACE.on:
            TRACE.answered(batch.entries, others)
        for index, entry in enumerate(batch.entries):
            other = others.get(index) if others else None
            try:
                if other is None:
                    assert type(entry) is Submission
                    accepted += 1
                    entry.origin.message_accepted(entry.client_msg_id, entry.message_id, entry.send_time)
                elif isinstance(other, Refused):
                    entry.origin.message_refused(entry.client_msg_id, other)
                elif isinstance(other, bytes):
                    entry.origin.frame_answered(other)
                else:
                    again += 1
                    entry.origin.message_accepted(entry.client_msg_id, other.message_id, other.send_time)
            except Exception:
                # A sender that fails must not cost the others their answers.
                self._seldom.failure("a sender could not be answered", Failure())
        for index, kind in batch.events:
            if index not in others:
                EVENTS.labels(kind).inc()
        _ACCEPTED_NEW.inc(accepted)
        _ACCEPTED_AGAIN.inc(again)


def _work(submission: Submission, count: int, met: set[object]) -> int:
    """The part of BATCH_WORK that a submission to other than one user takes.

    `count`: of its recipients. `met`: the lists and rooms before it in the batch, to which it is added.
    """
    aim = submission.room
    if aim is not None:
        count = 1 if aim.to_nobody else aim.size
    if count <= 1:
        return OPENING_WORK
    target = aim.room if aim is not None else tuple(submission.recipients)
    if target in met:
        return count
    met.add(target)
    return OPENING_WORK * count
