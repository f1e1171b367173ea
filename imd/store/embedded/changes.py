"""Events and single messages from the file: to catch up with, and to change one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from imd.contracts.archive import Asked, Changes, ChangesQuery, Entry, Scope, Target
from imd.protocol.conversation import room_conversation_id
from imd.protocol.events import MESSAGE, ROOM, RoomEvent, RoomMessage, decode_event, is_event
from imd.protocol.message import (
    IMessage,
    conversation_id,
    conversation_members,
    decode_message,
    visitor_of,
)
from imd.store.embedded.archive import floor_of
from imd.store.embedded.entries import COLUMNS, JOINS, Row, present_reactions, show_rows
from imd.store.embedded.events import ROOMS_UID
from imd.store.embedded.state import State
from imd.store.shared_metrics import FOREIGN
from imd.store.target import target_of

_OF_CONVERSATION = (
    "SELECT e.id, e.message FROM event e WHERE e.conversation = :conversation AND e.id > :after"
)
_OWN = " AND EXISTS (SELECT 1 FROM event_reader r WHERE r.uid = :viewer AND r.id = e.id)"
_NOT_LEFT_OUT = " AND NOT EXISTS (SELECT 1 FROM left_out l WHERE l.message = e.message AND l.user = :name)"
_FROM_VERSION = " AND e.version >= :version AND e.id >= :floor"
_NOT_CLEARED = " AND COALESCE(e.of, e.id) > :cleared"
_OF_ALL = "SELECT e.id, e.message FROM event_reader e WHERE e.uid = :viewer AND e.id > :after"
_BODIES = (
    "SELECT json_group_array(json_array(f.id, CASE typeof(m.body) WHEN 'text' THEN m.body END)) "
    "FROM ({found} ORDER BY e.id LIMIT :rows) f JOIN message m ON m.number = f.message"
)
# Messages that one of these users takes part in, and that were said in rooms.
_BY_ID = (
    f"SELECT json_group_array(json_array({COLUMNS}, json(f.uids))) FROM (SELECT p.id, p.message, "
    "json_group_array(p.uid) AS uids FROM participant p WHERE p.uid IN ({uids}) AND p.id IN ({ids}) "
    "GROUP BY p.id, p.message) f "
    f"JOIN message m ON m.number = f.message {JOINS}"
)
# The id of the last message whose id is not above :id, found by halving the range of numbers.
_MIDDLE = "(low + high + 1) / 2"
_BELOW = f"(SELECT id FROM message WHERE number <= {_MIDDLE} ORDER BY number DESC LIMIT 1) <= :id"
_SEARCH = (
    "WITH RECURSIVE search (low, high) AS ("
    "SELECT (SELECT MIN(number) FROM message), (SELECT MAX(number) FROM message) "
    f"UNION ALL SELECT iif({_BELOW}, {_MIDDLE}, low), iif({_BELOW}, high, {_MIDDLE} - 1) "
    "FROM search WHERE low < high) "
    "SELECT (SELECT id FROM message WHERE number <= low ORDER BY number DESC LIMIT 1) "
    "FROM search WHERE low = high"
)
_read_events = msgspec.json.Decoder(list[tuple[str, str | None]]).decode


class _Found(Row, array_like=True, gc=False):
    """A message, and which of the users that it was looked for take part in it."""

    uids: list[int] = []


_read_found = msgspec.json.Decoder(list[_Found]).decode


def read_changes(state: State, query: ChangesQuery) -> Changes:
    """See `Archive.changes`."""
    values: dict[str, Any] = {"after": query.after or "", "rows": query.limit + 1}
    if query.conversation is None or query.only_own:
        values["viewer"] = state.uid_of(query.viewer)
        if values["viewer"] is None:
            return Changes()
    state.write()
    found = _OF_ALL
    if query.conversation is not None:
        found = _OF_CONVERSATION + (_OWN if query.only_own else _NOT_LEFT_OUT)
        values["name"] = query.viewer
        values["conversation"] = bytes.fromhex(query.conversation)
        if query.from_version is not None:
            found += _FROM_VERSION
            values["version"] = query.from_version
            values["floor"] = floor_of(state, values["conversation"], query.from_version)
        if query.conversation in query.cleared:
            found += _NOT_CLEARED
            values["cleared"] = query.cleared[query.conversation]
    bodies: list[bytes] = []
    while True:
        rows = state.connection.execute(_BODIES.format(found=found), values).fetchone()[0]
        events = sorted(_read_events(rows))
        whole = [body.encode() for _, body in events if body is not None]
        if query.conversation is None and query.cleared:
            whole = [body for body in whole if not _is_cleared(body, query.cleared)]
        bodies += whole
        FOREIGN.inc(sum(body is None for _, body in events))
        if len(bodies) > query.limit or len(events) < values["rows"]:
            break
        values["after"] = events[-1][0]
    return Changes(bodies[: query.limit], len(bodies) > query.limit)


def _is_cleared(body: bytes, cleared: Mapping[str, str]) -> bool:
    """Whether an event between people is about a message that the viewer has cleared."""
    event = decode_event(body)
    of = event.id if isinstance(event, RoomMessage | RoomEvent) else event.of
    return of <= cleared.get(conversation_id(conversation_members(decode_message(body))), "")


def read_messages(state: State, message_ids: Sequence[str], viewer: str) -> list[Entry]:
    """See `Archive.messages`."""
    rows = _by_id(state, message_ids, [viewer])
    scopes = _scopes(state, rows, [viewer])
    bodies = show_rows(state, rows, viewer)
    entries = zip(rows, bodies, scopes, strict=True)
    return [Entry(row.message_id, body, scope, _kind(row)) for row, body, scope in entries]


def read_targets(state: State, asked: Sequence[Asked]) -> dict[str, Target | None]:
    """See `Archive.targets`. None for a message that none of those who ask takes part in."""
    users = [one.user for one in asked]
    rows = _by_id(state, [one.message_id for one in asked], users)
    rows = [row for row in rows if _kind(row) != ROOM]
    present = present_reactions(state, [row.number for row in rows if row.reacted])
    targets: dict[str, Target | None] = {}
    for row, scope in zip(rows, _scopes(state, rows, users), strict=True):
        asking = {one.user for one in asked if one.message_id == row.message_id}
        reactions = present.get(row.number, [])
        mine: dict[str, set[str]] = {}
        for user, reaction in reactions:
            if user in asking:
                mine.setdefault(user, set()).add(reaction)
        targets[row.message_id] = target_of(
            _message(row),
            scope,
            recalled=row.recalled_ms is not None,
            reactions={user: frozenset(own) for user, own in mine.items()},
            different=frozenset(reaction for _, reaction in reactions),
        )
    for message_id in {one.message_id for one in asked}.difference(targets):
        if _is_there(state, message_id):
            targets[message_id] = None
    return targets


def _is_there(state: State, message_id: str) -> bool:
    """Whether a message or an event has this id, whoever takes part in it.

    No index has all ids, but numbers rise as ids do. After a clock was set back the search may miss some.
    """
    found = state.connection.execute(_SEARCH, {"id": message_id}).fetchone()
    return found is not None and bool(found[0] == message_id)


def _by_id(state: State, message_ids: Iterable[str], users: Iterable[str]) -> list[_Found]:
    """Messages that one of these users, or a visitor of theirs, takes part in; and what was said in rooms."""
    state.write()
    names, ids = list(dict.fromkeys(users)), list(dict.fromkeys(message_ids))
    marks = ",".join("?" * len(names))
    uids = (
        f"SELECT uid FROM user WHERE name IN ({marks}) UNION SELECT uid FROM user WHERE agent IN ({marks}) "
        f"UNION SELECT {ROOMS_UID}"
    )
    text = _BY_ID.format(uids=uids, ids=",".join("?" * len(ids)))
    rows = _read_found(state.connection.execute(text, (*names, *names, *ids)).fetchone()[0])
    fit = sorted((row for row in rows if row.is_entry()), key=lambda row: row.message_id)
    FOREIGN.inc(len(rows) - len(fit))
    return fit


def _scopes(state: State, rows: Sequence[_Found], users: Iterable[str]) -> list[Scope]:
    """Of a visitor's message the agents are in no body: those among `users` are named."""
    names = {state.uid_of(user): user for user in users}
    left_out = _left_out(state, [row.number for row in rows])
    scopes = []
    for row in rows:
        message = _message(row)
        if not isinstance(message, IMessage):
            version = message.version if isinstance(message, RoomEvent) else message.room_version
            scopes.append(Scope(room_conversation_id(message.room), room=message.room, version=version))
            continue
        people = {message.user_id, *([message.to] if message.to else message.group or ())}
        members = conversation_members(message)
        if message.is_visitor:
            people = {message.user_id, *(names[uid] for uid in row.uids if uid in names)}
        without = left_out.get(row.number, ())
        scopes.append(
            Scope(
                conversation_id(members),
                tuple(sorted(people.difference(without))),
                visitor_of(members),
                without=tuple(without),
            )
        )
    return scopes


def _left_out(state: State, numbers: Sequence[int]) -> dict[int, list[str]]:
    """number of a message → users whom a block left out, sorted."""
    found: dict[int, list[str]] = {}
    marks = ",".join("?" * len(numbers))
    rows = state.connection.execute(
        f"SELECT message, user FROM left_out WHERE message IN ({marks}) ORDER BY user", tuple(numbers)
    ).fetchall()
    for number, user in rows:
        found.setdefault(number, []).append(user)
    return found


def _message(row: Row) -> IMessage | RoomMessage | RoomEvent:
    assert row.body is not None
    body = row.body.encode()
    if not is_event(body):
        return decode_message(body)
    event = decode_event(body)
    assert isinstance(event, RoomMessage | RoomEvent)
    return event


def _kind(row: Row) -> str:
    message = _message(row)
    if isinstance(message, IMessage):
        return ""
    return ROOM if isinstance(message, RoomEvent) else MESSAGE
