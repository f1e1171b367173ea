"""Counting unread messages, the same way in both stores. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from imd.contracts.talks import MOST_UNREAD


def count_unread(newest_first: Iterable[tuple[bool, bool]]) -> tuple[int, bool, int]:
    """Count others' messages above one's own newest one, which is a mark.

    Each message is given as: it is one's own; one may see it. Gives the count, at most MOST_UNREAD; whether
    an older message would not change it; and how many messages there were.
    """
    count = read = 0
    ended = False
    for is_own, is_visible in newest_first:
        read += 1
        if is_own:
            ended = True
        if not ended and is_visible:
            count += 1
            ended = count == MOST_UNREAD
    return count, ended, read
