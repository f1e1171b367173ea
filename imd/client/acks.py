"""Acknowledging: soon after the cursor has moved, several messages at a time. No I/O."""

from __future__ import annotations

from imd.client.agenda import Agenda
from imd.client.link import Link
from imd.client.receiving import Receiving

ACK_SECONDS = 0.1
"""longest wait for further messages to be acknowledged with the first"""


class Acks:
    def __init__(self, agenda: Agenda, link: Link, receiving: Receiving) -> None:
        self._agenda = agenda
        self._link = link
        self._receiving = receiving
        self._unsent = 0
        """messages that the cursor has passed since the last acknowledgement"""

    def moved(self, count: int) -> None:
        """The cursor has passed so many messages: acknowledge a quarter of a window at once, fewer soon."""
        if not count or not self._link.is_open:
            return
        self._unsent += count
        if self._unsent >= max(1, self._link.limits.get("ackWindow", 256) // 4):
            self.send()
        elif not self._agenda.waits_for("ack"):
            self._agenda.later("ack", ACK_SECONDS, self.send)

    def send(self) -> None:
        """Acknowledge now, if there is anything new."""
        self._agenda.cancel("ack")
        if self._unsent and self._link.is_open:
            self._unsent = 0
            self._agenda.transmit({"type": "ack", "seq": self._receiving.seq, "epoch": self._receiving.epoch})

    def confirm_start(self) -> None:
        """After a gap: tell the node that its new start was taken, or it would report the gap again."""
        self._unsent = 1
        self.send()

    def lost(self) -> None:
        """The connection is gone: the cursor goes with the next connect signal."""
        self._unsent = 0
