"""Why Redis refuses, in words."""

from __future__ import annotations

from imd.store.reasons import plain

# By the beginning of the error's text.
_WORDS = {
    "OOM": "full, maxmemory is reached",
    "READONLY": "replica, which takes no writes",
    "MASTERDOWN": "replica, and its primary is away",
    "MISCONF": "misconf, it cannot save to its disk",
    "BUSY": "busy, with a script that takes too long",
    "NOPERM": "noperm, its user may not do what is needed",
    "ERR The user executing the script can't": "noperm, its user may not do what is needed",
    "NOREPLICAS": "noreplicas, fewer are connected than min-replicas-to-write",
    "LOADING": "loading, it reads its file",
    "NOAUTH": "noauth, the password is missing",
    "WRONGPASS": "noauth, the user or the password is wrong",
    "NOSCRIPT": "noscript, its scripts were taken from it",
    "Not received": "slow, no answer in time",
    "not connected": "down",
    "Not connected": "down",
    "the connection was lost": "down",
    "Connection": "down",
    "the url leads to two servers": "split",
    "WRONGTYPE": "wrongtype, a key of imd's holds something else",
    "DENIED": "refused, it is in protected mode",
    # Last, since others begin like it.
    "ERR": "refused",
}
_DRIVER = ("ResponseError: ", "TimeoutError: ", "ConnectionError: ")


def plain_reason(error: str) -> str:
    """`error`, without the driver's prefix, behind words for it, if its beginning is known."""
    for prefix in _DRIVER:
        error = error.removeprefix(prefix)
    return plain(_WORDS, error)
