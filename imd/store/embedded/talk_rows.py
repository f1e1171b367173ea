"""The rows that the list of conversations is read from: one for each conversation.

Its key is the conversation's id. A list from which somebody was left out has one more row for each set of
users who were; a hash of them is the second half of its key. So each user's place is exact.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any

import msgspec

from imd.store.embedded.tables import ManyRows

ID_BYTES = 16
"""of a conversation's id"""

_PUT = ManyRows(
    "INSERT INTO talk (key, at, version, highest) VALUES {rows} ON CONFLICT (key) DO UPDATE SET "
    "version = iif((excluded.at, excluded.version) > (at, version), excluded.version, version), "
    "at = MAX(at, excluded.at), highest = MAX(highest, excluded.highest)",
    4,
)
_THERE = ManyRows("SELECT key FROM talk WHERE key IN ({rows})", 1, "?")
_PUT_MEMBERS = ManyRows("INSERT OR IGNORE INTO talk_member (uid, key) VALUES {rows}", 2)


class TalkRows:
    """Rows that are not in the file yet."""

    def __init__(self) -> None:
        self._rows: dict[bytes, tuple[str, int, int]] = {}
        """key → the id of the newest message; a room's version that it was placed under, and the highest"""
        self._first: dict[bytes, int] = {}
        """key → the number of a message, whose participants are the people; not for rooms"""

    def note(self, conversation: bytes, message_id: str, number: int, without: Iterable[str] = ()) -> None:
        """A message between people, who are its participants. `without`: those who are left out."""
        key = conversation
        if without:
            key += blake2b(msgspec.json.encode(sorted(without)), digest_size=ID_BYTES).digest()
        if key not in self._rows:
            self._first[key] = number
            self._rows[key] = message_id, 0, 0
        elif message_id > self._rows[key][0]:
            self._rows[key] = message_id, 0, 0

    def note_room(self, conversation: bytes, message_id: str, version: int) -> None:
        """A message in a room."""
        at, of, highest = self._rows.get(conversation, ("", 0, 0))
        at, of = max((at, of), (message_id, version))
        self._rows[conversation] = at, of, max(highest, version)

    def write(self, connection: sqlite3.Connection, participants: Sequence[Any]) -> None:
        """Put the rows into the open transaction. `participants`: rows of that table, laid end to end."""
        if not self._rows:
            return
        there = set(_THERE.read(connection, list(self._first)))
        new = {number: key for key, number in self._first.items() if key not in there}
        if new:
            members: list[Any] = []
            for uid, number in zip(participants[::3], participants[2::3], strict=True):
                if number in new:
                    members += (uid, new[number])
            _PUT_MEMBERS.write(connection, members)
        rows = ((key, *row) for key, row in self._rows.items())
        _PUT.write(connection, list(chain.from_iterable(rows)))
        self.clear()

    def clear(self) -> None:
        self._rows.clear()
        self._first.clear()
