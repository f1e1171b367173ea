"""The limit on inboxes that no device has ever opened, for each sender and hour of the embedded backend."""

from __future__ import annotations

from collections.abc import Sequence

from imd.contracts.inbox import TooManyNew
from imd.store.embedded.state import User
from imd.store.shared_metrics import OPENED

HOUR_MS = 3_600_000
MAX_SENDERS = 10_000
"""beyond it, senders whose hour is over are forgotten, then the oldest"""


class Opening:
    """Counts in memory: an hour begins with a sender's first such inbox. A restart begins anew.

    After a rollback inboxes may be counted twice, but none is missed.
    """

    def __init__(self, new_ids: int) -> None:
        self._new_ids = new_ids
        self._begun: dict[str, tuple[int, int]] = {}
        """sender → when its hour began, ms, and the inboxes since then; in the order of the times"""

    def refuse(self, sender: str, recipients: Sequence[User], now: int) -> TooManyNew | None:
        """The refusal of a message to these recipients. None if it may be placed: then they are counted."""
        new = sum(not user.seq and not user.opened for user in recipients)
        if self._new_ids and new:
            if new > self._new_ids:
                return TooManyNew(None)
            since, count = self._begun.get(sender, (now, 0))
            if now - since >= HOUR_MS or now < since:
                since, count = now, 0
            if count + new > self._new_ids:
                return TooManyNew(max(1, since + HOUR_MS - now))
            if not count:
                self._begun.pop(sender, None)
                self._make_room(now)
            self._begun[sender] = (since, count + new)
        OPENED.inc(new)
        return None

    def _make_room(self, now: int) -> None:
        begun = self._begun
        while begun:
            oldest = next(iter(begun))
            over = now - begun[oldest][0] >= HOUR_MS
            if not over and len(begun) < MAX_SENDERS:
                break
            del begun[oldest]
