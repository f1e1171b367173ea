"""Visitors' tokens in the embedded backend, and the end of visitors that never wrote.

A visitor is a newcomer until it has written or got a message. Its inbox's numbers and the messages that it
takes part in show that, so a message does nothing for it: both are looked at when a newcomer's hour is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from imd.store.embedded.state import State
from imd.store.embedded.tables import as_json

ROWS_PER_CALL = 2000

_TAKES_PART = (
    "EXISTS (SELECT 1 FROM user u WHERE u.name = newcomer.name AND "
    "(u.seq > 0 OR EXISTS (SELECT 1 FROM participant p WHERE p.uid = u.uid) "
    "OR EXISTS (SELECT 1 FROM event_reader e WHERE e.uid = u.uid)))"
)
_IS_SEEN = (
    "EXISTS (SELECT 1 FROM user u JOIN device d ON d.uid = u.uid "
    "WHERE u.name = newcomer.name AND d.seen >= :new)"
)
_DUE = "name IN (SELECT value FROM json_each(:names)) AND used < :new"


class Visitors:
    """All methods run in the open transaction."""

    def __init__(self, state: State, also_forget: Callable[[Sequence[str]], None]) -> None:
        """`also_forget` deletes the rest that is kept of visitors whose tokens are too old."""
        self._state = state
        self._also_forget = also_forget

    def remember(self, visitor: str, token_hash: str) -> None:
        """A new visitor's token."""
        self._state.connection.execute(
            "INSERT OR REPLACE INTO newcomer (name, token_hash, used) VALUES (?, ?, ?)",
            (visitor, token_hash, self._state.clock.now_ms()),
        )

    def knows(self, visitor: str, token_hash: str) -> bool:
        """True if the hash is the visitor's. It then counts as used now."""
        now = self._state.clock.now_ms()
        values = {"name": visitor, "hash": token_hash, "now": now, **self._bounds(now)}
        return any(
            self._state.connection.execute(statement, values).rowcount > 0
            for statement in (
                "UPDATE visitor SET used = :now WHERE name = :name AND token_hash = :hash AND used >= :old",
                "UPDATE newcomer SET used = :now WHERE name = :name AND token_hash = :hash AND "
                f"(used >= :new OR {_IS_SEEN} OR (used >= :old AND {_TAKES_PART}))",
            )
        )

    def forget(self, now: int) -> None:
        """Delete tokens that are too old, and newcomers with all that is theirs. Call after State.write."""
        state = self._state
        connection = state.connection
        old = self._names(
            "SELECT json_group_array(name) FROM (SELECT name FROM visitor WHERE used < :old LIMIT :most)",
            {**self._bounds(now), "most": ROWS_PER_CALL},
        )
        if old:
            names = "SELECT value FROM json_each(?)"
            connection.execute(f"DELETE FROM visitor WHERE name IN ({names})", (as_json(old),))
            self._also_forget(old)
        due = self._names(
            "SELECT json_group_array(name) FROM "
            "(SELECT name FROM newcomer WHERE used < :new ORDER BY used LIMIT :most)",
            {**self._bounds(now), "most": ROWS_PER_CALL},
        )
        if not due:
            return
        here = [name for name in due if state.channels.live(name, now)]
        values = {**self._bounds(now), "now": now, "names": as_json(due), "here": as_json(here)}
        for statement in (
            f"INSERT OR REPLACE INTO visitor SELECT name, token_hash, used FROM newcomer "
            f"WHERE {_DUE} AND {_TAKES_PART}",
            f"DELETE FROM newcomer WHERE {_DUE} AND {_TAKES_PART}",
            "UPDATE newcomer SET used = :now WHERE name IN (SELECT value FROM json_each(:here))",
            f"UPDATE newcomer SET used = (SELECT MAX(d.seen) FROM user u JOIN device d ON d.uid = u.uid "
            f"WHERE u.name = newcomer.name) WHERE {_DUE} AND {_IS_SEEN}",
        ):
            connection.execute(statement, values)
        values["names"] = as_json(
            gone := self._names(f"SELECT json_group_array(name) FROM newcomer WHERE {_DUE}", values)
        )
        for statement in (
            "DELETE FROM device WHERE uid IN (SELECT uid FROM user WHERE name IN "
            "(SELECT value FROM json_each(:names)))",
            "DELETE FROM user WHERE name IN (SELECT value FROM json_each(:names))",
            f"DELETE FROM newcomer WHERE {_DUE}",
        ):
            connection.execute(statement, values)
        state.rows_are_gone(gone)

    def _bounds(self, now: int) -> dict[str, Any]:
        """Since when a newcomer and another visitor must have been here."""
        return {"new": now - self._state.newcomer_ms, "old": now - self._state.visitor_ms}

    def _names(self, statement: str, values: Mapping[str, Any]) -> list[str]:
        found = self._state.connection.execute(statement, values).fetchone()[0]
        return msgspec.json.decode(found, type=list[str])
