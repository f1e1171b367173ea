"""The rate of messages on one connection: the cost of a frame, and the refusal past the limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

from imd.entry.ratelimit import TokenBucket
from imd.protocol.errors import RATE_LIMITED, Refused
from imd.protocol.frames import MessageFrame


def rate_cost(frame: MessageFrame) -> float:
    """The message's part of its connection's rate: 1; for a long group list a tenth for each recipient."""
    if frame.to or not frame.group:
        return 1.0
    return list_cost(len(frame.group))


def list_cost(recipients: int) -> float:
    """The cost of a message or event to so many."""
    return max(1.0, recipients / 10)


def room_cost(members: int) -> float:
    """The part of the rate for a message to a room, or a change of it: a tenth for each member, 1 to 10."""
    return min(10.0, max(1.0, members / 10))


def pay(bucket: TokenBucket, cost: float = 1.0) -> None:
    """Spend the cost of a frame. Raises Refused (`rate_limited`)."""
    if cost > 0 and (early := bucket.take(cost)):
        raise too_fast(bucket.per_second, early)


@contextmanager
def charged_if_refused(bucket: TokenBucket) -> Iterator[None]:
    """A frame that is refused in this block can never succeed: it costs 1, whatever its size.

    Raises Refused: `rate_limited` instead of the block's, if that is too much.
    """
    try:
        yield
    except Refused:
        pay(bucket)
        raise


def too_fast(per_second: float, early_seconds: float) -> Refused:
    """The refusal of a frame that came `early_seconds` too early."""
    after_ms = max(1, ceil(early_seconds * 1000))
    return Refused(RATE_LIMITED, f"{per_second} messages a second", retry_after_ms=after_ms)
