"""The batches of one publisher that are not known to be archived: how old the oldest is. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from imd.contracts.level import FIRST
from imd.store.batch_numbers import BLOCK

MAX_SPANS = 20_000
"""past it, batches that follow one another are counted as one"""
MAX_IN_SPAN = 1_000
MAX_BLOCKS = 16
"""of the ledger, that are read at a time"""
FORGET_FAILED_SECONDS = 60.0
"""a batch whose confirm never came may be in the queue all the same, and be archived later"""


@dataclass(slots=True)
class _Span:
    first: int
    last: int
    made_ms: int
    """of the first batch's first id"""


class Unwritten:
    """Batches by their numbers, from publishing until the ledger says that they are written, or missing."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._spans: deque[_Span] = deque()
        self._failed: dict[int, float] = {}
        self._collects = True

    def set_level(self, level: int) -> None:
        """The cluster's level. At the first one nodes of 0.1 write batches, too, and note nothing."""
        self._collects = level > FIRST
        if not self._collects:
            self._spans.clear()
            self._failed.clear()

    def published(self, number: int, first_id: str) -> None:
        """A batch goes out. `first_id`: of its first message or event."""
        spans = self._spans
        if not self._collects:
            return
        if len(spans) >= MAX_SPANS and spans[-1].last - spans[-1].first < MAX_IN_SPAN:
            spans[-1].last = number
            return
        try:
            made_ms = int(first_id[:12], 16)
        except ValueError:
            made_ms = 0
        spans.append(_Span(number, number, made_ms))

    def failed(self, number: int) -> None:
        """The batch was not confirmed."""
        if self._collects:
            self._failed[number] = self._monotonic()

    def blocks(self) -> range:
        """The blocks of the ledger that tell about the oldest batches."""
        if not self._spans:
            return range(0)
        first = self._spans[0].first // BLOCK
        return range(first, min(self._spans[-1].last // BLOCK, first + MAX_BLOCKS) + 1)

    def noted(self, done: Mapping[int, int]) -> None:
        """Forget the oldest batches, as far as they are written or missing. `done`: block → bits."""
        now = self._monotonic()
        spans, failed = self._spans, self._failed

        def is_done(number: int) -> bool:
            block, bit = divmod(number, BLOCK)
            if done.get(block, 0) >> bit & 1:
                return True
            return now - failed.get(number, now) > FORGET_FAILED_SECONDS

        while spans and all(map(is_done, range(spans[0].first, spans[0].last + 1))):
            spans.popleft()
        lowest = spans[0].first if spans else None
        for number in [one for one in failed if lowest is None or one < lowest]:
            del failed[number]

    def oldest_ms(self) -> int | None:
        """When the first id of the oldest batch was made, ms; None if all are archived."""
        return self._spans[0].made_ms if self._spans else None
