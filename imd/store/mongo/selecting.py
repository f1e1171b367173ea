"""The documents that a page of history is made of: of one conversation, or of all of a user's. Blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from imd.contracts.archive import HistoryQuery
from imd.protocol.events import ROOM
from imd.store.mongo.apply import events_of
from imd.store.mongo.cover import COVERED_MS, made_ms

# An id is given up to so long before its message is placed, clocks of nodes that differ included.
PLACED_LATE_MS = 600_000


class Side(NamedTuple):
    """One side of an id: what is older, the newest of it first, or what is newer, the oldest of it first."""

    newer: bool
    bound: str | None
    """the id; None: no bound"""
    itself: bool = False
    """the id itself belongs to the side"""

    def ids(self, floor: str = "") -> dict[str, Any]:
        """The ids of this side, from `floor` on.

        A node's ids are texts. MongoDB makes other ids for foreign documents without one.
        """
        wanted: dict[str, Any] = {"$gte": floor}
        if self.bound is not None:
            name = ("$gt" if self.newer else "$lt") + ("e" if self.itself else "")
            wanted[name] = max(self.bound, floor) if self.newer else self.bound
        return wanted

    def has(self, message_id: str) -> bool:
        if self.bound is None:
            return True
        if message_id == self.bound:
            return self.itself
        return (message_id > self.bound) is self.newer

    @property
    def order(self) -> int:
        return 1 if self.newer else -1

    def sorted(self, ids: set[str], count: int) -> list[str]:
        """The `count` that are nearest to the bound."""
        return sorted(ids, reverse=not self.newer)[:count]


def nearest(
    collection: Any, query: HistoryQuery, side: Side, count: int, floor: str
) -> list[Mapping[str, Any]]:
    """The documents that are nearest to the side's bound, at most `count`, in the side's order.

    `floor`: an id below all that the query asks for.
    """
    if query.conversation is None:
        wanted: dict[str, Any] = {"_id": {"$in": _of_all(collection, query.viewer, side, count)}}
    else:
        wanted = {"conversation": query.conversation, "_id": side.ids(floor)}
        if query.only_own:
            wanted["participants"] = query.viewer
        elif query.from_version is None:
            wanted["without"] = {"$ne": query.viewer}
        if query.from_version is not None:
            wanted["roomVersion"] = {"$gte": query.from_version}
    return list(collection.find(wanted).sort("_id", side.order).limit(count))


def just_above(message_id: str) -> str:
    """A text above this id, and below all higher ids."""
    return message_id + "0"


def is_cleared(document: Mapping[str, Any], cleared: Mapping[str, str]) -> bool:
    """Whether the viewer has cleared a message, or the message that an event is about."""
    if not cleared:
        return False
    conversation, of = document.get("conversation"), document.get("of") or document["_id"]
    return isinstance(conversation, str) and isinstance(of, str) and of <= cleared.get(conversation, "")


def first_id_of(collection: Any, conversation: str, version: int) -> str:
    """An id below all that was placed in the room under `version` or later; empty if that is not known.

    It spares the look through everything that is older than a member's joining.
    """
    wanted = {"conversation": conversation, "version": version, "kind": ROOM}
    event = events_of(collection).find_one(wanted, {"_id": 1})
    made = None if event is None else made_ms(str(event["_id"]))
    return "" if made is None else f"{max(0, made - PLACED_LATE_MS):012x}"


def _of_all(collection: Any, viewer: str, side: Side, count: int) -> list[str]:
    """The ids of messages that a user sent or got. Except for lists, only indexes are read."""

    def found(wanted: dict[str, Any]) -> Iterator[str]:
        for document in collection.find(wanted, {"_id": 1}).sort("_id", side.order).limit(count):
            yield document["_id"]

    ids = {*found({"userId": viewer, "_id": side.ids()}), *found({"to": viewer, "_id": side.ids()})}
    for newest_id, oldest_id, conversation in _covering(collection, viewer, side, count):
        enough = side.sorted(ids, count)
        if len(enough) == count and _is_past(side, newest_id, enough[-1]):
            break
        if side.has(newest_id):
            ids.add(newest_id)
        if oldest_id < newest_id:
            covered = side.ids()
            covered["$gte"] = max(oldest_id, covered["$gte"])
            if "$lt" not in covered or newest_id < covered["$lt"]:
                covered["$lt"] = newest_id
            # The viewer may have been left out of some that stand between the others.
            ids.update(found({"conversation": conversation, "_id": covered, "without": {"$ne": viewer}}))
    return side.sorted(ids, count)


def _is_past(side: Side, newest_id: str, last: str) -> bool:
    """Whether this cover and the following ones have nothing to add to a page that ends at `last`."""
    if not side.newer:
        return newest_id < last
    newest_ms, last_ms = made_ms(newest_id), made_ms(last)
    return newest_ms is not None and last_ms is not None and newest_ms - COVERED_MS > last_ms


def _covering(collection: Any, viewer: str, side: Side, count: int) -> Iterator[tuple[str, str, str]]:
    """Messages that cover some of the viewer's: id, the oldest id, the conversation.

    Each cover is a message of the viewer's, so `count` of them on the side are enough, and those that are
    made up to COVERED_MS behind the newest of these: they may cover messages that belong to it.
    """
    wanted: dict[str, Any] = {"participants": viewer, "covers": {"$exists": True}}
    fields = {"covers": 1, "conversation": 1}

    def read(more: dict[str, Any], order: int, most: int) -> list[Mapping[str, Any]]:
        return list(collection.find({**wanted, **more}, fields).sort("_id", order).limit(most))

    if side.newer:
        ahead = read({"_id": side.ids()}, 1, count)
        if len(ahead) == count and (made := made_ms(str(ahead[-1]["_id"]))) is not None:
            ahead += read({"_id": {"$gt": ahead[-1]["_id"], "$lt": _made_before(made)}}, 1, 0)
    else:
        ahead = []
        if side.bound is not None and (made := made_ms(side.bound)) is not None:
            reach = {"covers": {"$exists": True, "$lt": side.bound}}
            ahead = read({**reach, "_id": {"$gte": side.bound, "$lt": _made_before(made)}}, -1, 0)
    for one in ahead:
        if _is_cover(one):
            yield one["_id"], one["covers"], one["conversation"]
    if not side.newer:
        for one in read({"_id": side.ids()}, -1, count):
            if _is_cover(one):
                yield one["_id"], one["covers"], one["conversation"]


def _made_before(made: int) -> str:
    return f"{made + COVERED_MS + 1:012x}"


def _is_cover(document: Mapping[str, Any]) -> bool:
    return isinstance(document["covers"], str) and isinstance(document.get("conversation"), str)
