"""Marks and settings in the file: tables of users and of their conversations, in the open transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from imd.contracts import state_rules
from imd.contracts.state import KEPT, Changes, Entry, Mark, Setting, UserState
from imd.contracts.state_rules import Decided
from imd.protocol.errors import Refused
from imd.protocol.selector import Selector
from imd.store.embedded.tables import as_json

_COLUMNS = "conversation, version, selector, read, peer, muted, pinned, hidden, cleared, marked"
_YES = -1
"""muted for good"""


class _Named(Selector, frozen=True):
    """The column `selector`."""

    by: str = ""
    """as in Entry"""


_read_named = msgspec.json.Decoder(_Named).decode


class Made(NamedTuple):
    """The outcome of a change, and the changes to tell, of the user and of peers."""

    outcome: Changes | Refused
    told: Sequence[Changes] = ()


class MarkTables:
    """Owned by the thread that owns the connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def change(self, user: str, marks: Sequence[Mark], setting: Setting | None, since: int | None) -> Made:
        """As `StateStore.change`."""
        named = state_rules.named(marks, setting)
        before = self._state(user, named, with_pins=setting is not None and bool(setting.pinned))
        try:
            decided = state_rules.decide(before, marks, setting)
        except Refused as refused:
            return Made(refused)
        told = self._tell_peers(user, before.receipts, decided.raised)
        after = decided.state
        if after is not before:
            self._write(decided)
            told.append(self._shown(state_rules.told(before, decided), after.receipts))
            if after.receipts and not before.receipts:
                told += self.touch([(user, peer) for peer in self._peers(user)], only_other=True)
        present = [after.entries.get(name) or Entry(name, selector) for name, selector in named.items()]
        unchanged = Changes(user, after.version, after.version)
        found = unchanged if since is None else self._since(user, since)
        answer = state_rules.answer(found, present, setting, after.receipts)
        return Made(self._shown(answer, after.receipts), told)

    def since(self, user: str, version: int | None) -> Changes:
        """As `StateStore.since`."""
        receipts = self._state(user, ()).receipts
        return self._shown(self._since(user, version), receipts)

    def versions(self, users: Sequence[str]) -> dict[str, int]:
        found = dict.fromkeys(users, 0)
        found.update(
            self._connection.execute(
                "SELECT user, version FROM state_user WHERE user IN (SELECT value FROM json_each(?))",
                (as_json(users),),
            ).fetchall()
        )
        return found

    def entries(self, user: str, conversations: Sequence[str]) -> dict[str, Entry]:
        """As `StateStore.entries`."""
        state = self._state(user, conversations)
        changes = Changes(user, 0, state.version, tuple(state.entries.values()))
        return {entry.conversation: entry for entry in self._shown(changes, state.receipts).entries}

    def cleared(self, user: str) -> dict[str, str]:
        found = self._connection.execute(
            "SELECT lower(hex(conversation)), cleared FROM state_entry WHERE user = ? AND cleared <> ''",
            (user,),
        )
        return dict(found.fetchall())

    def touch(self, pairs: Sequence[tuple[str, str]], *, only_other: bool = False) -> list[Changes]:
        """As `StateStore.touch`; gives the changes to tell. `only_other`: of each pair only the second."""
        told = []
        for one, other in pairs:
            for user, peer in ((other, one),) if only_other else ((one, other), (other, one)):
                conversation = state_rules.pair_id(user, peer)
                before = self._state(user, [conversation])
                decided = state_rules.touch(before, [conversation])
                if decided.state is not before:
                    self._write(decided)
                    told.append(self._shown(state_rules.told(before, decided), before.receipts))
        return told

    def forget(self, users: Sequence[str]) -> None:
        """Delete the states of users that are gone."""
        for table in ("state_entry", "state_user"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE user IN (SELECT value FROM json_each(?))", (as_json(users),)
            )

    # from within

    def _tell_peers(self, user: str, receipts: bool, raised: Sequence[Mark]) -> list[Changes]:
        """Write marks beside the conversations of those who may see them."""
        if not receipts or not raised:
            return []
        hidden = self._hidden(user, [mark.peer for mark in raised])
        told = []
        for mark in raised:
            if mark.peer in hidden:
                continue
            before = self._state(mark.peer, [mark.conversation])
            decided = state_rules.take_peer(before, user, mark.conversation, mark.up_to)
            if decided.state is not before:
                self._write(decided)
                told.append(state_rules.told(before, decided))
        return told

    def _hidden(self, user: str, peers: Collection[str]) -> set[str]:
        """The peers whose marks `user` is not shown, and who are not shown those of `user`."""
        found = self._connection.execute(
            "WITH peer (name) AS (SELECT value FROM json_each(:peers)) "
            "SELECT user FROM state_user WHERE receipts = 0 AND user IN peer "
            "UNION SELECT other FROM block WHERE user = :user AND other IN peer "
            "UNION SELECT user FROM block WHERE other = :user AND user IN peer",
            {"user": user, "peers": as_json(peers)},
        )
        return {name for (name,) in found.fetchall()}

    def _shown(self, changes: Changes, receipts: bool) -> Changes:
        """Without the marks that the user may not see."""
        peers = state_rules.peers_of(changes.entries)
        return state_rules.hide(changes, self._hidden(changes.user, peers), receipts) if peers else changes

    def _peers(self, user: str) -> list[str]:
        """The users of all pairs."""
        entries = self._entries(user, "selector LIKE '{\"with\":%'", ())
        return [peer for entry in entries if (peer := entry.selector.with_) != user]

    def _state(self, user: str, conversations: Collection[str], *, with_pins: bool = False) -> UserState:
        """The user's state, with these of its entries."""
        row = self._connection.execute(
            "SELECT version, floor, receipts, receipts_version FROM state_user WHERE user = ?", (user,)
        ).fetchone()
        if row is None:
            return UserState(user)
        version, floor, receipts, receipts_v = row
        state = UserState(user, version, floor, bool(receipts), receipts_v)
        if with_pins:
            # The second condition is that of the index.
            pins = self._connection.execute(
                "SELECT COUNT(*) FROM state_entry WHERE user = ? "
                "AND pinned = 1 AND (pinned = 1 OR muted <> 0)",
                (user,),
            ).fetchone()[0]
            state = replace(state, pins=pins)
        if not conversations:
            return state
        places = ",".join("?" * len(conversations))
        found = self._entries(user, f"conversation IN ({places})", map(bytes.fromhex, conversations))
        return replace(state, entries={entry.conversation: entry for entry in found})

    def _since(self, user: str, version: int | None) -> Changes:
        state = self._state(user, ())
        if version is not None and state.floor <= version <= state.version:
            entries = self._entries(user, "version > ?", (version,))
        else:
            kept = self._entries(user, "(pinned = 1 OR muted <> 0)", ())
            entries = [*self._entries(user, "1 ORDER BY version DESC LIMIT ?", (KEPT,)), *kept]
        by_conversation = {entry.conversation: entry for entry in entries}
        return state_rules.since(replace(state, entries=by_conversation), version)

    def _entries(self, user: str, where: str, values: Iterable[Any]) -> list[Entry]:
        found = self._connection.execute(
            f"SELECT {_COLUMNS} FROM state_entry WHERE user = ? AND {where}", (user, *values)
        )
        return [_entry(row) for row in found.fetchall()]

    def _write(self, decided: Decided) -> None:
        state = decided.state
        self._connection.execute(
            "INSERT OR REPLACE INTO state_user (user, version, floor, receipts, receipts_version) "
            "VALUES (?, ?, ?, ?, ?)",
            (state.user, state.version, state.floor, state.receipts, state.receipts_v),
        )
        self._connection.executemany(
            f"INSERT OR REPLACE INTO state_entry (user, {_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            [(state.user, *_row(entry)) for entry in decided.changed],
        )


def _row(entry: Entry) -> tuple[Any, ...]:
    one = entry.selector
    selector = msgspec.json.encode(_Named(one.with_, one.group, one.room, entry.by)).decode()
    muted = _YES if entry.muted is True else int(entry.muted)
    marks = (entry.read, entry.peer, muted, entry.pinned, entry.hidden, entry.cleared, entry.marked)
    return (bytes.fromhex(entry.conversation), entry.v, selector, *marks)


def _entry(row: Sequence[Any]) -> Entry:
    conversation, v, selector, read, peer, muted, pinned, hidden, cleared, marked = row
    named = _read_named(selector)
    return Entry(
        conversation.hex(),
        Selector(named.with_, named.group, named.room),
        v,
        read,
        peer,
        True if muted == _YES else muted or False,
        bool(pinned),
        hidden,
        cleared,
        bool(marked),
        named.by,
    )
