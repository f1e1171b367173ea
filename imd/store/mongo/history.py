"""Pages of history in MongoDB. Blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from imd.contracts.archive import History, HistoryQuery
from imd.store.mongo.cover import COVERED_MS, made_ms
from imd.store.mongo.document import Unfit, to_json

# Foreign documents may lie between two messages, so further reads are larger, up to this.
MAX_READ = 2000


class Page(NamedTuple):
    history: History
    foreign: int
    """documents that were skipped, since no node has written them"""


def read_page(collection: Any, query: HistoryQuery) -> Page:
    """The page that `query` asks for. Raises PyMongoError."""
    bodies: list[bytes] = []
    before, count, foreign = query.before, query.limit + 1, 0
    while True:
        found = _newest(collection, query, before, count)
        for document in found:
            try:
                bodies.append(to_json(document))
            except Unfit:
                foreign += 1
        if len(bodies) > query.limit or len(found) < count:
            break
        before, count = found[-1]["_id"], min(4 * count, MAX_READ)
    page = bodies[: query.limit]
    return Page(History(page[::-1], len(bodies) > query.limit), foreign)


def _newest(collection: Any, query: HistoryQuery, before: str | None, count: int) -> list[Mapping[str, Any]]:
    """The newest documents before a message, at most `count`, newest first."""
    if query.conversation is None:
        wanted: dict[str, Any] = {"_id": {"$in": _newest_of_all(collection, query.viewer, before, count)}}
    else:
        wanted = {"conversation": query.conversation, "_id": _earlier(before)}
        if query.only_own:
            wanted["participants"] = query.viewer
    return list(collection.find(wanted).sort("_id", -1).limit(count))


def _earlier(before: str | None) -> dict[str, Any]:
    """A node's ids are texts. MongoDB makes other ids for foreign documents without one."""
    return {"$gte": ""} if before is None else {"$gte": "", "$lt": before}


def _newest_of_all(collection: Any, viewer: str, before: str | None, count: int) -> list[str]:
    """The ids of the newest messages that a user sent or got. Except for lists, only indexes are read."""
    earlier = {"_id": _earlier(before)}

    def newest(wanted: dict[str, Any]) -> Iterator[str]:
        for document in collection.find(wanted, {"_id": 1}).sort("_id", -1).limit(count):
            yield document["_id"]

    ids = {*newest({"userId": viewer, **earlier}), *newest({"to": viewer, **earlier})}
    for newest_id, oldest_id, conversation in _covering(collection, viewer, before, count):
        enough = sorted(ids, reverse=True)[:count]
        if len(enough) == count and newest_id < enough[-1]:
            break
        if before is None or newest_id < before:
            ids.add(newest_id)
        if oldest_id < newest_id:
            end = newest_id if before is None else min(newest_id, before)
            ids.update(newest({"conversation": conversation, "_id": {"$gte": oldest_id, "$lt": end}}))
    return sorted(ids, reverse=True)[:count]


def _covering(collection: Any, viewer: str, before: str | None, count: int) -> Iterator[tuple[str, str, str]]:
    """Messages that cover some of the viewer's, newest first: id, the oldest id, the conversation.

    Each cover is a message of the viewer's, so `count` of them are enough. Covers that are newer than the
    page come first, since they may cover messages that belong to it.
    """
    wanted: dict[str, Any] = {
        "participants": viewer,
        "covers": {"$exists": True},
        "_id": _earlier(before),
    }
    fields = {"covers": 1, "conversation": 1}
    if before is not None:
        made = made_ms(before)
        if made is not None:
            around = {
                "participants": viewer,
                "covers": {"$exists": True, "$lt": before},
                "_id": {"$gte": before, "$lt": f"{made + COVERED_MS + 1:012x}"},
            }
            for one in collection.find(around, fields).sort("_id", -1):
                if _is_cover(one):
                    yield one["_id"], one["covers"], one["conversation"]
    for one in collection.find(wanted, fields).sort("_id", -1).limit(count):
        if _is_cover(one):
            yield one["_id"], one["covers"], one["conversation"]


def _is_cover(document: Mapping[str, Any]) -> bool:
    return isinstance(document["covers"], str) and isinstance(document.get("conversation"), str)
