"""imd.contracts.inbox.Inbox in dicts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, succeed

from imd.contracts.inbox import (
    Ack,
    Conflict,
    ConnectOutcome,
    ConnectRequest,
    Delivery,
    Duplicate,
    Head,
    Lease,
    Leave,
    Outcome,
    Page,
    Placed,
    Registered,
    Sent,
    Submission,
    Superseded,
    TooManyChannels,
)
from imd.protocol.errors import Unavailable
from tests.support.doubles.backend import Backed

UNCONFIRMED = "-"
"""in place of a cursor's epoch: the device has not shown that it read `recovered: false`"""


@dataclass
class Held:
    """An inbox in memory: messages low + 1 … head, and who reads them."""

    epoch: str
    head: int = 0
    low: int = 0
    messages: dict[int, bytes] = field(default_factory=dict)
    channels: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    """device → channel and attempt"""
    cursors: dict[str, tuple[str, int]] = field(default_factory=dict)
    """device → epoch and number"""

    def trim(self, low: int) -> None:
        for seq in range(self.low + 1, low + 1):
            self.messages.pop(seq, None)
        self.low = max(self.low, low)


class InboxDouble(Backed):
    """imd.contracts.inbox.Inbox in dicts.

    A call waits in `calls` until `perform` does its work; its answer waits in `answers` until `answer`
    lets it arrive. Both are first in, first out, as with one connection to a store. `settle` does all.
    """

    def __init__(self, max_messages: int = 10_000, channels_per_user: int = 32) -> None:
        self.max_messages = max_messages
        self.channels_per_user = channels_per_user
        self.inboxes: dict[str, Held] = {}
        self.sent: dict[tuple[str, str, str], tuple[str, str, int]] = {}
        self.visitors: dict[str, str] = {}
        self.agents: dict[str, str] = {}
        self.desk: deque[list[Delivery]] = deque()
        self.refusals: dict[str, Outcome] = {}
        """recipient → what a message to it comes to"""
        self.era_word = "an era"
        self.calls: deque[tuple[str, Deferred[Any], Callable[[], Any]]] = deque()
        self.answers: deque[tuple[Deferred[Any], Any]] = deque()
        self.asked: list[tuple[str, Any]] = []
        """every call ever made: its name and argument"""
        self._epochs = 0

    # from tests

    def perform(self) -> bool:
        """Do the oldest call's work; False if there is none."""
        if not self.calls:
            return False
        _, answer, work = self.calls.popleft()
        self.answers.append((answer, work()))
        return True

    def answer(self) -> bool:
        """Let the oldest answer arrive; False if there is none."""
        if not self.answers:
            return False
        answer, result = self.answers.popleft()
        answer.callback(result)
        return True

    def settle(self) -> None:
        """Do and answer everything, and what comes of it. Fails if it never ends."""
        for _ in range(10_000):
            if not self.perform() and not self.answer():
                return
        raise AssertionError("it asks the inbox for ever")

    def lose_answer(self) -> bool:
        """The oldest answer that is under way never arrives."""
        if not self.answers:
            return False
        self.answers.popleft()[0].errback(Unavailable("the answer was lost"))
        return True

    def refuse(self) -> bool:
        """The oldest call is never done."""
        if not self.calls or self.answers:
            return False
        self.calls.popleft()[1].errback(Unavailable("the inbox is down"))
        return True

    def register(self, request: ConnectRequest) -> Registered:
        """Register a channel at once; not for one that may be refused."""
        outcomes: list[ConnectOutcome] = []
        self.connect(request).addCallback(outcomes.append)
        self.settle()
        [registered] = outcomes
        assert isinstance(registered, Registered), registered
        return registered

    def names(self) -> list[str]:
        """The calls not yet done."""
        return [name for name, _, _ in self.calls]

    def of(self, user: str) -> Held:
        if user not in self.inboxes:
            self.inboxes[user] = Held(self._new_epoch())
        return self.inboxes[user]

    def place(self, user: str, body: bytes = b"") -> Delivery:
        """Put a message into an inbox, at once; gives what its channels may be told."""
        held = self.of(user)
        held.head += 1
        held.messages[held.head] = body = body or b'{"msg":"%d"}' % held.head
        held.trim(held.head - self.max_messages)
        channels = [channel for channel, _ in held.channels.values()]
        return Delivery(user, held.epoch, held.head, channels, body)

    def go_back(self, user: str, lost: int) -> None:
        """The store has lost the newest messages: a new epoch."""
        held = self.of(user)
        head = max(held.low, held.head - lost)
        for seq in range(head + 1, held.head + 1):
            del held.messages[seq]
        held.head = head
        held.epoch = self._new_epoch()

    def _new_epoch(self) -> str:
        self._epochs += 1
        return f"e{self._epochs}"

    # Inbox

    def _call(self, name: str, argument: Any, work: Callable[[], Any]) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.asked.append((name, argument))
        self.calls.append((name, answer, work))
        return answer

    def accept(self, batch: Sequence[Submission]) -> Deferred[list[Outcome]]:
        return self._call("accept", batch, lambda: [self._accept(submission) for submission in batch])

    def sent_before(self, user: str, device: str, client_msg_id: str) -> Deferred[Sent | None]:
        key = (user, device, client_msg_id)
        return self._call("sent_before", key, lambda: Sent(*self.sent[key]) if key in self.sent else None)

    def connect(self, request: ConnectRequest) -> Deferred[ConnectOutcome]:
        return self._call("connect", request, lambda: self._connect(request))

    def pull(self, user: str, epoch: str, after: int, limit: int) -> Deferred[Page]:
        return self._call("pull", (after, limit), lambda: self._page(user, epoch, after, limit))

    def ack(self, ack: Ack) -> Deferred[Head]:
        return self._call("ack", ack, lambda: self._ack(ack))

    def renew(self, lease: Lease) -> Deferred[Head]:
        return self._call("renew", lease, lambda: self._head(lease))

    def leave(self, leave: Leave) -> Deferred[None]:
        return self._call("leave", leave, lambda: self._leave(leave))

    def era(self) -> Deferred[str]:
        return succeed(self.era_word)

    def serve_desk(self) -> Deferred[list[Delivery]]:
        return self._call("serve_desk", None, lambda: self.desk.popleft() if self.desk else [])

    def agent_of(self, visitor: str) -> Deferred[str]:
        return self._call("agent_of", visitor, lambda: self.agents.get(visitor, ""))

    def remember_visitor(self, visitor: str, token_hash: str) -> Deferred[None]:
        return self._call("remember_visitor", visitor, lambda: self.visitors.__setitem__(visitor, token_hash))

    def knows_visitor(self, visitor: str, token_hash: str) -> Deferred[bool]:
        return self._call("knows_visitor", visitor, lambda: self.visitors.get(visitor) == token_hash)

    # the work

    def _accept(self, submission: Submission) -> Outcome:
        for recipient in submission.recipients:
            if recipient in self.refusals:
                return self.refusals[recipient]
        if submission.client_msg_id is not None:
            key = (submission.sender, submission.device, submission.client_msg_id)
            if key in self.sent:
                checksum, message_id, send_time = self.sent[key]
                return Duplicate(message_id, send_time) if checksum == submission.checksum else Conflict()
            self.sent[key] = (submission.checksum, submission.message_id, submission.send_time)
        return Placed([self.place(user, submission.body) for user in submission.recipients], "")

    def _connect(self, request: ConnectRequest) -> ConnectOutcome:
        held = self.of(request.user)
        old, attempt = held.channels.get(request.device, ("", None))
        if old and old != request.channel:
            older = attempt is not None and request.attempt is not None and request.attempt < attempt
            if request.resume or older:
                return Superseded()
        if request.device not in held.channels and len(held.channels) >= self.channels_per_user:
            return TooManyChannels()
        start, recovered = self._start(held, request)
        epoch = held.cursors.get(request.device, ("",))[0]
        unconfirmed = not recovered or (request.resume and epoch == UNCONFIRMED)
        held.cursors[request.device] = (UNCONFIRMED if unconfirmed else held.epoch, start)
        held.channels[request.device] = (request.channel, request.attempt)
        page = self._page(request.user, held.epoch, start, request.page)
        return Registered(start, recovered, old if old != request.channel else "", page)

    def _start(self, held: Held, request: ConnectRequest) -> tuple[int, bool]:
        cursor = held.cursors.get(request.device)
        if request.epoch is not None:
            if request.epoch == held.epoch and held.low <= request.seq <= held.head:
                return request.seq, True
            recovered = False
        else:
            recovered = cursor is None or (cursor[0] == held.epoch and held.low <= cursor[1] <= held.head)
        if cursor is None:
            return held.low, recovered
        return min(max(cursor[1], held.low), held.head), recovered

    def _page(self, user: str, epoch: str, after: int, limit: int) -> Page:
        held = self.of(user)
        if epoch != held.epoch:
            return Page(held.epoch, held.head, ())
        first = max(after, held.low) + 1
        last = min(held.head, first + limit - 1)
        return Page(held.epoch, held.head, [(seq, held.messages[seq]) for seq in range(first, last + 1)])

    def _holds(self, one: Ack | Lease | Leave) -> bool:
        return self.of(one.user).channels.get(one.device, ("", None))[0] == one.channel

    def _head(self, one: Ack | Lease) -> Head:
        held = self.of(one.user)
        return Head(self._holds(one), held.epoch, held.head)

    def _move_cursor(self, one: Ack | Leave) -> None:
        held = self.of(one.user)
        if self._holds(one) and one.epoch == held.epoch:
            epoch, seq = held.cursors.get(one.device, (held.epoch, 0))
            before = seq if epoch in (held.epoch, UNCONFIRMED) else 0
            confirmed = epoch != UNCONFIRMED or isinstance(one, Leave) or one.start_confirmed
            cursor = max(before, min(one.seq, held.head))
            held.cursors[one.device] = (held.epoch if confirmed else UNCONFIRMED, cursor)
            held.trim(min(seq for epoch, seq in held.cursors.values() if epoch in (held.epoch, UNCONFIRMED)))

    def _ack(self, ack: Ack) -> Head:
        self._move_cursor(ack)
        return self._head(ack)

    def _leave(self, leave: Leave) -> None:
        if self._holds(leave):
            self._move_cursor(leave)
            held = self.of(leave.user)
            del held.channels[leave.device]
            if leave.ephemeral:
                del held.cursors[leave.device]
