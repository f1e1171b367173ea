"""The list of conversations, read from MongoDB. All but MongoTalks blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from imd.contracts.rooms import RoomPart
from imd.contracts.talks import (
    MOST_READ,
    MOST_UNREAD,
    Place,
    Places,
    PlacesQuery,
    Talk,
    TalksQuery,
    Wanted,
)
from imd.protocol.conversation import room_conversation_id
from imd.protocol.events import MESSAGE, ROOM
from imd.store.mongo.apply import events_of
from imd.store.mongo.document import Unfit
from imd.store.mongo.entry import Found, to_json
from imd.store.mongo.reactions import read_reactions
from imd.store.mongo.rooms import COLLECTION as ROOMS
from imd.store.mongo.talk_write import ID_DIGITS, talks_of
from imd.store.shown import shown
from imd.store.unread import count_unread

MOST_WIDE = 1000
"""long lists, and lists from which somebody was left out, that a user's list is made of"""
# Most counts end soon: at one's own message, or where there is no more. Of a few many messages are not for
# the user.
_LOOKS = (10, MOST_UNREAD, MOST_READ)
_PEOPLE = {"m": 1, "w": 1, "p": 1}


class _Spot(NamedTuple):
    """A place before its people are known."""

    at: str
    conversation: str
    key: str = ""
    """of the document that names the people; empty for a room"""
    room: RoomPart | None = None
    is_empty: bool = False


class MongoTalks:
    """Implements imd.contracts.talks.TalkStore."""

    def __init__(self, ask: Callable[[Callable[[Any, Any], Found], Any], Deferred[Any]]) -> None:
        """`ask` has a question answered by a function of this module, in a thread."""
        self._ask = ask

    def places(self, query: PlacesQuery) -> Deferred[Places]:
        return self._ask(read_places, query)

    def talks(self, query: TalksQuery) -> Deferred[list[Talk]]:
        return self._ask(read_talks, query)


def read_places(collection: Any, query: PlacesQuery) -> Found:
    """The answer is of `Places`. Raises PyMongoError."""
    talks = talks_of(collection)
    wide = _wide(talks, query)
    spots = [*wide.values(), *_short(talks, query, wide), *_rooms(collection, query)]
    if query.before is not None:
        spots = [spot for spot in spots if spot.at < query.before]
    spots.sort(key=lambda spot: spot.at, reverse=True)
    page = spots[: query.limit]
    return Found(Places(_with_people(talks, query.viewer, page), len(spots) > query.limit), 0)


def _wide(talks: Any, query: PlacesQuery) -> dict[str, _Spot]:
    """All that is not in the index by `at`: by conversation, wherever it stands."""
    only = None if query.only is None else set(query.only)
    found = talks.find({"w": query.viewer}, {"at": 1}).sort("at", -1).limit(MOST_WIDE)
    spots: dict[str, _Spot] = {}
    split = set()
    for document in found:
        conversation = document["_id"][:ID_DIGITS]
        if only is None or conversation in only:
            spots.setdefault(conversation, _Spot(document["at"], conversation, document["_id"]))
            if len(document["_id"]) > ID_DIGITS:
                split.add(conversation)
    # Of these the other messages, which everybody sees, may be newer.
    for document in talks.find({"_id": {"$in": list(split)}}, {"at": 1}) if split else ():
        conversation = document["_id"]
        spots[conversation] = max(spots[conversation], _Spot(document["at"], conversation, conversation))
    return spots


def _short(talks: Any, query: PlacesQuery, wide: Mapping[str, _Spot]) -> Iterable[_Spot]:
    wanted: dict[str, Any] = {"m": query.viewer}
    if query.before is not None:
        wanted["at"] = {"$lt": query.before}
    if query.only is not None:
        wanted["_id"] = {"$in": list(query.only)}
    # One more tells that there are more. Conversations that `wide` has come in addition.
    most = query.limit + 1 + sum(query.before is None or spot.at < query.before for spot in wide.values())
    for document in talks.find(wanted, {"at": 1}).sort("at", -1).limit(most):
        if document["_id"] not in wide:
            yield _Spot(document["at"], document["_id"], document["_id"])


def _rooms(collection: Any, query: PlacesQuery) -> list[_Spot]:
    parts = {room_conversation_id(part.room): part for part in query.rooms}
    if query.only is not None:
        parts = {key: parts[key] for key in query.only if key in parts}
    if not parts:
        return []
    spots = []
    empty = dict(parts)
    for document in talks_of(collection).find({"_id": {"$in": list(parts)}}, {"top": 1, "rv": 1}):
        conversation = document["_id"]
        part, top = parts[conversation], document["top"]
        at = top["i"] if top["v"] >= part.reads_from else ""
        if not at and document["rv"] >= part.reads_from:
            at = _newest_of(collection, conversation, part.reads_from)
        if at:
            spots.append(_Spot(at, conversation, room=part))
            del empty[conversation]
    came = _came(collection, empty)
    return spots + [
        _Spot(came[conversation], conversation, room=part, is_empty=True)
        for conversation, part in empty.items()
        if conversation in came
    ]


def _newest_of(collection: Any, conversation: str, version: int) -> str:
    """The newest message of this version or a later one: a message of an older one has a higher id."""
    wanted = {"conversation": conversation, "kind": MESSAGE, "roomVersion": {"$gte": version}}
    found = collection.find_one(wanted, {"_id": 1}, sort=[("_id", -1)])
    return "" if found is None else str(found["_id"])


def _came(collection: Any, parts: Mapping[str, RoomPart]) -> dict[str, str]:
    """The ids of the events that let the user into these rooms, by conversation, as far as they are known."""
    if not parts:
        return {}
    wanted = [
        {"conversation": conversation, "version": part.joined, "kind": ROOM}
        for conversation, part in parts.items()
    ]
    found = events_of(collection).find({"$or": wanted}, {"conversation": 1})
    came = {document["conversation"]: str(document["_id"]) for document in found}
    # The room knows events that are not archived yet.
    left = {part.room: (key, part.joined) for key, part in parts.items() if key not in came}
    if left:
        fields = {"past.id": 1, "past.version": 1, "made.id": 1, "made.version": 1}
        for room in collection.database[ROOMS].find({"_id": {"$in": list(left)}}, fields):
            conversation, joined = left[room["_id"]]
            for past in (room["made"], *room["past"]):
                if past["version"] == joined:
                    came[conversation] = past["id"]
    return came


def _with_people(talks: Any, viewer: str, spots: Sequence[_Spot]) -> list[Place]:
    keys = [spot.key for spot in spots if spot.key]
    people: dict[str, list[str]] = {}
    for document in talks.find({"_id": {"$in": keys}}, _PEOPLE) if keys else ():
        people[document["_id"]] = document.get("p") or document.get("w") or document["m"]
    return [
        Place(
            spot.at,
            spot.conversation,
            tuple(user for user in people.get(spot.key, ()) if user != viewer),
            spot.room,
            spot.is_empty,
        )
        for spot in spots
    ]


def read_talks(collection: Any, query: TalksQuery) -> Found:
    """The answer is a list of `Talk`. Raises PyMongoError."""
    ids = [one.at for one in query.wanted if one.at > one.cleared]
    documents: dict[str, Mapping[str, Any]] = {}
    if ids:
        documents = {document["_id"]: document for document in collection.find({"_id": {"$in": ids}})}
    reactions = read_reactions(collection, documents.values(), query.viewer)
    unread = _unread(collection, query, documents)
    talks, foreign = [], 0
    for one in query.wanted:
        last = None
        if one.at > one.cleared and (document := documents.get(one.at)) is not None:
            try:
                last = shown(to_json(document), reactions=reactions.get(one.at))
            except Unfit:
                foreign += 1
        talks.append(Talk(last, unread.get(one.conversation, 0)))
    return Found(talks, foreign)


def _unread(collection: Any, query: TalksQuery, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """conversation → its unread messages, for those that have any."""
    asked = [
        one
        for one in query.wanted
        if one.at > max(one.read, one.cleared) and _author(documents.get(one.at, {})) != query.viewer
    ]
    counts: dict[str, int] = {}
    for most in _LOOKS:
        found, asked = _count(collection, query.viewer, asked, most)
        counts |= found
    return counts


def _count(
    collection: Any, viewer: str, asked: Sequence[Wanted], most: int
) -> tuple[dict[str, int], list[Wanted]]:
    """Unread messages among the newest `most` of each conversation; and where that does not tell."""
    if not asked:
        return {}, []
    first, *others = [_newest_first(one, most) for one in asked]
    unions = [{"$unionWith": {"coll": collection.name, "pipeline": pipeline}} for pipeline in others]
    counts: dict[str, int] = {}
    unsure = []
    wanted = {one.conversation: one for one in asked}
    found = collection.aggregate([*first, *unions], batchSize=most * len(asked))
    for conversation, group in groupby(found, lambda document: document["conversation"]):
        one = wanted[conversation]
        count, ended, read = count_unread(
            (_author(document) == viewer, _is_for(viewer, one, document)) for document in group
        )
        counts[conversation] = count
        if not ended and read == most:
            unsure.append(one)
    return counts, unsure


def _newest_first(one: Wanted, most: int) -> list[dict[str, Any]]:
    wanted = {
        "conversation": one.conversation,
        "_id": {"$gt": max(one.read, one.cleared), "$lte": one.at},
        "kind": {"$ne": ROOM},
    }
    fields = {"conversation": 1, "userId": 1, "sender": 1, "without": 1, "roomVersion": 1}
    return [{"$match": wanted}, {"$sort": {"_id": -1}}, {"$limit": most}, {"$project": fields}]


def _author(document: Mapping[str, Any]) -> Any:
    return document.get("sender") or document.get("userId")


def _is_for(viewer: str, one: Wanted, document: Mapping[str, Any]) -> bool:
    version, without = document.get("roomVersion", 0), document.get("without", ())
    return version >= one.from_version and viewer not in without
