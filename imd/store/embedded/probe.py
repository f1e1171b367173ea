"""Whether the embedded backend's disk would take a message: the system is asked, and in doubt it is tried."""

from __future__ import annotations

import os
import time

from imd.store.embedded.group import Group
from imd.store.embedded.state import State

# Without a write that is known to have worked for so long, one is tried.
WRITE_SECONDS = 15.0
# A large message with all that is written for it. With less room on the disk each look tries that much.
DOUBTFUL_BYTES = 256 * 1024
_ROOM_BYTES = 4 * DOUBTFUL_BYTES


class Probe:
    """Used in the thread. A look is a transaction of its own: if it fails, nobody else's work does."""

    def __init__(self, folder: str, state: State, group: Group) -> None:
        self._folder = folder
        self._state = state
        self._group = group
        self._failures = 0
        """of groups, when the last write was tried; more by now: it failed, or another has"""
        self._wrote_at = float("-inf")

    def look(self) -> None:
        """Write what a message would need if there is doubt whether it can be. Raises sqlite3.Error."""
        now = time.monotonic()
        doubt = self._group.failures != self._failures or not self._has_room()
        if doubt or now - self._wrote_at >= WRITE_SECONDS:
            self._failures = self._group.failures
            self._wrote_at = now
            self._write(DOUBTFUL_BYTES if doubt else 1)

    def _has_room(self) -> bool:
        try:
            disk = os.statvfs(self._folder)
        except OSError:
            return False
        return not disk.f_flag & os.ST_RDONLY and disk.f_bavail * disk.f_frsize >= _ROOM_BYTES

    def _write(self, size: int) -> None:
        connection = self._state.connection
        # Here, and not with the other tables: a file must open on a disk that is full.
        connection.execute("CREATE TABLE IF NOT EXISTS probe (one INTEGER PRIMARY KEY, filler BLOB NOT NULL)")
        connection.execute("INSERT OR REPLACE INTO probe VALUES (1, zeroblob(?))", (size,))
