"""Tracing: one log line for each step of the messages that an operator follows.

While it is off it costs a look at `TRACE.on` for each message, batch or page. The text of a message is never
logged.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol
from zlib import crc32

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from imd.contracts.archive import Record
from imd.contracts.bus import Hint
from imd.contracts.inbox import Duplicate, Outcome, Placed, Submission

# Past this the rest of a second's lines are left out, as a log must not stop a node.
MAX_LINES_PER_SECOND = 1000
# Sent messages whose acknowledgement gets a line. Past this their last line is that of the push.
MAX_AWAITED = 10_000


class _Parties(msgspec.Struct, rename="camel"):
    id: str = ""
    user_id: str = ""
    to: str = ""
    group: list[str] | None = None


_read = msgspec.json.Decoder(_Parties).decode
_log = Logger(namespace="imd.observe.trace")


class Channel(Protocol):
    """The attributes of a session that are logged."""

    user: str
    device: str
    channel: str
    epoch: str


class Trace:
    """The choice of messages to follow, and their lines. `node` is this node's name in them.

    A sample goes by the id: nodes with the same share follow the same messages.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self.on = False
        self.node = ""
        self.users: frozenset[str] = frozenset()
        self.sample = 0.0
        self.lines = 0
        """written since it was switched on"""
        self.left_out = 0
        """lines that were not written because there were too many in a second"""
        self._seconds = seconds
        self._second = 0
        self._in_second = 0
        self._awaited: dict[str, deque[tuple[str, int, str]]] = {}
        """channel → epoch, number and message id, in the order sent"""
        self._awaiting = 0

    # from the operator

    def start(self, users: Iterable[str], sample: float) -> None:
        """Follow the messages that these users send or get, and this share (0 to 1) of all messages."""
        self.stop()
        self.users = frozenset(users)
        self.sample = sample
        self.lines = self.left_out = 0
        self.on = True

    def stop(self) -> None:
        self.on = False
        self.users = frozenset()
        self.sample = 0.0
        self._awaited.clear()
        self._awaiting = 0

    # a message's steps

    def received(self, submission: Submission, channel: str) -> None:
        """A message frame has passed the checks."""
        if message_id := self._followed(submission.body):
            self._line(
                "received", message_id, user=submission.sender, device=submission.device, channel=channel
            )

    def placed(self, submissions: Iterable[Submission], outcomes: Iterable[Outcome]) -> None:
        """The inbox has answered with these outcomes."""
        for submission, outcome in zip(submissions, outcomes, strict=True):
            if not (message_id := self._followed(submission.body)):
                if not isinstance(outcome, Placed) or not self._gets_any(d.user for d in outcome.deliveries):
                    continue
                message_id = submission.message_id
            if isinstance(outcome, Placed):
                for d in outcome.deliveries:
                    # Deliveries may include earlier messages of a visitor, which have ids of their own.
                    own = message_id if d.body == submission.body else _read(d.body).id
                    self._line("placed", own, user=d.user, seq=d.seq, epoch=d.epoch)
                if not outcome.deliveries:
                    self._line("waits at the desk", message_id)
            elif type(outcome) is Duplicate:
                self._line("sent again", outcome.message_id, user=submission.sender, again_as=message_id)
            else:
                self._line("refused", message_id, user=submission.sender, why=type(outcome).__name__)

    def hints(self, step: str, hints: Iterable[Hint], peer: str) -> None:
        """Hints go between nodes. A hint without its message has no id to follow."""
        for hint in hints:
            if hint.body is not None and (message_id := self._followed(hint.body)):
                self._line(
                    step, message_id, channel=hint.channel, seq=hint.seq, epoch=hint.epoch, peer=peer
                )

    def sent(self, step: str, session: Channel, seq: int, body: bytes) -> None:
        """A message was written to a device: `pushed` by a hint, or `pulled` from the inbox."""
        message_id = self._followed(body, session.user)
        if not message_id:
            return
        self._session_line(step, message_id, session, session.epoch, seq)
        if self._awaiting < MAX_AWAITED:
            self._awaiting += 1
            self._awaited.setdefault(session.channel, deque()).append((session.epoch, seq, message_id))

    def acked(self, session: Channel, seq: int) -> None:
        """The device has everything up to `seq`."""
        awaited = self._awaited.get(session.channel, ())
        while awaited and (awaited[0][0] != session.epoch or awaited[0][1] <= seq):
            epoch, number, message_id = awaited.popleft()
            self._awaiting -= 1
            if epoch == session.epoch:
                self._session_line("acked", message_id, session, epoch, number)
        if not awaited:
            self._awaited.pop(session.channel, None)

    def left(self, session: Channel) -> None:
        """The connection is gone."""
        for epoch, number, message_id in self._awaited.pop(session.channel, ()):
            self._awaiting -= 1
            self._session_line("not acked", message_id, session, epoch, number)

    def publishing(self, records: Sequence[Record], confirmed: Deferred[None]) -> None:
        """A batch goes to the archive queue. `confirmed` fires with the result, which gets lines, too."""
        both = [(r, "") if isinstance(r, bytes) else (r.body, r.agent) for r in records]
        ids = [message_id for body, agent in both if (message_id := self._followed(body, agent))]
        for message_id in ids:
            self._line("published", message_id)

        def lines(step: str) -> None:
            for message_id in ids:
                self._line(step, message_id)

        def failed(failure: Any) -> Any:
            lines("not confirmed")
            return failure

        if ids:
            confirmed.addCallbacks(lambda _: lines("confirmed"), failed)

    def answered(self, entries: Iterable[object], others: Mapping[int, object]) -> None:
        """`accepted` went to the senders, except for `others`. A duplicate among these has its first id."""
        for index, s in enumerate(entries):
            other = others.get(index)
            if not isinstance(s, Submission) or not isinstance(other, Duplicate | None):
                continue
            if message_id := self._followed(s.body):
                if other is not None:
                    message_id = other.message_id
                self._line("accepted", message_id, user=s.sender, device=s.device)

    def archived(self, bodies: Iterable[bytes], refused: Collection[str]) -> None:
        """Messages were written to the archive, except those whose ids are in `refused`."""
        for body in bodies:
            message_id = self._followed(body)
            if message_id:
                self._line("dead letter" if message_id in refused else "archived", message_id)

    # from within

    def _followed(self, body: bytes, *users: str) -> str:
        """The message's id if it is followed, else empty. `users` have to do with it, too."""
        try:
            message = _read(body)
        except msgspec.MsgspecError:
            return ""
        parties = (message.user_id, message.to, *(message.group or ()), *users)
        if self._gets_any(parties) or (
            self.sample and crc32(message.id.encode()) < self.sample * 4_294_967_296
        ):
            return message.id
        return ""

    def _gets_any(self, users: Iterable[str]) -> bool:
        return not self.users.isdisjoint(users)

    def _session_line(self, step: str, message_id: str, session: Channel, epoch: str, seq: int) -> None:
        self._line(
            step,
            message_id,
            user=session.user,
            device=session.device,
            channel=session.channel,
            seq=seq,
            epoch=epoch,
        )

    def _line(self, step: str, message_id: str, **fields: object) -> None:
        second = int(self._seconds())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > MAX_LINES_PER_SECOND or not self.on:
            self.left_out += 1
            return
        self.lines += 1
        text = " ".join(["{message_id} {step}", *(f"{name}={{{name}!r}}" for name in fields), "node={node}"])
        _log.debug(text, message_id=message_id, step=step, node=self.node, **fields)


TRACE = Trace()
"""the one of the process"""
