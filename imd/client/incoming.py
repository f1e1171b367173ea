"""Numbered frames and `accepted`: what they mean for each part of the core. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imd.client.acks import Acks
from imd.client.agenda import Agenda
from imd.client.catchup import CatchUp
from imd.client.effects import Deliver
from imd.client.events import Gap
from imd.client.messenger import Messenger
from imd.client.numbered import Message, Recall, is_copy
from imd.client.receiving import Receiving
from imd.client.sending import Sending


class Incoming:
    """`events`: the program knows entries with a kind."""

    def __init__(
        self,
        agenda: Agenda,
        acks: Acks,
        catch_up: CatchUp,
        receiving: Receiving,
        sending: Sending,
        messenger: Messenger,
        events: bool,
    ) -> None:
        self._agenda = agenda
        self._acks = acks
        self._catch_up = catch_up
        self._receiving = receiving
        self._sending = sending
        self._messenger = messenger
        self._events = events

    def numbered(self, frame: Mapping[str, Any], user_id: str | None) -> None:
        """An entry of the inbox of `user_id`. Raises Hole, and KeyError for a frame that makes no sense."""
        mine = elsewhere = False
        if is_copy(frame, user_id):
            # A copy for one's own devices. It is no answer: only `accepted` ends an entry of the outbox.
            mine = self._sending.outbox.placed(frame.get("clientMsgId") or "", frame.get("id") or "")
            elsewhere = not mine
        entry = self._receiving.take(frame, mine, elsewhere, self._events)
        if self._receiving.gap:
            self._receiving.gap = False
            self._agenda.emit(Gap())
            self._catch_up.gap()
        if entry is None:
            self._acks.moved(self._receiving.skip())
            return
        if isinstance(entry, Recall):
            self._sending.recalled(entry.of)
        self._catch_up.numbered(entry.id)
        if isinstance(entry, Message) and self._messenger.received(entry):
            self._acks.moved(self._receiving.handled(entry.id))
        else:
            self._agenda.add(Deliver(entry))

    def accepted(self, frame: Mapping[str, Any], sync: bool) -> None:
        """`sync`: the inbox has copies of what this device sends."""
        if sync and frame.get("id"):
            self._receiving.know(frame["id"])
        outgoing = self._sending.accepted(frame)
        if outgoing is not None and outgoing.id and not outgoing.kind:
            self._messenger.sent(outgoing)
