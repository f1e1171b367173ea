"""Rows of messages as history shows them: with the marks of edits, recalls and reactions."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from imd.protocol.events import RoomEvent, RoomMessage, decode_event, is_event
from imd.protocol.message import decode_message
from imd.store.embedded.state import State
from imd.store.shown import Edited, reactions_of, shown

# `f` has the id and the number of a message, `m` is the message.
COLUMNS = (
    "f.message, f.id, CASE typeof(m.body) WHEN 'text' THEN m.body END, c.edited, c.edited_ms, c.recalled_ms, "
    "COALESCE(c.reacted, 0)"
)
JOINS = "LEFT JOIN changed c ON c.message = m.number"


class Row(msgspec.Struct, array_like=True, gc=False):
    """A message, or an event with a place in pages."""

    number: int
    message_id: str
    body: str | None
    """None if another program has written something else there"""
    edited: str | None = None
    edited_ms: int | None = None
    recalled_ms: int | None = None
    reacted: int = 0

    def is_entry(self) -> bool:
        """False for a body that another program has written to the file."""
        if self.body is None:
            return False
        try:
            body = self.body.encode()
            if is_event(body):
                return isinstance(decode_event(body), RoomMessage | RoomEvent)
            return bool(decode_message(body).id)
        except (msgspec.MsgspecError, UnicodeEncodeError):
            return False


read_rows = msgspec.json.Decoder(list[Row]).decode
_read_reactions = msgspec.json.Decoder(list[tuple[int, str, str, str, int]]).decode


def show_rows(state: State, rows: Sequence[Row], viewer: str) -> list[bytes]:
    """The JSON of entries, as the viewer sees them."""
    last: dict[int, list[tuple[str, str, str, bool]]] = {}
    numbers = [row.number for row in rows if row.reacted]
    if numbers:
        for number, event_id, user, reaction, present in _reactions(state, numbers):
            last.setdefault(number, []).append((event_id, user, reaction, bool(present)))
    bodies = []
    for row in rows:
        assert row.body is not None
        edited = None if row.edited is None else Edited(row.edited, row.edited_ms or 0)
        bodies.append(
            shown(
                row.body.encode(),
                edited=edited,
                recalled_ms=row.recalled_ms,
                reactions=reactions_of(last.get(row.number, ()), viewer),
            )
        )
    return bodies


def present_reactions(state: State, numbers: Sequence[int]) -> dict[int, list[tuple[str, str]]]:
    """number of a message → users and their present reactions."""
    found: dict[int, list[tuple[str, str]]] = {}
    for number, _, user, reaction, present in _reactions(state, numbers):
        if present:
            found.setdefault(number, []).append((user, reaction))
    return found


def _reactions(state: State, numbers: Sequence[int]) -> list[tuple[int, str, str, str, int]]:
    """Of messages by their numbers: number, last event, user, reaction, whether it is present."""
    rows = state.connection.execute(
        "SELECT json_group_array(json_array(r.message, r.last, u.name, r.reaction, r.present)) "
        f"FROM reaction r JOIN user u USING (uid) WHERE r.message IN ({','.join('?' * len(numbers))})",
        tuple(numbers),
    ).fetchone()[0]
    return _read_reactions(rows)
