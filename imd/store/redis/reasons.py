"""Why Redis refuses, in words for somebody who does not know it. The first word of each stays the same."""

from __future__ import annotations

from typing import NamedTuple


class _Reason(NamedTuple):
    begins: str
    """the text of Redis' or the driver's error, without what the driver puts in front"""
    words: str


_REASONS = [
    _Reason(*pair)
    for pair in (
        ("OOM", "full, maxmemory is reached"),
        ("READONLY", "replica, which takes no writes"),
        ("MASTERDOWN", "replica, and its primary is away"),
        ("MISCONF", "misconf, it cannot save to its disk"),
        ("BUSY", "busy, with a script that takes too long"),
        ("NOPERM", "noperm, its user may not do what is needed"),
        ("ERR The user executing the script can't", "noperm, its user may not do what is needed"),
        ("NOREPLICAS", "noreplicas, fewer are connected than min-replicas-to-write"),
        ("LOADING", "loading, it reads its file"),
        ("NOAUTH", "noauth, the password is missing"),
        ("WRONGPASS", "noauth, the user or the password is wrong"),
        ("NOSCRIPT", "noscript, its scripts were taken from it"),
        ("Not received", "slow, no answer in time"),
        ("not connected", "down"),
        ("Not connected", "down"),
        ("the connection was lost", "down"),
        ("Connection", "down"),
        ("the url leads to two servers", "split"),
        ("WRONGTYPE", "wrongtype, a key of imd's holds something else"),
    )
]
_DRIVER = ("ResponseError: ", "TimeoutError: ", "ConnectionError: ")


def plain_reason(error: str) -> str:
    """`error` behind words for it, if it is known."""
    for prefix in _DRIVER:
        error = error.removeprefix(prefix)
    for reason in _REASONS:
        if error.startswith(reason.begins):
            return f"{reason.words} ({error})"
    return error
