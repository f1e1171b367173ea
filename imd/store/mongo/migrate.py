"""Bringing an archive that is older than the list of conversations into that list. Blocks.

A walk through the messages by id, in slices. Its place is a document of `im_cluster`; each slice is written
before the place moves on. Writers of new messages keep the list themselves, and its updates only raise, so
nodes may run beside it, and so may a second walk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from imd.protocol.events import MESSAGE, ROOM
from imd.protocol.message import conversation_id, is_visitor_id
from imd.store.mongo.cluster import cluster_of
from imd.store.mongo.document import Talk, Unfit
from imd.store.mongo.talk_write import update, updates_of

WALK = "list"
"""the id of the walk's document"""
_FIELDS = dict.fromkeys(
    ("conversation", "userId", "to", "group", "isVisitor", "kind", "roomVersion", "without"), True
)


class Walk(NamedTuple):
    """How far it has come. `after`: the last id that it has done; `until`: the last that it has to do."""

    after: str
    until: str
    done: int
    foreign: int
    """documents that no node has written, which are passed over"""
    complete: bool


def read_walk(archive: Any) -> Walk | None:
    """The walk that has begun, or None. `archive` is the collection of messages."""
    found = cluster_of(archive).find_one({"_id": WALK})
    if found is None:
        return None
    return Walk(found["after"], found["until"], found["done"], found["foreign"], found["complete"])


def begin_walk(archive: Any) -> Walk:
    """The walk, from its beginning or where one before it has stopped."""
    newest = archive.find_one({"_id": {"$gte": ""}}, {"_id": True}, sort=[("_id", -1)])
    until = "" if newest is None else newest["_id"]
    fields = {"after": "", "until": until, "done": 0, "foreign": 0, "complete": not until}
    cluster_of(archive).update_one({"_id": WALK}, {"$setOnInsert": fields}, upsert=True)
    walk = read_walk(archive)
    assert walk is not None
    return walk


def step(archive: Any, walk: Walk, count: int) -> Walk:
    """Do the next `count` messages. Raises PyMongoError or Unavailable: nothing is lost, do them again."""
    bounds = {"$gt": walk.after, "$lte": walk.until}
    documents = list(archive.find({"_id": bounds}, _FIELDS).sort("_id", 1).limit(count))
    talks, foreign = _talks(documents)
    update(archive, updates_of(talks))
    complete = len(documents) < count
    after = walk.until if complete else documents[-1]["_id"]
    moved = Walk(after, walk.until, walk.done + len(documents), walk.foreign + foreign, complete)
    cluster_of(archive).update_one({"_id": WALK}, {"$max": moved._asdict()})
    return moved


def _talks(documents: Iterable[Mapping[str, Any]]) -> tuple[list[tuple[str, Talk | None]], int]:
    """The messages' conversations, by the messages' ids; and how many documents are foreign."""
    talks = []
    foreign = 0
    for document in documents:
        try:
            talks.append((document["_id"], talk_of(document)))
        except Unfit:
            foreign += 1
    return talks, foreign


def talk_of(document: Mapping[str, Any]) -> Talk | None:
    """A stored message's conversation; None for a visitor's message, and for a room's event. Raises Unfit."""
    try:
        if document.get("kind") == ROOM:
            return None
        if document.get("kind") == MESSAGE:
            return Talk(document["conversation"], version=int(document["roomVersion"]))
        sender, to = document["userId"], document["to"]
        if document["isVisitor"] or is_visitor_id(to):
            return None
        people = sorted({sender, *([to] if to else document["group"])})
        if conversation_id(people) != document["conversation"]:
            raise Unfit("a conversation of others")
        return Talk(document["conversation"], tuple(people), tuple(document.get("without", ())))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise Unfit(f"{type(error).__name__} in a document") from None
