"""The list of conversations, read from the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from imd.contracts.rooms import RoomPart
from imd.contracts.talks import (
    MOST_READ,
    MOST_UNREAD,
    Place,
    Places,
    PlacesQuery,
    Talk,
    TalksQuery,
    Wanted,
)
from imd.protocol.conversation import room_conversation_id
from imd.protocol.message import conversation_members, decode_message
from imd.store.embedded.entries import COLUMNS, JOINS, Row, read_rows, show_rows
from imd.store.embedded.events import ROOMS_UID
from imd.store.embedded.state import State
from imd.store.embedded.tables import as_json
from imd.store.embedded.talk_rows import ID_BYTES
from imd.store.shared_metrics import FOREIGN
from imd.store.unread import count_unread

_PEOPLE = (
    "SELECT json_group_array(json_array(lower(hex(conversation)), at)) FROM (SELECT conversation, at FROM "
    f"(SELECT substr(t.key, 1, {ID_BYTES}) AS conversation, MAX(t.at) AS at FROM talk_member m "
    "JOIN talk t ON t.key = m.key WHERE m.uid = :viewer GROUP BY conversation) WHERE at < :before "
    "AND (:only IS NULL OR lower(hex(conversation)) IN (SELECT value FROM json_each(:only))) "
    "ORDER BY at DESC LIMIT :rows)"
)
_ROOMS = (
    "SELECT json_group_array(json_array(lower(hex(key)), at, version, highest)) FROM talk "
    "WHERE key IN ({keys})"
)
_SAID = "CASE WHEN json_valid(m.body) THEN json_extract(m.body, '$.roomVersion') END"
_NEWEST_OF = (
    f"SELECT m.id FROM message m WHERE m.conversation = ? AND {_SAID} >= ? ORDER BY m.id DESC LIMIT 1"
)
_CAME = "SELECT id FROM event WHERE conversation = ? AND version = ? AND kind = 'room'"
_LAST = (
    f"SELECT json_group_array(json_array({COLUMNS})) FROM (SELECT p.id, p.message FROM participant p "
    f"WHERE p.uid IN ({ROOMS_UID}, ?) AND p.id IN ({{ids}})) f "
    f"JOIN message m ON m.number = f.message {JOINS}"
)
# Room events have a row among messages, too.
_NEWEST_FIRST = (
    "SELECT json_group_array(json_array(own, version, left_out)) FROM (SELECT m.sender = :viewer AS own, "
    "EXISTS (SELECT 1 FROM left_out l WHERE l.message = m.number AND l.user = :name) AS left_out, "
    f"iif(:version, COALESCE({_SAID}, 0), 0) AS version FROM message m "
    "WHERE m.conversation = :conversation AND m.id > :above AND m.id <= :at AND NOT EXISTS "
    "(SELECT 1 FROM event e WHERE e.conversation = m.conversation AND e.id = m.id) "
    "ORDER BY m.id DESC LIMIT :rows)"
)
_AFTER_ALL_IDS = "\U0010ffff"

_read_people = msgspec.json.Decoder(list[tuple[str, str]]).decode
_read_rooms = msgspec.json.Decoder(list[tuple[str, str, int, int]]).decode
_read_messages = msgspec.json.Decoder(list[tuple[int, int, int]]).decode


class EmbeddedTalks:
    """Implements imd.contracts.talks.TalkStore."""

    def __init__(self, do: Callable[[Callable[[State], Any]], Deferred[Any]]) -> None:
        """`do` has its argument called in the thread that owns the file."""
        self._do = do

    def places(self, query: PlacesQuery) -> Deferred[Places]:
        return self._do(lambda state: read_places(state, query))

    def talks(self, query: TalksQuery) -> Deferred[list[Talk]]:
        return self._do(lambda state: read_talks(state, query))


def read_places(state: State, query: PlacesQuery) -> Places:
    """See `TalkStore.places`."""
    state.write()
    uid = state.uid_of(query.viewer)
    before = query.before or _AFTER_ALL_IDS
    places = [place for place in _rooms(state, query) if place.at < before]
    if uid is not None:
        only = None if query.only is None else as_json(query.only)
        values = {"viewer": uid, "before": before, "only": only, "rows": query.limit + 1}
        rows = _read_people(state.connection.execute(_PEOPLE, values).fetchone()[0])
        places += [Place(at, conversation) for conversation, at in rows]
    places.sort(key=lambda place: place.at, reverse=True)
    page = places[: query.limit]
    return Places(_with_people(state, uid, query.viewer, page), len(places) > query.limit)


def _rooms(state: State, query: PlacesQuery) -> list[Place]:
    parts = {room_conversation_id(part.room): part for part in query.rooms}
    if query.only is not None:
        parts = {key: parts[key] for key in query.only if key in parts}
    execute = state.connection.execute
    text = _ROOMS.format(keys=",".join("?" * len(parts)))
    rows = _read_rooms(execute(text, [bytes.fromhex(key) for key in parts]).fetchone()[0])
    places = []
    for conversation, at, version, highest in rows:
        part = parts[conversation]
        if version < part.reads_from:
            # A message of an older version has a higher id.
            found = None
            if highest >= part.reads_from:
                found = execute(_NEWEST_OF, (bytes.fromhex(conversation), part.reads_from)).fetchone()
            at = "" if found is None else found[0]
        if at:
            places.append(Place(at, conversation, room=part))
            del parts[conversation]
    return places + [place for key, part in parts.items() if (place := _empty(state, key, part)) is not None]


def _empty(state: State, conversation: str, part: RoomPart) -> Place | None:
    """A room of which the user may see no message: it stands where the user came in."""
    found = state.connection.execute(_CAME, (bytes.fromhex(conversation), part.joined)).fetchone()
    return None if found is None else Place(found[0], conversation, room=part, is_empty=True)


def _with_people(state: State, uid: int | None, viewer: str, page: Sequence[Place]) -> list[Place]:
    """The people are those that the last message names."""
    last = _entries(state, uid, [place.at for place in page if place.room is None])
    places = []
    for place in page:
        if place.room is None:
            row = last.get(place.at)
            if row is None:
                continue
            assert row.body is not None
            members = conversation_members(decode_message(row.body.encode()))
            place = place._replace(others=tuple(user for user in members if user != viewer))
        places.append(place)
    return places


def _entries(state: State, uid: int | None, ids: Sequence[str]) -> dict[str, Row]:
    """Messages of the user, and of rooms, by id."""
    if not ids:
        return {}
    text = _LAST.format(ids=",".join("?" * len(ids)))
    rows = read_rows(state.connection.execute(text, (uid, *ids)).fetchone()[0])
    fit = {row.message_id: row for row in rows if row.is_entry()}
    FOREIGN.inc(len(rows) - len(fit))
    return fit


def read_talks(state: State, query: TalksQuery) -> list[Talk]:
    """See `TalkStore.talks`."""
    state.write()
    uid = state.uid_of(query.viewer)
    last = _entries(state, uid, [one.at for one in query.wanted if one.at > one.cleared])
    rows = list(last.values())
    shown = show_rows(state, rows, query.viewer)
    bodies = {row.message_id: body for row, body in zip(rows, shown, strict=True)}
    return [
        Talk(bodies.get(one.at) if one.at > one.cleared else None, _unread(state, uid, query.viewer, one))
        for one in query.wanted
    ]


def _unread(state: State, uid: int | None, viewer: str, one: Wanted) -> int:
    above = max(one.read, one.cleared)
    if one.at <= above:
        return 0
    values = {
        "viewer": -1 if uid is None else uid,
        "name": viewer,
        "conversation": bytes.fromhex(one.conversation),
        "above": above,
        "at": one.at,
        "version": one.from_version,
    }
    count, ended, read = count_unread(_newest_first(state, one, {**values, "rows": MOST_UNREAD}))
    if not ended and read == MOST_UNREAD:
        # Many of the messages were not for the user.
        count, _, _ = count_unread(_newest_first(state, one, {**values, "rows": MOST_READ}))
    return count


def _newest_first(state: State, one: Wanted, values: dict[str, Any]) -> Iterable[tuple[bool, bool]]:
    rows = _read_messages(state.connection.execute(_NEWEST_FIRST, values).fetchone()[0])
    return [(bool(own), version >= one.from_version and not left_out) for own, version, left_out in rows]
