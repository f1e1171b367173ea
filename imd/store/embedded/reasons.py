"""Why SQLite refuses, in words."""

from __future__ import annotations

from imd.store.reasons import plain

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
    """`error` behind words for it, if SQLite's name for it is known."""
    return plain(_WORDS, str(error), getattr(error, "sqlite_errorname", None) or "")
