"""Sending the outbox: in order, and again after refusals that are temporary. No I/O."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from imd.client.agenda import Agenda
from imd.client.events import Accepted, Failed, Refused
from imd.client.link import Link
from imd.client.options import Options
from imd.client.outbox import Outbox
from imd.client.outgoing import NO_EVENTS, Outgoing, Refusal
from imd.client.reconnect import Backoff
from imd.client.sound import check_sound
from imd.protocol.errors import INVALID_MESSAGE, RATE_LIMITED, TOO_LARGE, UNAVAILABLE

EXPIRED = "expired"
"""the client's own code: nobody knows any more whether the message was accepted"""
OTHER_USER = "other_user"
"""the client's own code: the outbox was written by another user"""

RECALLED = Refusal("conflict", "the message was recalled")

LEAST_PAUSE_SECONDS = 0.05
LONGEST_HOLD_SECONDS = 15.0
LONG_PAUSE_SECONDS = 10.0
"""a longer pause of a `rate_limited` is about its recipients (`[limits] new_ids`), not about the pace"""
UNREAD_SECONDS = 40.0
"""before an entry is given up that the node may not have been able to read; a silent node is noticed first"""


class Sending:
    """`wall` is the time of day, in seconds. `backoff` is for a node that is `unavailable`."""

    def __init__(
        self,
        agenda: Agenda,
        link: Link,
        outbox: Outbox,
        options: Options,
        backoff: Backoff,
        wall: Callable[[], float],
    ) -> None:
        self.outbox = outbox
        self._agenda = agenda
        self._link = link
        self._options = options
        self._backoff = backoff
        self._wall = wall
        self._paused = False
        """nothing is sent until the timer `send`"""
        self._unread: set[str] = set()
        """entries, by clientMsgId, that the node may not have been able to read"""
        self._unread_frames = 0
        """frames that it could not read, without saying which"""

    # ---- from the program

    def post(self, outgoing: Outgoing) -> Outgoing:
        """Put an entry into the outbox.

        Raises OutboxFull, ValueError for a message that no node would take, or Refused if the cluster does
        not know events (`unsupported`).
        """
        if not outgoing.kind and not outgoing.msg:
            raise ValueError("a text is expected")
        if [bool(outgoing.to or outgoing.group), bool(outgoing.room)].count(True) > 1:
            raise ValueError("a room, or users, are expected")
        if not (outgoing.kind or outgoing.to or outgoing.group or outgoing.room or self._options.visitor):
            raise ValueError("a recipient is expected")
        outgoing.client_msg_id = outgoing.client_msg_id or uuid.uuid4().hex
        check_sound(outgoing.frame(), self._link.limits)
        if outgoing.needs_events and not self._link.knows_events:
            raise Refused(NO_EVENTS)
        outgoing.queued_at = int(self._wall() * 1000)
        outgoing = self.outbox.add(outgoing)
        self.flush()
        return outgoing

    def retry(self, client_msg_id: str) -> bool:
        done = self.outbox.retry(client_msg_id)
        self.flush()
        return done

    # ---- from the node

    def accepted(self, frame: Mapping[str, Any]) -> Outgoing | None:
        """Gives the entry that was accepted; None if it is not here."""
        self._answered(frame.get("clientMsgId") or "")
        outgoing = self.outbox.accepted(frame.get("clientMsgId") or "")
        self._backoff.reset()
        if outgoing is not None:
            outgoing.id, outgoing.send_time = frame.get("id") or "", frame.get("sendTime") or 0
            outgoing.changed = frame.get("changed", True)
            outgoing.room = frame.get("room") or outgoing.room
            outgoing.version = frame.get("version") or 0
            self._agenda.emit(Accepted(outgoing, outgoing.id, outgoing.send_time))
            if outgoing.kind == "recall":
                self.recalled(outgoing.of)
        self.flush()
        return outgoing

    def recalled(self, message_id: str) -> None:
        """A message was recalled: its text, and texts for it, leave the outbox."""
        for outgoing in self.outbox.recalled(message_id):
            self._answered(outgoing.client_msg_id)
            if outgoing.state != "failed":
                outgoing.state, outgoing.error = "failed", RECALLED
                self._agenda.emit(Failed(outgoing, RECALLED))

    def refused(self, client_msg_id: str, refusal: Refusal, temporary: bool, retry_seconds: float) -> None:
        """`retry_seconds`: the pause that the node asks for."""
        self._answered(client_msg_id)
        outgoing = self.outbox.refused(client_msg_id, refusal, temporary)
        if outgoing is None:
            return
        if not temporary:
            self._agenda.emit(Failed(outgoing, refusal))
            self.flush()
            return
        if refusal.code == RATE_LIMITED:
            self.outbox.never_placed(outgoing)
            if retry_seconds > LONG_PAUSE_SECONDS:
                self.outbox.hold(outgoing, self._agenda.seconds() + retry_seconds)
                self.flush()
                return
        if refusal.code == UNAVAILABLE and outgoing.waits_alone:
            # The archive is behind, or a room is not loaded: others need not wait for that.
            pause = min(LONGEST_HOLD_SECONDS, 0.5 * 2.0 ** min(self.outbox.count_hold(outgoing), 10))
            self.outbox.hold(outgoing, self._agenda.seconds() + max(retry_seconds, pause))
            self.flush()
            return
        pause = self._backoff.next() if refusal.code == UNAVAILABLE else LEAST_PAUSE_SECONDS
        self._paused = True
        self._agenda.later("send", max(retry_seconds, pause), self._resume)

    def not_read(self, refusal: Refusal) -> None:
        """The node could not read a frame, and does not say which.

        The other frames get their answers. So an entry that has none a while later is given up, unless more
        entries than unreadable frames are left.
        """
        self._unread |= {each.client_msg_id for each in self.outbox.all if each.state == "sent"}
        if self._unread:
            self._unread_frames += 1
            self._agenda.later("unread", UNREAD_SECONDS, lambda: self._give_up(refusal))

    def lost(self) -> None:
        """The connection is gone: every message without an answer is sent again on the next one."""
        self._paused = False
        self._unread.clear()
        self._unread_frames = 0
        self.outbox.lost()

    def refuse_all(self, owner: str) -> None:
        """The outbox belongs to another user, `owner`."""
        refusal = Refusal(OTHER_USER, f"written as {owner}")
        # Nobody has seen a visitor's unsent messages: they go with the new visitor.
        for outgoing in self.outbox.fail_all(refusal, but_unsent=self._options.visitor):
            self._agenda.emit(Failed(outgoing, refusal))

    def flush(self) -> None:
        """Send every message that may be sent now."""
        now = self._agenda.seconds()
        now_ms = int(now * 1000 + self._link.server_ahead_ms)
        while self._link.is_open and not self._paused and (outgoing := self.outbox.next(now)) is not None:
            if outgoing.needs_events and not self._link.knows_events:
                self._fail(outgoing, NO_EVENTS)
                continue
            age = now_ms - outgoing.sent_at if outgoing.sent_at is not None and outgoing.expires else 0
            if age > 900 * self._options.dedup_seconds:
                # The nodes may have forgotten its clientMsgId: a resend could be delivered twice.
                self._fail(outgoing, Refusal(EXPIRED, "sent, but not answered for too long"))
                continue
            frame = outgoing.frame()
            try:
                size = check_sound(frame, self._link.limits)
            except ValueError as error:
                # An older version has stored it: the node could not read it, at each resend.
                self._fail(outgoing, Refusal(INVALID_MESSAGE, str(error)))
                continue
            if size > 6 * self._link.limits.get("messageBytes", 65536) + 65536:
                # The node would close the connection, at each resend.
                self._fail(outgoing, Refusal(TOO_LARGE, f"a frame of {size} bytes"))
            else:
                self.outbox.note_sent(outgoing, now_ms)
                self._agenda.transmit(frame)
        release = self.outbox.next_release(now)
        if release is not None:
            self._agenda.later("release", release - now, self.flush)

    # ---- from within

    def _answered(self, client_msg_id: str) -> None:
        self._unread.discard(client_msg_id)
        if not self._unread:
            self._unread_frames = 0
            self._agenda.cancel("unread")

    def _give_up(self, refusal: Refusal) -> None:
        if len(self._unread) > self._unread_frames:
            self._agenda.later("unread", UNREAD_SECONDS, lambda: self._give_up(refusal))
            return
        for client_msg_id in list(self._unread):
            self.refused(client_msg_id, refusal, temporary=False, retry_seconds=0.0)

    def _resume(self) -> None:
        self._paused = False
        self.flush()

    def _fail(self, outgoing: Outgoing, refusal: Refusal) -> None:
        self.outbox.refused(outgoing.client_msg_id, refusal, temporary=False)
        self._agenda.emit(Failed(outgoing, refusal))
