"""Deadlines of work in threads, where the wait for a thread counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pymongo

from imd.protocol.errors import Unavailable


def within(give_up_at: float, work: Callable[..., Any], *args: Any) -> Any:
    """`work(*args)` within the time that is left until `give_up_at`, in monotonic seconds.

    Raises Unavailable if there is none.
    """
    seconds = give_up_at - time.monotonic()
    if seconds <= 0:
        raise Unavailable("MongoDB: too much is asked for")
    with pymongo.timeout(seconds):
        return work(*args)
