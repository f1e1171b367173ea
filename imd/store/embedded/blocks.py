"""Blocked users of the embedded backend: a table, and the store on it as seen from the reactor."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from twisted.internet.defer import Deferred

from imd.contracts.blocks import MAX_BLOCKED, too_many
from imd.protocol.errors import Refused
from imd.store.embedded.on_file import OnFile
from imd.store.embedded.state import State


class BlockTables:
    """Owned by the thread that owns the connection."""

    def __init__(self, state: State) -> None:
        self._state = state

    def block(self, user: str, other: str, on: bool) -> bool | None:
        """See imd.contracts.blocks.BlockStore.block; None past the bound."""
        execute = self._state.connection.execute
        pair = user, other
        is_on = execute("SELECT 1 FROM block WHERE user = ? AND other = ?", pair).fetchone() is not None
        if is_on is on:
            return False
        if on:
            count = execute("SELECT COUNT(*) FROM block WHERE user = ?", (user,)).fetchone()[0]
            if count >= MAX_BLOCKED:
                return None
            execute("INSERT INTO block (user, other) VALUES (?, ?)", pair)
        else:
            execute("DELETE FROM block WHERE user = ? AND other = ?", pair)
        self._state.read_blocked(pair)
        return True

    def of(self, user: str) -> list[str]:
        rows = self._state.connection.execute(
            "SELECT other FROM block WHERE user = ? ORDER BY other", (user,)
        ).fetchall()
        return [other for (other,) in rows]

    def among(self, user: str, others: Collection[str]) -> set[str]:
        """Of these others, those who block the user."""
        execute = self._state.connection.execute
        find = "SELECT 1 FROM block WHERE user = ? AND other = ?"
        return {other for other in others if execute(find, (other, user)).fetchone() is not None}


class EmbeddedBlocks(OnFile[BlockTables]):
    """Implements imd.contracts.blocks.BlockStore."""

    def block(self, user: str, other: str, on: bool) -> Deferred[bool | Refused]:
        done = self._do(lambda blocks: blocks.block(user, other, on))
        return done.addCallback(lambda changed: too_many() if changed is None else changed)

    def of(self, user: str) -> Deferred[Sequence[str]]:
        return self._do(lambda blocks: blocks.of(user))

    def among(self, user: str, others: Collection[str]) -> Deferred[set[str]]:
        return self._do(lambda blocks: blocks.among(user, others))

    def loaded(self) -> bool:
        return True
