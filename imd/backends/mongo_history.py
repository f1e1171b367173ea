"""Pages of history in MongoDB, and the indexes that they are read by. Blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from imd.backends.archive_cover import COVERED_MS, made_ms
from imd.backends.archive_document import to_json
from imd.interfaces import History, HistoryQuery

Keys = list[tuple[str, int]]


class Index(NamedTuple):
    """`only`: the fields that a document must have to be in it; None for all documents."""

    keys: Keys
    name: str | None = None
    only: str | None = None


# A message between two has four entries in all, its `_id` among them. `userId` is the seed's index.
INDEXES = (
    Index([("userId", 1), ("_id", 1)]),
    Index([("to", 1), ("_id", 1)]),
    Index([("conversation", 1), ("_id", 1)]),
    # Whom userId and to do not name: members of lists, and visitors' agents.
    Index([("participants", 1), ("_id", 1)], "participants_covers", "covers"),
)


def make_indexes(collection: Any) -> None:
    """Those that are there already stay."""
    for index in INDEXES:
        options: dict[str, Any] = {}
        if index.name is not None:
            options["name"] = index.name
        if index.only is not None:
            options["partialFilterExpression"] = {index.only: {"$exists": True}}
        collection.create_index(index.keys, **options)


def read_page(collection: Any, query: HistoryQuery) -> History:
    """The page that `query` asks for. Raises PyMongoError."""
    count = query.limit + 1
    if query.conversation is None:
        wanted: dict[str, Any] = {"_id": {"$in": _newest_of_all(collection, query, count)}}
    else:
        wanted = {"conversation": query.conversation}
        if query.only_own:
            wanted["participants"] = query.viewer
        if query.before is not None:
            wanted["_id"] = {"$lt": query.before}
    found = list(collection.find(wanted).sort("_id", -1).limit(count))
    page = found[: query.limit]
    return History([to_json(document) for document in reversed(page)], len(found) > query.limit)


def _newest_of_all(collection: Any, query: HistoryQuery, count: int) -> list[str]:
    """The ids of the newest messages that somebody sent or got. Read from indexes alone, but for lists."""
    viewer, before = query.viewer, query.before
    earlier: dict[str, Any] = {} if before is None else {"_id": {"$lt": before}}

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
    """Messages that stand for some of the viewer's, newest first: id, the oldest id, the conversation.

    Each of them is one of the viewer's, so as many as messages are wanted will do, and before them those
    that are not wanted but may stand for some that are.
    """
    wanted: dict[str, Any] = {"participants": viewer, "covers": {"$exists": True}}
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
                yield one["_id"], one["covers"], one["conversation"]
        wanted["_id"] = {"$lt": before}
    for one in collection.find(wanted, fields).sort("_id", -1).limit(count):
        yield one["_id"], one["covers"], one["conversation"]
