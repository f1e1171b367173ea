"""Pages of history in MongoDB. Blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from imd.contracts.archive import History, HistoryQuery
from imd.store.mongo.document import Unfit
from imd.store.mongo.entry import Found, to_json
from imd.store.mongo.reactions import read_reactions
from imd.store.mongo.selecting import Side, first_id_of, is_cleared, just_above, nearest
from imd.store.shown import shown

# Foreign documents may lie between two messages, so further reads are larger, up to this.
MAX_READ = 2000


class _Part(NamedTuple):
    """Entries of one side, in its order."""

    bodies: list[bytes]
    rest: bool
    """there are more of them"""
    foreign: int


def read_page(collection: Any, query: HistoryQuery) -> Found:
    """The page that `query` asks for, a `History`. Raises PyMongoError."""
    if query.after is not None:
        newer = _read(collection, query, Side(True, query.after), query.limit)
        older = _read(collection, query, Side(False, query.after, itself=True), 0)
        return Found(History(newer.bodies, older.rest, newer.rest), newer.foreign + older.foreign)
    if query.around is not None:
        older = _read(collection, query, Side(False, query.around), query.limit // 2)
        left = query.limit - len(older.bodies)
        newer = _read(collection, query, Side(True, query.around, itself=True), left)
        bodies = older.bodies[::-1] + newer.bodies
        history = History(bodies, older.rest, newer.rest, len(older.bodies))
        return Found(history, older.foreign + newer.foreign)
    older = _read(collection, query, Side(False, query.before), query.limit)
    history = History(older.bodies[::-1], older.rest)
    if query.before is None:
        return Found(history, older.foreign)
    newer = _read(collection, query, Side(True, query.before, itself=True), 0)
    history.more_after = newer.rest
    return Found(history, older.foreign + newer.foreign)


def _read(collection: Any, query: HistoryQuery, side: Side, limit: int) -> _Part:
    """The `limit` entries that are nearest to the side's bound."""
    floor = ""
    if query.from_version is not None and query.conversation is not None:
        floor = first_id_of(collection, query.conversation, query.from_version)
    if query.conversation is not None and query.conversation in query.cleared:
        floor = max(floor, just_above(query.cleared[query.conversation]))
    fit: list[tuple[Mapping[str, Any], bytes]] = []
    count, foreign = limit + 1, 0
    while True:
        found = nearest(collection, query, side, count, floor)
        for document in found:
            if is_cleared(document, query.cleared):
                continue
            try:
                fit.append((document, to_json(document)))
            except Unfit:
                foreign += 1
        if len(fit) > limit or len(found) < count:
            break
        side = Side(side.newer, found[-1]["_id"])
        count = min(4 * count, MAX_READ)
    page = fit[:limit]
    reactions = read_reactions(collection, [document for document, _ in page], query.viewer)
    bodies = [shown(body, reactions=reactions.get(document["_id"])) for document, body in page]
    return _Part(bodies, len(fit) > limit, foreign)
