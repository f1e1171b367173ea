"""A device's cursor: how far the device has read, and how much of that its inbox knows."""

from __future__ import annotations

from imd.contracts.inbox import Ack, Head


class Cursor:
    """One session's. Acknowledgements go to the inbox one at a time; a later one covers those before it."""

    __slots__ = (
        "_head_at_ack",
        "_restarts",
        "_storing",
        "_storing_since",
        "acked",
        "start_confirmed",
        "stored",
    )

    def __init__(self) -> None:
        self.acked = 0
        """the last number that the device is known to have"""
        self.stored = 0
        """the last number that the inbox knows the device to have; -1: the device's start is not confirmed"""
        self.start_confirmed = False
        """the device is known to have read where it starts; until then its cursor in the inbox stays"""
        self._storing = False
        self._restarts = 0
        self._storing_since = 0
        """`_restarts` at the time of the acknowledgement that is being stored"""
        self._head_at_ack = 0
        """the inbox's last number when it last took an acknowledgement"""

    def restart(self, seq: int, *, start_confirmed: bool) -> None:
        """The device reads from `seq + 1` on."""
        self.acked = seq
        self.start_confirmed = start_confirmed
        self.stored = seq if start_confirmed else -1
        self._restarts += 1
        self._head_at_ack = 0

    def confirm(self, seq: int) -> None:
        """The device has everything up to `seq`."""
        self.acked = seq
        self.start_confirmed = True

    def begin_to_store(self, user: str, device: str, channel: str, epoch: str) -> Ack | None:
        """The acknowledgement to tell the inbox now; None if it knows all, or one is under way.

        `stored_up_to` or `store_failed` must follow.
        """
        if self._storing or not self.start_confirmed or self.stored >= self.acked:
            return None
        self._storing = True
        self._storing_since = self._restarts
        return Ack(user, device, channel, epoch, self.acked, start_confirmed=self.stored < 0)

    def stored_up_to(self, ack: Ack, head: Head) -> Head:
        """The inbox has taken `ack`, and answered `head`. Returns the head that the session may go by.

        That is the inbox's last number at the previous acknowledgement: hints of later messages may still be
        on their way, hints of earlier ones were lost.
        """
        self._storing = False
        if self._storing_since != self._restarts or not head.held or head.epoch != ack.epoch:
            return head
        self.stored = max(self.stored, ack.seq)
        before, self._head_at_ack = self._head_at_ack, head.seq
        return head._replace(seq=before)

    def store_failed(self) -> None:
        """The inbox may not have taken the acknowledgement. The next one, or leaving, tells it again."""
        self._storing = False
