"""Messages and other events in order, kept until the node has accepted them or refused them for good."""

from __future__ import annotations

from imd.client.events import OutboxFull
from imd.client.outgoing import Outgoing, Refusal
from imd.client.store import Store

MAX_CONVERSATIONS = 32
"""most conversations with a message that has no answer yet"""
MAX_FAILED = 100
"""most failed messages; past it the oldest are forgotten"""


class Outbox:
    """At most `most` entries that have not failed; one of each `order` is unanswered at a time.

    With two on their way, a temporary refusal of the first would put it behind the second.
    """

    def __init__(self, store: Store, saved: list[Outgoing], most: int) -> None:
        self._store = store
        self._most = most
        self._all = {outgoing.client_msg_id: outgoing for outgoing in saved}
        self._sent_once: set[str] = set()
        self._held: dict[str, float] = {}
        """entries that are not sent before a time, by clientMsgId; the time is the caller's"""
        self._holds: dict[str, int] = {}
        """how often in succession an entry was held, by clientMsgId"""
        self._recalled: set[str] = set()
        """recalled messages that have no answer yet, by clientMsgId"""

    @property
    def all(self) -> tuple[Outgoing, ...]:
        return tuple(self._all.values())

    @property
    def waiting(self) -> int:
        """The number of messages that have not failed."""
        return sum(outgoing.state != "failed" for outgoing in self._all.values())

    def add(self, outgoing: Outgoing) -> Outgoing:
        """Gives the message that is kept: an earlier one with its clientMsgId, or it. Raises OutboxFull."""
        there = self._all.get(outgoing.client_msg_id)
        if there is not None:
            return there
        if self.waiting >= self._most:
            raise OutboxFull(f"{self._most} messages wait to be accepted")
        self._store.put_outgoing(outgoing)
        self._all[outgoing.client_msg_id] = outgoing
        return outgoing

    def next(self, now: float) -> Outgoing | None:
        """The message to send now; it then counts as sent. `now` is to be compared with `hold`."""
        busy: set[object] = set()
        unanswered = 0
        for outgoing in self._all.values():
            if unanswered >= MAX_CONVERSATIONS:
                return None
            if outgoing.state == "failed":
                continue
            conversation = outgoing.order
            held = self._held.get(outgoing.client_msg_id, now) > now
            if outgoing.state == "waiting" and conversation not in busy and not held:
                outgoing.state = "sent"
                self._held.pop(outgoing.client_msg_id, None)
                return outgoing
            busy.add(conversation)
            unanswered += outgoing.state == "sent"
        return None

    def hold(self, outgoing: Outgoing, until: float) -> None:
        """Do not send an entry before a time, nor those behind it with the same `order`."""
        self._held[outgoing.client_msg_id] = until

    def count_hold(self, outgoing: Outgoing) -> int:
        """How often the entry was held before."""
        count = self._holds.get(outgoing.client_msg_id, 0)
        self._holds[outgoing.client_msg_id] = count + 1
        return count

    def next_release(self, now: float) -> float | None:
        """The first time after `now` that a message is held until."""
        return min((until for until in self._held.values() if until > now), default=None)

    def note_sent(self, outgoing: Outgoing, now_ms: int) -> None:
        """Call before sending: from now on the message may be in an inbox. The first time is stored."""
        if outgoing.sent_at is None:
            outgoing.sent_at = now_ms
            self._sent_once.add(outgoing.client_msg_id)
            self._store.put_outgoing(outgoing)
        else:
            self._sent_once.discard(outgoing.client_msg_id)

    def never_placed(self, outgoing: Outgoing) -> None:
        """The node has refused the message unseen. If that was its only sending, it is in no inbox."""
        if outgoing.client_msg_id in self._sent_once:
            self._sent_once.discard(outgoing.client_msg_id)
            outgoing.sent_at = None
            self._store.put_outgoing(outgoing)

    def placed(self, client_msg_id: str, message_id: str) -> bool:
        """The inbox has a copy of this entry, before its answer. False if the entry is not here."""
        outgoing = self._all.get(client_msg_id)
        if outgoing is None:
            return False
        outgoing.id = message_id
        self._store.put_outgoing(outgoing)
        return True

    def recalled(self, message_id: str) -> list[Outgoing]:
        """Forget the texts of a recalled message: its edits, and itself if it has failed. Gives what is gone.

        A message without an answer stays until it has one: sent again, it must be the same.
        """
        gone = [
            outgoing
            for outgoing in self._all.values()
            if (outgoing.kind == "edit" and outgoing.of == message_id)
            or (outgoing.id == message_id and outgoing.state == "failed")
        ]
        for outgoing in gone:
            self._drop(outgoing.client_msg_id)
        self._recalled.update(each.client_msg_id for each in self._all.values() if each.id == message_id)
        self._store.forget()
        return gone

    def fail_all(self, refusal: Refusal, but_unsent: bool) -> list[Outgoing]:
        """Make every message fail; `but_unsent`: except those that were never sent."""
        waiting = [
            outgoing
            for outgoing in self._all.values()
            if outgoing.state != "failed" and not (but_unsent and outgoing.sent_at is None)
        ]
        for outgoing in waiting:
            outgoing.state, outgoing.error = "failed", refusal
            self._store.put_outgoing(outgoing)
        return waiting

    def accepted(self, client_msg_id: str) -> Outgoing | None:
        """Remove the accepted message and give it; None if it is not here."""
        outgoing = self._all.get(client_msg_id)
        if outgoing is None:
            return None
        self._drop(client_msg_id)
        outgoing.state, outgoing.error = "accepted", None
        return outgoing

    def refused(self, client_msg_id: str, refusal: Refusal, temporary: bool) -> Outgoing | None:
        """Gives the refused message, which fails unless that is temporary; None if it was not sent."""
        outgoing = self._all.get(client_msg_id)
        if outgoing is None or outgoing.state != "sent":
            return None
        if temporary:
            outgoing.state = "waiting"
            return outgoing
        outgoing.state, outgoing.error = "failed", refusal
        self._store.put_outgoing(outgoing)
        failed = [each.client_msg_id for each in self._all.values() if each.state == "failed"]
        for oldest in failed[:-MAX_FAILED]:
            self._drop(oldest)
        return outgoing

    def lost(self) -> None:
        """The connection is gone: messages without an answer wait again, in their order."""
        for outgoing in self._all.values():
            if outgoing.state == "sent":
                outgoing.state = "waiting"

    def cancel(self, client_msg_id: str) -> bool:
        """Forget a message that has failed or was never sent. False for one that may be in an inbox."""
        outgoing = self._all.get(client_msg_id)
        if outgoing is None or (outgoing.state != "failed" and outgoing.sent_at is not None):
            return False
        self._drop(client_msg_id)
        return True

    def retry(self, client_msg_id: str) -> bool:
        """Put a failed message at the end again. False if there is no such message."""
        outgoing = self._all.get(client_msg_id)
        if outgoing is None or outgoing.state != "failed":
            return False
        self._drop(client_msg_id)
        outgoing.state, outgoing.error, outgoing.sent_at = "waiting", None, None
        self._store.put_outgoing(outgoing)
        self._all[client_msg_id] = outgoing
        return True

    def _drop(self, client_msg_id: str) -> None:
        self._store.drop_outgoing(client_msg_id)
        del self._all[client_msg_id]
        self._held.pop(client_msg_id, None)
        self._holds.pop(client_msg_id, None)
        self._sent_once.discard(client_msg_id)
        if client_msg_id in self._recalled:
            self._recalled.discard(client_msg_id)
            self._store.forget()
