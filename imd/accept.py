"""Group commit: messages that arrive while a batch is under way go in together as the next.

A batch is placed in the inboxes by one call, then its hints go out, then it is published to the archive
queue as one. Only when that has been confirmed are its senders answered. Batches are answered in the
order they were made, so each sender gets its answers in the order it sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from prometheus_client import Counter, Gauge, Histogram
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.errors import FORBIDDEN, INVALID_MESSAGE, UNAVAILABLE, Refused, Unavailable
from imd.ids import ServerClock
from imd.interfaces import (
    ArchiveQueue,
    ArchiveRecord,
    Conflict,
    Delivery,
    Duplicate,
    Failed,
    Inbox,
    NotAllowed,
    Outcome,
    Placed,
    Submission,
)
from imd.message import decode_message, encode_message
from imd.trace import TRACE

ACCEPTED = Counter("imd_accepted_messages_total", "Messages answered with accepted.", ["kind"])
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
IN_FLIGHT = Gauge("imd_accept_batches_in_flight", "Batches that are not answered yet (bound: 66).")

_ACCEPTED_NEW = ACCEPTED.labels("new")
_ACCEPTED_AGAIN = ACCEPTED.labels("resent")

BATCH_DELIVERIES = 5_000
BATCH_BYTES = 1 << 20
MAX_WAITING = 50_000
MAX_WAITING_BYTES = 64 << 20
MAX_SCRIPTS_IN_FLIGHT = 2
MAX_BATCHES_IN_FLIGHT = 66


class Sender(Protocol):
    """Who gets the answer."""

    def message_accepted(self, client_msg_id: str | None, message_id: str, send_time: int) -> None: ...

    def message_refused(self, client_msg_id: str | None, refused: Refused) -> None: ...


class Pending(msgspec.Struct, gc=False):
    """A message frame that waits for its answer; without a submission it is refused already, but in turn."""

    sender: Any
    client_msg_id: str | None
    submission: Submission | None
    refused: Refused | None = None
    first: Duplicate | None = None
    """what it was answered with when it came first"""


class _Batch:
    __slots__ = ("born", "done", "entries")

    def __init__(self, entries: list[Pending], born: float) -> None:
        self.entries = entries
        self.born = born
        self.done = False


class Acceptor:
    """`call_soon` runs a function in the reactor's next turn; `deliver` sends hints of what was placed."""

    log = Logger()

    def __init__(
        self,
        inbox: Inbox,
        queue: ArchiveQueue,
        deliver: Callable[[Sequence[Delivery]], None],
        clock: ServerClock,
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self._inbox = inbox
        self._queue = queue
        self._deliver = deliver
        self._clock = clock
        self._call_soon = call_soon
        self._waiting: deque[Pending] = deque()
        self._waiting_bytes = 0
        self._oldest = 0.0
        self._scheduled = False
        self._scripts = 0
        self._batches: deque[_Batch] = deque()
        self._idle: list[Deferred[None]] = []

    # from connections

    def submit(self, pending: Pending) -> None:
        """Take a message frame; its sender gets exactly one answer."""
        submission = pending.submission
        if submission is not None:
            if len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES:
                pending.submission = None
                pending.refused = Refused(UNAVAILABLE, "too many messages are waiting", retry_after_ms=1000)
            else:
                self._waiting_bytes += len(submission.body)
        if not self._waiting:
            self._oldest = self._clock.monotonic()
        self._waiting.append(pending)
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

    # from within

    def _may_start(self) -> bool:
        return self._scripts < MAX_SCRIPTS_IN_FLIGHT and len(self._batches) < MAX_BATCHES_IN_FLIGHT

    def _flush(self) -> None:
        self._scheduled = False
        self._answer_done()
        # What has been answered makes room, and what is refused at once needs none: until nothing moves.
        while self._waiting and self._may_start():
            batch = _Batch(self._take(), self._oldest)
            self._oldest = self._clock.monotonic()
            self._batches.append(batch)
            self._place(batch)
            self._answer_done()
        WAITING.set(len(self._waiting))
        WAITING_BYTES.set(self._waiting_bytes)
        IN_FLIGHT.set(len(self._batches))

    def _take(self) -> list[Pending]:
        """The next messages, up to the bounds of a batch; at least one."""
        waiting = self._waiting
        entries: list[Pending] = []
        deliveries = size = 0
        while waiting:
            submission = waiting[0].submission
            if submission is not None:
                deliveries += len(submission.recipients) or 1
                size += len(submission.body)
                if entries and (deliveries > BATCH_DELIVERIES or size > BATCH_BYTES):
                    break
                self._waiting_bytes -= len(submission.body)
            entries.append(waiting.popleft())
        return entries

    def _place(self, batch: _Batch) -> None:
        problem = self._inbox.problem() or self._queue.problem()
        if problem is not None:
            # What cannot be archived is not delivered over and over.
            for entry in batch.entries:
                self._refuse(entry, UNAVAILABLE, problem)
        submissions = [entry.submission for entry in batch.entries if entry.submission is not None]
        if not submissions:
            batch.done = True
            return
        BATCH_MESSAGES.observe(len(submissions))
        self._scripts += 1
        placed = self._inbox.accept(submissions)
        placed.addBoth(self._script_answered)
        placed.addCallback(self._placed, batch).addErrback(self._fail, batch)

    def _script_answered(self, result: Any) -> Any:
        self._scripts -= 1
        return result

    def _placed(self, outcomes: Sequence[Outcome], batch: _Batch) -> None:
        placed = [entry for entry in batch.entries if entry.submission is not None]
        if TRACE.on:
            TRACE.placed([entry.submission for entry in placed if entry.submission], outcomes)
        deliveries: list[Delivery] = []
        records: list[ArchiveRecord] = []
        for entry, outcome in zip(placed, outcomes, strict=True):
            submission = entry.submission
            assert submission is not None
            if type(outcome) is Placed:
                deliveries += outcome.deliveries
                records.append(ArchiveRecord(submission.body, outcome.agent))
                if outcome.agent:
                    # What the visitor had waiting came along: its agent takes part in that, too.
                    records += [
                        ArchiveRecord(delivery.body, outcome.agent)
                        for delivery in outcome.deliveries
                        if delivery.body != submission.body
                    ]
            elif type(outcome) is Duplicate:
                # The first copy may have missed the archive. It goes there under its first id.
                entry.first = outcome
                records.append(_first_copy(submission.body, outcome))
            else:
                self._refuse_outcome(entry, outcome)
        failed = [outcome.reason for outcome in outcomes if isinstance(outcome, Failed)]
        if failed:
            self.log.error("{n} messages could not be placed: {reason}", n=len(failed), reason=failed[0])
        self._deliver(deliveries)
        if records:
            published = self._queue.publish(records)
            if TRACE.on:
                TRACE.publishing(records, published)
            published.addCallback(self._published, batch).addErrback(self._fail, batch)
        else:
            batch.done = True
        self._flush()

    def _published(self, _: None, batch: _Batch) -> None:
        batch.done = True
        self._flush()

    def _fail(self, failure: Failure, batch: _Batch) -> None:
        if failure.check(Unavailable):
            self.log.warn("a batch failed: {reason}", reason=failure.getErrorMessage())
        else:
            self.log.failure("a batch failed", failure)
        if batch.done:
            return
        for entry in batch.entries:
            self._refuse(entry, UNAVAILABLE, failure.getErrorMessage())
        batch.done = True
        self._flush()

    def _refuse(self, entry: Pending, code: str, reason: str) -> None:
        if entry.refused is None:
            entry.refused = Refused(code, reason, retry_after_ms=1000 if code == UNAVAILABLE else None)
        entry.submission = None

    def _refuse_outcome(self, entry: Pending, outcome: Outcome) -> None:
        if isinstance(outcome, Conflict):
            self._refuse(entry, INVALID_MESSAGE, "the clientMsgId was used for another message")
        elif isinstance(outcome, NotAllowed):
            self._refuse(entry, FORBIDDEN, outcome.reason)
        elif isinstance(outcome, Failed):
            self._refuse(entry, UNAVAILABLE, outcome.reason)

    def _answer_done(self) -> None:
        """Answer the oldest batches, as far as they are done."""
        batches = self._batches
        while batches and batches[0].done:
            batch = batches.popleft()
            self._answer(batch)
            ACCEPT_SECONDS.observe(self._clock.monotonic() - batch.born)
        if not batches and not self._waiting:
            idle, self._idle = self._idle, []
            for done in idle:
                done.callback(None)

    def _answer(self, batch: _Batch) -> None:
        fresh = again = 0
        if TRACE.on:
            TRACE.answered([(entry.submission, entry.first) for entry in batch.entries if entry.submission])
        for entry in batch.entries:
            try:
                submission = entry.submission
                if submission is None:
                    assert entry.refused is not None
                    entry.sender.message_refused(entry.client_msg_id, entry.refused)
                    continue
                first = entry.first
                if first is not None:
                    again += 1
                    entry.sender.message_accepted(entry.client_msg_id, first.message_id, first.send_time)
                else:
                    fresh += 1
                    entry.sender.message_accepted(
                        entry.client_msg_id, submission.message_id, submission.send_time
                    )
            except Exception:
                # One that cannot take its answer costs nobody else an answer.
                self.log.failure("a sender could not be answered")
        _ACCEPTED_NEW.inc(fresh)
        _ACCEPTED_AGAIN.inc(again)


def _first_copy(body: bytes, first: Duplicate) -> ArchiveRecord:
    message = decode_message(body)
    message.id = first.message_id
    message.send_time = first.send_time
    return ArchiveRecord(encode_message(message), first.agent)
