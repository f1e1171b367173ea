"""The changes that events make to messages in the file, in the transaction that they are written in.

The order of events does not matter: of edits the highest id counts, a recall is final, and of a user's equal
reactions the last counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

from imd.protocol.events import (
    Edit,
    Event,
    React,
    Recall,
    RoomEvent,
    RoomMessage,
    decode_event,
    is_event,
)
from imd.protocol.message import IMessage, decode_message
from imd.store.shared_metrics import APPLIED, WITHOUT_MESSAGE
from imd.store.shown import kind_of, with_text, without_text

ROOMS_UID = 0
"""of no user: what was said in rooms is found by its id under it"""
NO_PAGE = b""
"""the conversation of events that have no place in pages"""


class Pending(NamedTuple):
    """An event whose message row is to be written, and which is to be applied then."""

    event: Event
    number: int
    sender: int
    conversation: bytes
    version: int
    readers: Collection[int]
    """users whose changes show it; empty in a room"""


def apply_events(connection: sqlite3.Connection, events: Sequence[Pending]) -> bool:
    """Write the rows of events whose messages' rows are written, and apply them.

    True if a text was taken away for good.
    """
    taken = False
    for pending in events:
        event = pending.event
        if isinstance(event, RoomMessage):
            continue
        of = None if isinstance(event, RoomEvent) else event.of
        connection.execute(
            "INSERT INTO event (conversation, id, message, version, kind, of) VALUES (?, ?, ?, ?, ?, ?)",
            (pending.conversation, event.id, pending.number, pending.version, kind_of(event), of),
        )
        rows = [(uid, event.id, pending.number) for uid in pending.readers]
        connection.executemany("INSERT INTO event_reader (uid, id, message) VALUES (?, ?, ?)", rows)
        if not isinstance(event, RoomEvent):
            taken = _apply(connection, event, pending) or taken
        APPLIED.labels(kind_of(event)).inc()
    return taken


def _apply(connection: sqlite3.Connection, event: Edit | Recall | React, pending: Pending) -> bool:
    found = connection.execute(
        "SELECT m.number, m.body, c.edited, c.recalled_ms FROM message m "
        "LEFT JOIN changed c ON c.message = m.number "
        "WHERE m.number = (SELECT p.message FROM participant p WHERE p.id = ? "
        f"AND p.uid IN ({ROOMS_UID}, ?, (SELECT uid FROM user WHERE name = ?)) LIMIT 1)",
        (event.of, pending.sender, event.to),
    ).fetchone()
    if found is None:
        WITHOUT_MESSAGE.inc()
        return False
    number, body, edited, recalled_ms = found
    if isinstance(event, React):
        _react(connection, event, pending.sender, number)
    elif isinstance(event, Recall):
        _recall(connection, event, number, body)
    elif recalled_ms is not None:
        _put_body(connection, pending.number, without_text(event))
    elif edited is None or edited < event.id:
        _put_body(connection, number, with_text(_message(body), event))
        connection.execute(
            "INSERT INTO changed (message, edited, edited_ms) VALUES (?, ?, ?) "
            "ON CONFLICT (message) DO UPDATE SET edited = excluded.edited, edited_ms = excluded.edited_ms",
            (number, event.id, event.send_time),
        )
    return recalled_ms is not None or isinstance(event, Recall)


def _react(connection: sqlite3.Connection, event: React, user: int, number: int) -> None:
    connection.execute(
        "INSERT INTO reaction (message, reaction, uid, last, present) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (message, reaction, uid) DO UPDATE SET last = excluded.last, present = excluded.present "
        "WHERE excluded.last > last",
        (number, event.reaction, user, event.id, event.on is not False),
    )
    connection.execute(
        "INSERT INTO changed (message, reacted) VALUES (?, 1) "
        "ON CONFLICT (message) DO UPDATE SET reacted = 1",
        (number,),
    )


def _recall(connection: sqlite3.Connection, event: Recall, number: int, body: str) -> None:
    _put_body(connection, number, without_text(_message(body)))
    connection.execute(
        "INSERT INTO changed (message, recalled_ms) VALUES (?, ?) ON CONFLICT (message) DO UPDATE SET "
        "edited = NULL, recalled_ms = MIN(excluded.recalled_ms, COALESCE(recalled_ms, excluded.recalled_ms))",
        (number, event.send_time),
    )
    edits = connection.execute(
        "SELECT m.number, m.body FROM event e JOIN message m ON m.number = e.message "
        "WHERE e.of = ? AND e.kind = 'edit'",
        (event.of,),
    ).fetchall()
    for edit_number, edit_body in edits:
        edit = decode_event(edit_body)
        assert isinstance(edit, Edit)
        _put_body(connection, edit_number, without_text(edit))


def _message(body: str) -> IMessage | RoomMessage:
    raw = body.encode()
    if not is_event(raw):
        return decode_message(raw)
    event = decode_event(raw)
    assert isinstance(event, RoomMessage)
    return event


def _put_body(connection: sqlite3.Connection, number: int, body: bytes) -> None:
    # Inboxes point at this row: a device that was away gets the present form, and the events behind it.
    connection.execute("UPDATE message SET body = ? WHERE number = ?", (body.decode(), number))
