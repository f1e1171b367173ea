"""Corrects stored times at the start, if the machine's clock was set while the last process ran.

A process stores times by a clock that does not follow the machine's. If the machine's clock is set meanwhile
(a computer without a battery, a wrong time zone), the stored times are off by that much. The next process
would take new entries for old ones, and forget cursors and resends.
"""

from __future__ import annotations

import sqlite3

from imd.protocol.ids import ServerClock

# Clocks that are synchronised differ by less.
DRIFT_MS = 2000
# No process runs for longer with a wrong clock. Later times are those of another process.
_MAX_RUN_MS = 366 * 86_400_000

_TABLE = (
    "CREATE TABLE IF NOT EXISTS drift "
    "(one INTEGER PRIMARY KEY, began INTEGER NOT NULL, number INTEGER NOT NULL, ms INTEGER NOT NULL)"
)
_TIMES = (
    ("device", "seen"),
    ("sent", "used"),
    ("visitor", "used"),
    ("newcomer", "used"),
    ("user", "agent_used"),
)


def mend_times(connection: sqlite3.Connection) -> None:
    """Call before anything else is read. Raises sqlite3.Error."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'drift'").fetchone():
        return
    connection.execute("BEGIN")
    for began, number, drift in connection.execute("SELECT began, number, ms FROM drift").fetchall():
        run = {"began": began, "ended": began + _MAX_RUN_MS, "number": number, "drift": drift}
        for table, column in _TIMES:
            where = f"{column} BETWEEN :began AND :ended"
            connection.execute(f"UPDATE {table} SET {column} = {column} + :drift WHERE {where}", run)
        connection.execute("UPDATE message SET send_time = send_time + :drift WHERE number >= :number", run)
    connection.execute("DELETE FROM drift")
    connection.execute("COMMIT")


class Drift:
    """Notes in the file how far this process's clock is off."""

    def __init__(self, connection: sqlite3.Connection, clock: ServerClock, next_number: int) -> None:
        """`next_number`: the number of the first message that this process will store."""
        self._connection = connection
        self._clock = clock
        self._began = clock.now_ms()
        self._number = next_number
        self._noted = 0

    def note(self) -> None:
        """Call in the open transaction. Writes only when the machine's clock has been set."""
        drift = self._clock.set_by_ms()
        if abs(drift - self._noted) >= DRIFT_MS:
            self._connection.execute(_TABLE)
            values = (self._began, self._number, drift)
            self._connection.execute("INSERT OR REPLACE INTO drift VALUES (1, ?, ?, ?)", values)
            self._noted = drift
