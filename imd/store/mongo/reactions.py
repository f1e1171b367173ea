"""Reactions in MongoDB, as history shows them and as limits count them. Blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imd.contracts.archive import Asked
from imd.store.mongo.apply import reactions_of
from imd.store.shown import REACTION_USERS, Reaction, Reactions, named

# The digit behind the 28 of the event's id. A document without it is foreign, and counts as none.
_IS_ON = {"$eq": [{"$substrBytes": ["$last", 28, 1]}, "1"]}
_EVENT_ID = {"$substrBytes": ["$last", 0, 28]}


def read_reactions(
    collection: Any, documents: Iterable[Mapping[str, Any]], viewer: str
) -> dict[str, Reactions]:
    """The reactions of these messages as the viewer sees them, by id. Asks nothing if there was none."""
    ids = [document["_id"] for document in documents if document.get("reacted")]
    if not ids:
        return {}
    one = {"of": "$_id.of", "reaction": "$_id.reaction"}
    is_own = {"$eq": ["$_id.user", {"$literal": viewer}]}
    pipeline: list[dict[str, Any]] = [
        {"$match": {"_id.of": {"$in": ids}, "last": {"$type": "string"}}},
        {"$sort": {"last": 1}},
        {
            "$group": {
                "_id": one,
                "count": {"$sum": {"$cond": [_IS_ON, 1, 0]}},
                "users": {"$push": {"$cond": [_IS_ON, "$_id.user", "$$REMOVE"]}},
                "own": {"$max": {"$and": [_IS_ON, is_own]}},
                "first": {"$min": {"$cond": [_IS_ON, "$last", "$$REMOVE"]}},
                "last": {"$max": _EVENT_ID},
            }
        },
        {"$set": {"users": {"$slice": ["$users", REACTION_USERS]}}},
        {"$sort": {"first": 1}},
    ]
    found: dict[str, Reactions] = {}
    for group in reactions_of(collection).aggregate(pipeline, allowDiskUse=True):
        of, reaction = group["_id"]["of"], group["_id"]["reaction"]
        before = found.get(of, Reactions([], ""))
        present = before.present
        if group["count"]:
            users = named(group["users"], viewer, reacted=group["own"])
            present = [*present, Reaction(reaction, group["count"], users)]
        found[of] = Reactions(present, max(before.up_to, group["last"]))
    return found


def count_reactions(
    collection: Any, asked: Sequence[Asked]
) -> dict[str, tuple[dict[str, frozenset[str]], frozenset[str]]]:
    """message id → the present reactions of those who ask, by user, and all present reactions."""
    if not asked:
        return {}
    users = list({one.user for one in asked})
    pipeline: list[dict[str, Any]] = [
        {"$match": {"_id.of": {"$in": list({one.message_id for one in asked})}, "last": {"$type": "string"}}},
        {"$match": {"$expr": _IS_ON}},
        {
            "$group": {
                "_id": {"of": "$_id.of", "reaction": "$_id.reaction"},
                "users": {"$push": {"$cond": [{"$in": ["$_id.user", users]}, "$_id.user", "$$REMOVE"]}},
            }
        },
    ]
    mine: dict[str, dict[str, set[str]]] = {}
    different: dict[str, set[str]] = {}
    for group in reactions_of(collection).aggregate(pipeline, allowDiskUse=True):
        of, reaction = group["_id"]["of"], group["_id"]["reaction"]
        different.setdefault(of, set()).add(reaction)
        for user in group["users"]:
            mine.setdefault(of, {}).setdefault(user, set()).add(reaction)
    return {
        of: ({user: frozenset(own) for user, own in mine.get(of, {}).items()}, frozenset(all_of_it))
        for of, all_of_it in different.items()
    }
