"""The state that a client keeps, such as cursor and outbox: in memory, or in a SQLite file."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Protocol

from imd.client.outgoing import Outgoing, restored, stored

SEEN = 1024
"""ids of handled messages in the file, which are recognised under other numbers"""


@dataclass(slots=True)
class Saved:
    """The whole content of a store, when a client begins."""

    device: str
    epoch: str | None = None
    """the cursor's epoch; None: there is no cursor"""
    seq: int = 0
    user_id: str | None = None
    """the user of cursor and outbox; None: nobody yet"""
    visitor_token: str | None = None
    seen: list[str] = field(default_factory=list)
    """ids of handled messages, oldest first"""
    outbox: list[Outgoing] = field(default_factory=list)
    """in the order of sending"""
    attempt: int = 0
    """the number of the last connect signal; 0: there was none"""
    complete: str = ""
    """events up to this id were in this inbox, or were read from the archive; empty: nobody knows"""
    behind: bool = False
    """later events may be missing, and have to be read from the archive"""
    state_version: int | None = None
    """the version of marks and settings; None: this device has none"""
    receipts: bool = True
    """the user's own setting"""
    conversations: list[str] = field(default_factory=list)
    """texts of conversations with marks or settings"""
    wishes: dict[str, str] = field(default_factory=dict)
    """marks and settings that the node has not confirmed: a text by key, oldest first"""


class Store(Protocol):
    """A call returns when its data is stored. A store belongs to one client at a time."""

    def load(self) -> Saved: ...

    def put_cursor(self, epoch: str, seq: int, handled: Sequence[str]) -> None:
        """Store the cursor and the ids of the messages that moved it, atomically."""

    def put_attempt(self, attempt: int) -> None:
        """Store the last attempt, so that the next is higher even if the clock is set back."""

    def put_outgoing(self, outgoing: Outgoing) -> None:
        """Add a message at the end, or replace one with the same clientMsgId in its place."""

    def drop_outgoing(self, client_msg_id: str) -> None: ...

    def forget(self) -> None:
        """A message was recalled: nothing may be left of texts that were dropped or replaced."""

    def put_complete(self, complete: str, behind: bool) -> None:
        """Store how far events are known. See `Saved`."""

    def put_state(
        self, version: int | None, receipts: bool, conversations: Mapping[str, str], whole: bool
    ) -> None:
        """Store, atomically, the version and texts of conversations by key. `whole`: others are deleted."""

    def put_wish(self, key: str, wish: str | None) -> None:
        """Store the text of a key, in its place if there is one; None: delete it."""

    def put_user(self, user_id: str | None, visitor_token: str | None) -> None:
        """Store the user. Cursor, ids and `complete` are deleted: another user has another inbox.

        State and wishes are deleted if there was another user before.
        """

    def close(self) -> None: ...


class MemoryStore:
    """Keeps nothing across processes. The node's own cursor for the device says where to continue."""

    def load(self) -> Saved:
        return Saved(device="default")

    def put_cursor(self, epoch: str, seq: int, handled: Sequence[str]) -> None: ...

    def put_attempt(self, attempt: int) -> None: ...

    def put_outgoing(self, outgoing: Outgoing) -> None: ...

    def drop_outgoing(self, client_msg_id: str) -> None: ...

    def forget(self) -> None: ...

    def put_complete(self, complete: str, behind: bool) -> None: ...

    def put_state(
        self, version: int | None, receipts: bool, conversations: Mapping[str, str], whole: bool
    ) -> None: ...

    def put_wish(self, key: str, wish: str | None) -> None: ...

    def put_user(self, user_id: str | None, visitor_token: str | None) -> None: ...

    def close(self) -> None: ...


BUSY_SECONDS = 5

_SCHEMA = """
CREATE TABLE IF NOT EXISTS value (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS seen (number INTEGER PRIMARY KEY, id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (number INTEGER PRIMARY KEY, client_msg_id TEXT NOT NULL UNIQUE,
    message TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS conversation (key TEXT PRIMARY KEY, conversation TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS wish (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, wish TEXT NOT NULL);
"""


class SqliteStore:
    """One file for one client, which survives a kill of the process. Each call is a small write.

    Writes are not synchronised with the disk, so a power failure may undo the last ones. Then the program may
    get a message twice, and a message that the node had not accepted may be forgotten.

    `forget` removes the bytes of dropped texts, which SQLite would leave in the write-ahead log for a while.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._file = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = NORMAL")
        self._file.execute("PRAGMA temp_store = MEMORY")
        # FAST would leave what long texts had in pages of their own.
        self._file.execute("PRAGMA secure_delete = ON")
        self._file.executescript(_SCHEMA)
        self._logged = True
        """the log may have texts; a process that was killed may have left recalled ones"""
        self._must_empty = True
        self._empty_log()
        self._file.execute(
            "INSERT OR IGNORE INTO value VALUES ('device', ?)", (f"py-{secrets.token_hex(6)}",)
        )

    def load(self) -> Saved:
        values = dict(self._file.execute("SELECT name, value FROM value"))
        saved = Saved(values["device"], user_id=values.get("user"), visitor_token=values.get("visitor"))
        if "cursor" in values:
            saved.epoch, saved.seq = json.loads(values["cursor"])
        saved.attempt = int(values.get("attempt", 0))
        if "complete" in values:
            saved.complete, saved.behind = json.loads(values["complete"])
        saved.seen = [row[0] for row in self._file.execute("SELECT id FROM seen ORDER BY number")]
        for (text,) in self._file.execute("SELECT message FROM outbox ORDER BY number"):
            saved.outbox.append(restored(text))
        if "state" in values:
            saved.state_version, saved.receipts = json.loads(values["state"])
        saved.conversations = [row[0] for row in self._file.execute("SELECT conversation FROM conversation")]
        saved.wishes = dict(self._file.execute("SELECT key, wish FROM wish ORDER BY number"))
        return saved

    def put_cursor(self, epoch: str, seq: int, handled: Sequence[str]) -> None:
        with self._transaction() as file:
            self._put("cursor", json.dumps([epoch, seq]))
            file.executemany("INSERT INTO seen (id) VALUES (?)", [(each,) for each in handled])
            if handled:
                file.execute("DELETE FROM seen WHERE number <= (SELECT MAX(number) FROM seen) - ?", (SEEN,))
        self._empty_log()

    def put_attempt(self, attempt: int) -> None:
        self._put("attempt", str(attempt))

    def put_outgoing(self, outgoing: Outgoing) -> None:
        self._logged = True
        self._file.execute(
            "INSERT INTO outbox (client_msg_id, message) VALUES (?, ?) "
            "ON CONFLICT (client_msg_id) DO UPDATE SET message = excluded.message",
            (outgoing.client_msg_id, stored(outgoing)),
        )

    def drop_outgoing(self, client_msg_id: str) -> None:
        # The pages of the log are from before it, so they have the text.
        self._logged = True
        self._file.execute("DELETE FROM outbox WHERE client_msg_id = ?", (client_msg_id,))
        self._empty_log()

    def forget(self) -> None:
        # Most recalls are of others' messages, whose texts are not here.
        self._must_empty = self._must_empty or self._logged
        self._empty_log()

    def put_complete(self, complete: str, behind: bool) -> None:
        self._put("complete", json.dumps([complete, behind]))

    def put_state(
        self, version: int | None, receipts: bool, conversations: Mapping[str, str], whole: bool
    ) -> None:
        with self._transaction() as file:
            if whole:
                file.execute("DELETE FROM conversation")
            file.executemany("INSERT OR REPLACE INTO conversation VALUES (?, ?)", conversations.items())
            self._put("state", json.dumps([version, receipts]))

    def put_wish(self, key: str, wish: str | None) -> None:
        if wish is None:
            self._file.execute("DELETE FROM wish WHERE key = ?", (key,))
        else:
            self._file.execute(
                "INSERT INTO wish (key, wish) VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET wish = excluded.wish",
                (key, wish),
            )

    def put_user(self, user_id: str | None, visitor_token: str | None) -> None:
        with self._transaction() as file:
            before = file.execute("SELECT value FROM value WHERE name = 'user'").fetchone()
            file.execute("DELETE FROM value WHERE name IN ('user', 'visitor', 'cursor', 'complete')")
            file.execute("DELETE FROM seen")
            if before is not None and before[0] != user_id:
                file.execute("DELETE FROM value WHERE name = 'state'")
                file.execute("DELETE FROM conversation")
                file.execute("DELETE FROM wish")
            for name, value in (("user", user_id), ("visitor", visitor_token)):
                if value is not None:
                    self._put(name, value)

    def close(self) -> None:
        self._file.close()

    def _empty_log(self) -> None:
        """Move the log into the file, and cut it to nothing, if that is due.

        While another program reads the file that is put off until a later write.
        """
        if not self._must_empty:
            return
        self._file.execute("PRAGMA busy_timeout = 0")
        try:
            if self._cut_log():
                # SQLite leaves a row's bytes in the page that it has moved the row from.
                self._file.execute("VACUUM")
                self._logged = self._must_empty = not self._cut_log()
        except sqlite3.OperationalError:
            # Nothing is lost by it. If the disk is full, the next write says so.
            pass
        finally:
            self._file.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")

    def _cut_log(self) -> bool:
        """False while another program reads the file."""
        busy, _, _ = self._file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield self._file
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")

    def _put(self, name: str, value: str) -> None:
        self._file.execute("INSERT OR REPLACE INTO value VALUES (?, ?)", (name, value))
