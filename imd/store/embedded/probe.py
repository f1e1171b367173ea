"""Whether the embedded backend's disk would take a message: asks the system, and in doubt tries to write."""

from __future__ import annotations

import os
import time

from imd.store.embedded.group import Group
from imd.store.embedded.state import State

# A probe writes if its last write is older.
WRITE_SECONDS = 15.0
# The size of a large message with all its rows. With less than four times that free, each probe writes it.
DOUBTFUL_BYTES = 256 * 1024
_ROOM_BYTES = 4 * DOUBTFUL_BYTES


class Probe:
    """Used in the thread. A look has a transaction of its own, so that its failure fails no operation."""

    def __init__(self, folder: str, state: State, group: Group) -> None:
        self._folder = folder
        self._state = state
        self._group = group
        self._failures = 0
        """`group.failures` at the last write; a higher count means that a group has failed since"""
        self._wrote_at = float("-inf")

    def look(self) -> None:
        """Write as much as a message needs if in doubt, else a byte now and then. Raises sqlite3.Error."""
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
        # The table is made here, and not with the others: the file has to open on a full disk.
        connection.execute("CREATE TABLE IF NOT EXISTS probe (one INTEGER PRIMARY KEY, filler BLOB NOT NULL)")
        connection.execute("INSERT OR REPLACE INTO probe VALUES (1, zeroblob(?))", (size,))
