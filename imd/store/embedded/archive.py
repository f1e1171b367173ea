"""Reading the archive of the embedded backend. Its rows are written by `accept.Placing`."""

from __future__ import annotations

from typing import Any

import msgspec

from imd.contracts.archive import History, HistoryQuery
from imd.protocol.message import decode_message
from imd.store.embedded.state import State
from imd.store.shared_metrics import FOREIGN

_ALL = (
    "SELECT p.id, p.message FROM participant p WHERE p.uid = :viewer AND p.id < :before "
    "ORDER BY p.id DESC LIMIT :rows"
)
_CONVERSATION = (
    "SELECT id, number AS message FROM message WHERE conversation = :conversation AND id < :before "
    "ORDER BY id DESC LIMIT :rows"
)
_OWN_OF_CONVERSATION = (
    "SELECT m.id, m.number AS message FROM message m WHERE m.conversation = :conversation AND m.id < :before "
    "AND EXISTS (SELECT 1 FROM participant p WHERE p.uid = :viewer AND p.id = m.id) "
    "ORDER BY m.id DESC LIMIT :rows"
)
_BODIES = (
    "SELECT json_group_array(json_array(f.id, CASE typeof(m.body) WHEN 'text' THEN m.body END)) "
    "FROM ({found}) f JOIN message m ON m.number = f.message"
)
_AFTER_ALL_IDS = "\U0010ffff"

_read_found = msgspec.json.Decoder(list[tuple[str, str | None]]).decode


def read_history(state: State, query: HistoryQuery) -> History:
    """See imd.contracts.archive.Archive.history."""
    values: dict[str, Any] = {
        "before": _AFTER_ALL_IDS if query.before is None else query.before,
        "rows": query.limit + 1,
        "viewer": None,
        "conversation": None,
    }
    if query.conversation is None or query.only_own:
        values["viewer"] = state.uid_of(query.viewer)
        if values["viewer"] is None:
            return History()
    if query.conversation is None:
        found = _ALL
    else:
        try:
            values["conversation"] = bytes.fromhex(query.conversation)
        except ValueError:
            return History()
        found = _OWN_OF_CONVERSATION if query.only_own else _CONVERSATION
    state.write()
    bodies: list[bytes] = []
    while True:
        rows = state.connection.execute(_BODIES.format(found=found), values).fetchone()[0]
        messages = sorted(_read_found(rows), key=lambda row: row[0], reverse=True)
        fit = [body.encode() for _, body in messages if body is not None and _is_message(body)]
        if len(fit) < len(messages):
            FOREIGN.inc(len(messages) - len(fit))
        bodies += fit
        if len(bodies) > query.limit or len(messages) < values["rows"]:
            break
        values["before"] = messages[-1][0]
    return History(bodies[: query.limit][::-1], len(bodies) > query.limit)


def _is_message(body: str) -> bool:
    """False for a body that another program has written to the file."""
    try:
        return bool(decode_message(body).id)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return False


def read_newest_id(state: State) -> str:
    """See `Archive.newest_id`. One seek for each user, since each message has a participant."""
    state.write()
    newest = "SELECT MAX((SELECT MAX(p.id) FROM participant p WHERE p.uid = u.uid)) FROM user u"
    return state.connection.execute(newest).fetchone()[0] or ""
