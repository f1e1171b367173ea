"""The write-ahead log of the embedded backend's file, which has pages from before a recall."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from twisted.logger import Logger

from imd.observe.seldom import Seldom

EMPTY_SECONDS = 10.0
"""between two times that the log is emptied, at least: each writes all of it into the file"""


def empty_log(connection: sqlite3.Connection) -> bool:
    """Move the log into the file, and cut it to nothing. False if a reader from outside still needs it.

    Not within a transaction. Raises sqlite3.Error.
    """
    (waits,) = connection.execute("PRAGMA busy_timeout").fetchone()
    # The thread serves everybody: it does not wait for a reader.
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {waits}")
    return not busy


class WriteAheadLog:
    """Is emptied within EMPTY_SECONDS after a recall. Used in the thread only."""

    _log = Logger()

    def __init__(self, connection: sqlite3.Connection, monotonic: Callable[[], float]) -> None:
        self._connection = connection
        self._monotonic = monotonic
        self._seldom = Seldom(self._log)
        self._tried_at = float("-inf")
        self.has_recalled = False
        """some page in it may have a recalled message's text"""

    def tend(self) -> None:
        """Empty it if that is due. Call often, outside a transaction. Never raises."""
        if not self.has_recalled or self._monotonic() - self._tried_at < EMPTY_SECONDS:
            return
        self._tried_at = self._monotonic()
        try:
            self.has_recalled = not empty_log(self._connection)
        except sqlite3.Error as error:
            self._seldom.warn("SQLite's log keeps recalled texts a while longer: {error}", error=error)
