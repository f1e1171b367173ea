"""Tracing: one log line for each step of the messages that an operator follows.

While it is off it costs a look at `TRACE.on` for each message, batch or page. The text of a message is never
logged.

A message names its sender and its recipients, so each node can tell whether to follow it. One in a room names
no recipients. A node learns them where it places the message, or writes it to a device, and keeps in mind the
ids that followed members got.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol
from zlib import crc32

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from imd.contracts.archive import Record
from imd.contracts.bus import Hint
from imd.contracts.inbox import Delivery, Duplicate, Outcome, Placed, Submission

# Past this the rest of a second's lines are left out, as a log must not stop a node.
MAX_LINES_PER_SECOND = 1000
# Sent messages whose acknowledgement gets a line. Past this their last line is that of the push.
MAX_AWAITED = 10_000
# Ids that followed users got without being named. Past this the oldest have no more lines.
MAX_CONCERNED = 10_000


class _User(msgspec.Struct, rename="camel"):
    user_id: str = ""


class _Parties(msgspec.Struct, rename="camel"):
    """`users`: those whom a change of a room concerns."""

    id: str = ""
    user_id: str = ""
    to: str = ""
    group: list[str] | None = None
    users: list[_User] | None = None


_read = msgspec.json.Decoder(_Parties).decode


def _parties(body: bytes) -> _Parties | None:
    """None for what is no message."""
    try:
        parties = _read(body)
    except msgspec.MsgspecError:
        return None
    return parties if parties.id else None


def _written(submission: Submission) -> bytes:
    """Its body. Before it is placed in a room it has none of its own, as the version is not known."""
    return submission.body if submission.room is None else submission.room.body(0)


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
        self._concerned: OrderedDict[str, set[str]] = OrderedDict()
        """ids that followed users got without being named → these users' channels, the oldest first"""

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
        self._concerned.clear()

    # a message's steps

    def received(self, submission: Submission, channel: str) -> None:
        """A message frame has passed the checks."""
        if message_id := self._followed(_written(submission)):
            self._line(
                "received", message_id, user=submission.sender, device=submission.device, channel=channel
            )

    def placed(self, submissions: Iterable[Submission], outcomes: Iterable[Outcome]) -> None:
        """The inbox has answered with these outcomes."""
        for submission, outcome in zip(submissions, outcomes, strict=True):
            message_id = self._followed(_written(submission))
            if isinstance(outcome, Placed):
                self.told(outcome.deliveries)
                if submission.room is not None:
                    room, own = submission.room.room, submission.message_id
                    self.placed_in(room, outcome.version, own, submission.sender)
                elif message_id and submission.for_desk and not outcome.deliveries:
                    self._line("waits at the desk", message_id)
            elif type(outcome) is Duplicate:
                if message_id or outcome.message_id in self._concerned:
                    again_as = submission.message_id
                    self._line("sent again", outcome.message_id, user=submission.sender, again_as=again_as)
            elif message_id:
                self._line("refused", message_id, user=submission.sender, why=type(outcome).__name__)

    def told(self, deliveries: Iterable[Delivery]) -> None:
        """These are in inboxes. If a message names nobody who is followed, followed users' have lines."""
        body, message, follows_all = b"", None, False
        for d in deliveries:
            # Most have the same body. A visitor's earlier messages have others.
            if d.body != body:
                body, message = d.body, _parties(d.body)
                follows_all = message is not None and self._names_followed(message)
            if message is None or not (follows_all or d.user in self.users):
                continue
            if not follows_all:
                self._note(message.id, d.channels)
            self._line("placed", message.id, user=d.user, seq=d.seq, epoch=d.epoch)

    def placed_in(self, room: str, version: int, message_id: str, sender: str) -> None:
        """A message or a change of `sender` is in the inboxes of a room's members, also of those away."""
        if self._follows(message_id, sender):
            self._line("placed", message_id, room=room, version=version)

    def hints(
        self, step: str, hints: Iterable[Hint], peer: str, local: Mapping[str, Channel] | None = None
    ) -> None:
        """Hints go between nodes. A hint without its message has no id to follow.

        `local`: the channels of this node, if the hints are for it.
        """
        for hint in hints:
            message = _parties(hint.body) if hint.body is not None else None
            if message is None:
                continue
            session = local.get(hint.channel) if local is not None else None
            if (
                self._names_followed(message)
                or (session is not None and session.user in self.users)
                or hint.channel in self._concerned.get(message.id, ())
            ):
                self._line(
                    step, message.id, channel=hint.channel, seq=hint.seq, epoch=hint.epoch, peer=peer
                )

    def sent(self, step: str, session: Channel, seq: int, body: bytes) -> None:
        """A message was written to a device: `pushed` by a hint, or `pulled` from the inbox."""
        message = _parties(body)
        if message is None:
            return
        if not self._names_followed(message):
            if session.user not in self.users:
                return
            self._note(message.id, (session.channel,))
        self._session_line(step, message.id, session, session.epoch, seq)
        if self._awaiting < MAX_AWAITED:
            self._awaiting += 1
            self._awaited.setdefault(session.channel, deque()).append((session.epoch, seq, message.id))

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
            message_id = other.message_id if other is not None else s.message_id
            if self._followed(_written(s)) or message_id in self._concerned:
                self._line("accepted", message_id, user=s.sender, device=s.device)

    def accepted(self, message_id: str, user: str, device: str) -> None:
        """`accepted` goes to the maker of a room's change."""
        if self._follows(message_id, user):
            self._line("accepted", message_id, user=user, device=device)

    def archived(self, bodies: Iterable[bytes], refused: Collection[str]) -> None:
        """Messages were written to the archive, except those whose ids are in `refused`."""
        for body in bodies:
            message_id = self._followed(body)
            if message_id:
                self._line("dead letter" if message_id in refused else "archived", message_id)

    # from within

    def _followed(self, body: bytes, *users: str) -> str:
        """The message's id if it is followed, else empty. `users` have to do with it, too."""
        message = _parties(body)
        if message is None:
            return ""
        is_followed = self._names_followed(message) or message.id in self._concerned or self._gets_any(users)
        return message.id if is_followed else ""

    def _names_followed(self, message: _Parties) -> bool:
        """True if it names somebody who is followed, or is in the sample."""
        concerned = (user.user_id for user in message.users or ())
        named = (message.user_id, message.to, *(message.group or ()), *concerned)
        return self._gets_any(named) or self._is_in_sample(message.id)

    def _follows(self, message_id: str, sender: str) -> bool:
        """The same for what is known without its body."""
        return sender in self.users or message_id in self._concerned or self._is_in_sample(message_id)

    def _is_in_sample(self, message_id: str) -> bool:
        return bool(self.sample) and crc32(message_id.encode()) < self.sample * 4_294_967_296

    def _gets_any(self, users: Iterable[str]) -> bool:
        return not self.users.isdisjoint(users)

    def _note(self, message_id: str, channels: Iterable[str]) -> None:
        """Somebody who is followed got a message that does not name them; `channels` are theirs."""
        self._concerned.setdefault(message_id, set()).update(channels)
        if len(self._concerned) > MAX_CONCERNED:
            self._concerned.popitem(last=False)

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
