"""Why SQLite refuses, in words for somebody who does not know it. The first word of each stays the same."""

from __future__ import annotations

_WORDS = {
    "SQLITE_FULL": "full, the disk has no room",
    "SQLITE_READONLY": "readonly, the disk or the file takes no writes",
    "SQLITE_IOERR": "io, the disk fails",
    "SQLITE_BUSY": "locked, another process holds the file",
    "SQLITE_LOCKED": "locked, another process holds the file",
    "SQLITE_CANTOPEN": "gone, the file cannot be opened",
    "SQLITE_CORRUPT": "corrupt, the file is damaged",
}


def plain_reason(error: Exception) -> str:
    """`error` behind words for it, if it is known."""
    name = getattr(error, "sqlite_errorname", None) or ""
    for begins, words in _WORDS.items():
        if name.startswith(begins):
            return f"{words} ({error})"
    return str(error)
