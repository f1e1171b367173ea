"""The SQLite file of the embedded backend: its lock, its tables, and statements that take many rows.

Python releases its interpreter lock around each step of a statement. A thread that steps once for each row
waits for a busy reactor each time: measured, 1,200 µs a row instead of 5. So a statement writes many rows,
and reads many as one row, a JSON array.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from imd.protocol.errors import ConfigurationError
from imd.store.embedded.formats import UNANSWERED, migrate
from imd.store.embedded.write_ahead import empty_log

BUSY_SECONDS = 5


def lock_folder(folder: str) -> int:
    """Lock `<folder>/lock`; gives the descriptor. A missing folder is made, for its owner alone.

    Raises ConfigurationError if another process has it or the folder cannot be used.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        expected = "a folder to write to is expected"
        raise ConfigurationError(f"[node] data = {folder}: {expected}: {error}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigurationError(
            f"[node] data = {folder}: a folder that no other node uses is expected"
        ) from None
    return descriptor


def open_file(folder: str) -> sqlite3.Connection:
    """Open `<folder>/imd.db`, and make or migrate its tables.

    Raises ConfigurationError if it cannot be used.
    """
    path = os.path.join(folder, "imd.db")
    try:
        # SQLite gives its other files the mode of this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, cached_statements=512)
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(f"[node] data = {folder}: {path} cannot be opened: {error}") from None
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        # FAST would leave what long texts had in pages of their own.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("CREATE TEMP TABLE moving (message INTEGER PRIMARY KEY, size INTEGER NOT NULL)")
        migrate(connection, path)
        # A process that was killed may have left recalled texts in it.
        empty_log(connection)
    except sqlite3.Error as error:
        connection.close()
        raise ConfigurationError(f"[node] data = {folder}: {path} is not usable: {error}") from None
    except ConfigurationError as error:
        connection.close()
        raise ConfigurationError(f"[node] data = {folder}: {error}") from None
    return connection


def as_json(names: Collection[str]) -> str:
    """For `json_each`."""
    return msgspec.json.encode(list(names)).decode()


class ManyRows:
    """A statement for any number of rows of `columns` values each, in few executions.

    `sql` holds `{rows}` in the place of the rows, each written as `row`. There are texts for 1, 2, 4 … 256
    rows, made once, so that the connection finds their compiled statements again.
    """

    _SIZES = (256, 128, 64, 32, 16, 8, 4, 2, 1)

    def __init__(self, sql: str, columns: int, row: str = "") -> None:
        self._columns = columns
        one = row or "(" + ",".join("?" * columns) + ")"
        self._texts = {size: sql.format(rows=",".join([one] * size)) for size in self._SIZES}

    def run(
        self, connection: sqlite3.Connection, values: Sequence[Any], more: tuple[Any, ...] = ()
    ) -> Iterator[sqlite3.Cursor]:
        """Execute for all rows, which are laid end to end in `values`; `more`: the parameters behind them."""
        columns = self._columns
        start = 0
        left = len(values) // columns
        for size in self._SIZES:
            while left >= size:
                end = start + size * columns
                yield connection.execute(self._texts[size], (*values[start:end], *more))
                start = end
                left -= size

    def write(self, connection: sqlite3.Connection, values: Sequence[Any]) -> None:
        for _ in self.run(connection, values):
            pass

    def read(
        self, connection: sqlite3.Connection, values: Sequence[Any], more: tuple[Any, ...] = ()
    ) -> Iterable[Any]:
        """The first column of each result row."""
        for cursor in self.run(connection, values, more):
            for row in cursor.fetchall():
                yield row[0]


PUT_USERS = ManyRows(
    "INSERT INTO user (uid, name, epoch, seq, low, agent, agent_used, waiting, owed, opened) VALUES {rows} "
    "ON CONFLICT (uid) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, low = excluded.low, "
    "agent = excluded.agent, agent_used = excluded.agent_used, waiting = excluded.waiting, "
    "owed = excluded.owed, opened = excluded.opened",
    10,
)
GET_USERS = ManyRows(
    "SELECT json_group_array(json_array(uid, name, epoch, seq, low, agent, agent_used, waiting, "
    "owed, opened)) "
    "FROM user WHERE name IN ({rows})",
    1,
    "?",
)
PUT_DEVICES = ManyRows(
    "INSERT OR REPLACE INTO device (uid, name, epoch, seq, seen, attempt, ephemeral, sync) VALUES {rows}", 8
)
DROP_DEVICES = ManyRows("DELETE FROM device WHERE (uid, name) IN (VALUES {rows})", 2)
GET_DEVICES = ManyRows(
    "SELECT json_group_array(json_array(uid, name, epoch, seq, seen, attempt, ephemeral, sync)) "
    "FROM device WHERE uid IN ({rows})",
    1,
    "?",
)
PUT_MESSAGES = ManyRows(
    "INSERT INTO message (number, id, sender, conversation, send_time, body) VALUES {rows}", 6
)
PUT_PARTICIPANTS = ManyRows("INSERT OR IGNORE INTO participant (uid, id, message) VALUES {rows}", 3)
PUT_INBOX = ManyRows("INSERT INTO inbox (uid, seq, message, size) VALUES {rows}", 4)
TRIM_INBOX = ManyRows(
    "WITH trim (uid, low) AS (VALUES {rows}) DELETE FROM inbox WHERE (uid, seq) IN "
    "(SELECT i.uid, i.seq FROM trim CROSS JOIN inbox i ON i.uid = trim.uid AND i.seq <= trim.low)",
    2,
)
PUT_WAITING = ManyRows("INSERT INTO waiting (uid, position, message, size) VALUES {rows}", 4)
PUT_UNANSWERED = ManyRows("INSERT OR IGNORE INTO unanswered (uid, message, size) VALUES {rows}", 3)
CAP_UNANSWERED = ManyRows(
    "WITH grown (uid) AS (VALUES {rows}) DELETE FROM unanswered WHERE (uid, message) IN "
    "(SELECT u.uid, u.message FROM grown CROSS JOIN unanswered u ON u.uid = grown.uid AND u.message <= "
    "(SELECT message FROM unanswered n WHERE n.uid = grown.uid ORDER BY message DESC "
    f"LIMIT 1 OFFSET {UNANSWERED}))",
    1,
)
DROP_ANSWERED = ManyRows(
    "WITH answer (uid, message) AS (VALUES {rows}) DELETE FROM unanswered WHERE (uid, message) IN "
    "(SELECT u.uid, u.message FROM answer CROSS JOIN unanswered u ON u.uid = answer.uid "
    "AND u.message <= answer.message)",
    2,
)
PUT_LEFT_OUT = ManyRows("INSERT OR IGNORE INTO left_out (message, user) VALUES {rows}", 2)
GET_BLOCKED = ManyRows(
    "WITH named (name) AS (VALUES {rows}) SELECT json_group_array(json_array(name, other)) FROM ("
    "SELECT n.name, b.other FROM named n CROSS JOIN block b ON b.user = n.name UNION ALL "
    "SELECT n.name, b.user FROM named n CROSS JOIN block b ON b.other = n.name)",
    1,
)
PUT_SENT = ManyRows(
    "INSERT OR REPLACE INTO sent (use, sender, device, client_msg_id, content, message, used) VALUES {rows}",
    7,
)
GET_SENT = ManyRows(
    "WITH key (sender, device, client_msg_id) AS (VALUES {rows}) SELECT json_group_array(json_array("
    "s.sender, s.device, s.client_msg_id, json_array(s.content, s.message, m.id, "
    "COALESCE(json_extract(m.body, '$.sendTime'), m.send_time), "
    "COALESCE(json_extract(m.body, '$.roomVersion'), json_extract(m.body, '$.version'), 0), "
    "json((SELECT json_group_array(l.user) FROM left_out l WHERE l.message = s.message))))) "
    "FROM key CROSS JOIN sent s ON s.sender = key.sender AND s.device = key.device "
    "AND s.client_msg_id = key.client_msg_id JOIN message m ON m.number = s.message WHERE s.used >= ?",
    3,
)
