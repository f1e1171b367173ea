"""Events and single messages in MongoDB: to catch up with, and to change one. Blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import ReadPreference
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from imd.contracts.archive import Asked, Changes, ChangesQuery, Entry, Target
from imd.store.mongo.apply import events_of
from imd.store.mongo.document import Unfit
from imd.store.mongo.entry import Found, to_entry, to_target
from imd.store.mongo.ledger import NOT_PERMITTED
from imd.store.mongo.reactions import count_reactions, read_reactions
from imd.store.mongo.selecting import first_id_of, is_cleared


def read_changes(collection: Any, query: ChangesQuery) -> Found:
    """The answer is of `Changes`. Raises PyMongoError."""
    bound = {"$gte": ""} if query.after is None else {"$gt": query.after}
    wanted: dict[str, Any] = {"_id": bound}
    if query.conversation is not None:
        wanted["conversation"] = query.conversation
    if query.conversation is None or query.only_own:
        wanted["participants"] = query.viewer
    elif query.from_version is None:
        wanted["without"] = {"$ne": query.viewer}
    if query.from_version is not None and query.conversation is not None:
        wanted["roomVersion"] = {"$gte": query.from_version}
        first = first_id_of(collection, query.conversation, query.from_version)
        if query.after is None or query.after < first:
            wanted["_id"] = {"$gte": first}
    bodies: list[bytes] = []
    foreign, count = 0, query.limit + 1
    while True:
        found = list(events_of(collection).find(wanted).sort("_id", 1).limit(count))
        for event in found:
            if is_cleared(event, query.cleared):
                continue
            body = event.get("full") or event.get("body")
            if isinstance(body, str):
                bodies.append(body.encode())
            else:
                foreign += 1
        if len(bodies) > query.limit or len(found) < count:
            break
        wanted["_id"] = {"$gt": found[-1]["_id"]}
    return Found(Changes(bodies[: query.limit], len(bodies) > query.limit), foreign)


def read_messages(collection: Any, message_ids: Sequence[str], viewer: str) -> Found:
    """The answer is a list of entries, by id. Raises PyMongoError."""
    documents = list(collection.find({"_id": {"$in": list(message_ids)}}).sort("_id", 1))
    reactions = read_reactions(collection, documents, viewer)
    entries: list[Entry] = []
    for document in documents:
        try:
            entries.append(to_entry(document, reactions.get(document["_id"])))
        except Unfit:
            continue
    return Found(entries, len(documents) - len(entries))


def read_targets(collection: Any, asked: Sequence[Asked]) -> Found:
    """The answer maps ids to targets, as a majority has them. Raises PyMongoError."""
    sure = collection.with_options(
        read_concern=ReadConcern("majority"), read_preference=ReadPreference.PRIMARY
    )
    wanted = {"_id": {"$in": list({one.message_id for one in asked})}}
    documents: dict[str, Mapping[str, Any]] = {one["_id"]: one for one in sure.find(wanted)}
    reacted = [one for one in asked if documents.get(one.message_id, {}).get("reacted")]
    reactions = count_reactions(sure, reacted)
    targets: dict[str, Target | None] = {}
    foreign = 0
    for message_id, document in documents.items():
        try:
            targets[message_id] = to_target(document, *reactions.get(message_id, ({}, frozenset())))
        except Unfit:
            targets[message_id] = None
            foreign += document.get("kind") is None
    missing = [message_id for message_id in wanted["_id"]["$in"] if message_id not in documents]
    if missing:
        events = events_of(collection).find({"_id": {"$in": missing}}, {"_id": 1})
        targets |= dict.fromkeys(event["_id"] for event in events)
    return Found(targets, foreign)


def read_newest_id(collection: Any) -> str:
    """The highest id of a message or an event; empty if there is none. Raises PyMongoError."""
    newest = _newest_id(collection)
    try:
        return max(newest, _newest_id(events_of(collection)))
    except OperationFailure as error:
        # A node starts with the rights that 0.1 needed: there are no events yet.
        if error.code != NOT_PERMITTED:
            raise
        return newest


def _newest_id(collection: Any) -> str:
    # Only texts: documents with other ids, which sort behind texts, are foreign.
    newest = collection.find_one({"_id": {"$gte": ""}}, {"_id": True}, sort=[("_id", -1)])
    return "" if newest is None else str(newest["_id"])
