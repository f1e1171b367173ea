"""Reading pages of history from the file. Rows are written by `accept.Placing`, and by `events`."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from imd.contracts.archive import History, HistoryQuery
from imd.store.embedded.entries import COLUMNS, JOINS, Row, read_rows, show_rows
from imd.store.embedded.state import State
from imd.store.shared_metrics import FOREIGN

_ALL = "SELECT p.id, p.message FROM participant p WHERE p.uid = :viewer AND {side}"
_CONVERSATION = (
    "SELECT p.id, p.number AS message FROM message p WHERE p.conversation = :conversation AND {side}"
)
_OWN = " AND EXISTS (SELECT 1 FROM participant q WHERE q.uid = :viewer AND q.id = p.id)"
_NOT_LEFT_OUT = " AND NOT EXISTS (SELECT 1 FROM left_out l WHERE l.message = p.number AND l.user = :name)"
_FROM_VERSION = (
    " AND p.id >= :floor AND COALESCE(json_extract(p.body, '$.roomVersion'), "
    "json_extract(p.body, '$.version')) >= :version"
)
_NOT_CLEARED = (
    " AND p.id > COALESCE((SELECT j.value FROM json_each(:cleared) j, message c "
    "WHERE c.number = {number} AND j.key = lower(hex(c.conversation))), '')"
)
_BODIES = (
    f"SELECT json_group_array(json_array({COLUMNS})) "
    f"FROM ({{found}} ORDER BY p.id {{order}} LIMIT :rows) f JOIN message m ON m.number = f.message {JOINS}"
)
_AFTER_ALL_IDS = "\U0010ffff"
# An id is given up to so long before its message is placed.
_PLACED_LATE_MS = 600_000


class _Part(NamedTuple):
    """Entries of one side of an id, the nearest first; whether there are more of them."""

    rows: list[Row]
    rest: bool


def read_history(state: State, query: HistoryQuery) -> History:
    """See imd.contracts.archive.Archive.history."""
    values: dict[str, Any] = {}
    if query.conversation is None or query.only_own:
        values["viewer"] = state.uid_of(query.viewer)
        if values["viewer"] is None:
            return History()
    state.write()
    if query.conversation is not None:
        values["name"] = query.viewer
        try:
            values["conversation"] = bytes.fromhex(query.conversation)
        except ValueError:
            return History()
        if query.from_version is not None:
            values["version"] = query.from_version
            values["floor"] = floor_of(state, values["conversation"], query.from_version)
    older = newer = _Part([], False)
    if query.after is not None:
        newer = _read(state, query, values, ">", query.after, query.limit)
        older = _read(state, query, values, "<=", query.after, 0)
    elif query.around is not None:
        older = _read(state, query, values, "<", query.around, query.limit // 2)
        newer = _read(state, query, values, ">=", query.around, query.limit - len(older.rows))
    else:
        older = _read(state, query, values, "<", query.before or _AFTER_ALL_IDS, query.limit)
        if query.before is not None:
            newer = _read(state, query, values, ">=", query.before, 0)
    page = older.rows[::-1] + newer.rows
    return History(show_rows(state, page, query.viewer), older.rest, newer.rest, len(older.rows))


def floor_of(state: State, conversation: bytes, version: int) -> str:
    """An id below all that was placed in the room under `version` or later; empty if that is not known."""
    found = state.connection.execute(
        "SELECT id FROM event WHERE conversation = ? AND version = ? AND kind = 'room'",
        (conversation, version),
    ).fetchone()
    return "" if found is None else f"{max(0, int(found[0][:12], 16) - _PLACED_LATE_MS):012x}"


def _read(
    state: State, query: HistoryQuery, values: dict[str, Any], side: str, bound: str, limit: int
) -> _Part:
    """At most `limit` entries whose ids are on this side of the bound."""
    found = _ALL if query.conversation is None else _CONVERSATION
    if query.conversation is not None:
        found += _OWN if query.only_own else _NOT_LEFT_OUT
    if query.from_version is not None:
        found += _FROM_VERSION
    if query.cleared:
        found += _NOT_CLEARED.replace("{number}", "p.message" if query.conversation is None else "p.number")
        values = {**values, "cleared": msgspec.json.encode(query.cleared).decode()}
    order = "DESC" if side.startswith("<") else "ASC"
    values = {**values, "bound": bound, "rows": limit + 1}
    rows: list[Row] = []
    while True:
        text = _BODIES.format(found=found.format(side=f"p.id {side} :bound"), order=order)
        every = read_rows(state.connection.execute(text, values).fetchone()[0])
        every.sort(key=lambda row: row.message_id, reverse=order == "DESC")
        fit = [row for row in every if row.is_entry()]
        if len(fit) < len(every):
            FOREIGN.inc(len(every) - len(fit))
        rows += fit
        if len(rows) > limit or len(every) < values["rows"]:
            break
        values["bound"] = every[-1].message_id
        side = side[0]
    return _Part(rows[:limit], len(rows) > limit)


def read_newest_id(state: State) -> str:
    """See `Archive.newest_id`. One seek for each user, since each message has a participant, and each event
    a reader, or is a room's."""
    state.write()
    newest = (
        "SELECT MAX(id) FROM (SELECT MAX((SELECT MAX(p.id) FROM participant p WHERE p.uid = u.uid)) AS id "
        "FROM (SELECT uid FROM user UNION ALL SELECT 0) u UNION ALL "
        "SELECT MAX((SELECT MAX(r.id) FROM event_reader r WHERE r.uid = u.uid)) FROM user u UNION ALL "
        "SELECT MAX(id) FROM event)"
    )
    return state.connection.execute(newest).fetchone()[0] or ""


def read_last_id(state: State) -> str:
    """The id of the last message or event that was placed. Ids rise in the order of placing."""
    state.write()
    last = state.connection.execute("SELECT id FROM message ORDER BY number DESC LIMIT 1").fetchone()
    return "0" * 28 if last is None else str(last[0])
