"""Rooms in MongoDB, a document each: the truth about a room. Blocks.

A document is a `Room`; `madeBy`, a hash of the creating user, device and clientMsgId; and `outbox`, events
that are not known to be archived. A change is one conditional update: it fails if another change came first.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec
import pymongo
from bson.int64 import Int64
from pymongo.errors import DuplicateKeyError

from imd.contracts import room_rules
from imd.contracts.room_rules import Stamp
from imd.contracts.rooms import (
    MAX_ROOMS_OF_USER,
    Action,
    Past,
    Room,
    RoomEntry,
    RoomPart,
    RoomSummary,
    first_readable,
)
from imd.protocol.errors import Refused, Unavailable
from imd.store.mongo.blocks import BlockDocuments
from imd.store.mongo.exact import ExactReads, majority
from imd.store.mongo.indexes import MADE_BY, is_kept_unique, make_indexes

COLLECTION = "im_room"
MAX_OUTBOX = 100
MAX_OUTBOX_BYTES = 1 << 20
LEFTOVER_ROOMS = 100
# Between two tries to make the index without which no room is made.
TRY_SECONDS = 5.0


class Document(NamedTuple):
    """A room, and its events that are not settled."""

    room: Room
    outbox: tuple[RoomEntry, ...]


class Lost(NamedTuple):
    """Another change came first: try again."""


class Known(NamedTuple):
    """The action has been done before."""

    document: Document
    past: Past


class Made(NamedTuple):
    """The action is done. The event is the last of the outbox."""

    document: Document


class Same(NamedTuple):
    """The action changes nothing."""

    document: Document


class Admit(NamedTuple):
    """Not made yet: the action would let these users in, so it may begin inboxes, and these are limited."""

    users: tuple[str, ...]


Attempt = Lost | Known | Made | Same | Admit | Refused


class RoomDocuments:
    """Reads and writes documents. `collection` is any collection of the database."""

    def __init__(self, database: Any) -> None:
        self._rooms = majority(database, COLLECTION)
        self._exact = ExactReads(self._rooms)
        self._blocks = BlockDocuments(database)
        self._made_once = False
        """MongoDB keeps two copies of one `create` from making two rooms"""
        self._refusal: tuple[float, str] | None = None
        """when it was last seen that it does not, and why"""

    def read(self, room: str) -> Document | None:
        """The room as it is, whichever server was voted out meanwhile."""
        found = self._exact.do(lambda rooms: rooms.find_one({"_id": room}))
        return _document(found) if found is not None else None

    def attempt(
        self, action: Action, stamp: Stamp, most_members: int, dedup_ms: int, admitted: bool
    ) -> Attempt:
        """Try to do what the action asks for. `admitted`: newcomers' inboxes are counted."""
        try:
            if action.action == "create":
                return self._create(action, stamp, most_members, admitted)
            return self._change(action, stamp, most_members, dedup_ms, admitted)
        except Refused as refused:
            return refused

    def settle(self, room: str, versions: Sequence[int]) -> None:
        """Take the events of these versions out of the outbox."""
        self._rooms.update_one({"_id": room}, {"$pull": {"outbox": {"version": {"$in": list(versions)}}}})

    def leftovers(self, before_ms: int) -> list[str]:
        """Rooms with events from before that time."""
        found = self._rooms.find({"outbox.at": {"$lt": Int64(before_ms)}}, {"_id": True})
        return [document["_id"] for document in found.limit(LEFTOVER_ROOMS)]

    def oldest_event(self) -> int | None:
        """When the oldest event that is in an outbox was made, ms; None if there is none."""
        found = self._rooms.find_one(
            {"outbox.at": {"$gte": Int64(0)}}, {"outbox.at": True}, sort=[("outbox.at", 1)]
        )
        return min(int(entry["at"]) for entry in found["outbox"]) if found is not None else None

    def rooms_of(self, user: str, after: str, limit: int) -> list[RoomSummary]:
        """At most `limit` rooms of the user behind `after`, by id."""
        own = {"$filter": {"input": "$members", "cond": {"$eq": ["$$this.u", {"$literal": user}]}}}
        names = ("name", "version", "posting", "history", "joining", "data", "closed")
        shown = {name: True for name in names}
        steps: list[Any] = [
            {"$match": {"members.u": user, "_id": {"$gt": after}}},
            {"$sort": {"_id": 1}},
            {"$limit": limit},
            {"$project": {**shown, "count": {"$size": "$members"}, "own": own}},
        ]
        found = self._exact.do(lambda rooms: list(rooms.aggregate(steps, batchSize=limit + 1)))
        return [
            RoomSummary(
                one["_id"],
                one["name"],
                one["own"][0]["r"],
                one["count"],
                one["version"],
                one["posting"],
                one["history"],
                one["joining"],
                one["data"],
                one["closed"],
            )
            for one in found
        ]

    def parts(self, user: str) -> list[RoomPart]:
        """The user's parts in rooms, as a majority has them."""
        own = {"members": {"$elemMatch": {"u": user}}, "name": True, "version": True, "history": True}
        parts = []
        for one in self._rooms.find({"members.u": user}, own).limit(MAX_ROOMS_OF_USER):
            joined = one["members"][0]["v"]
            reads_from = first_readable(one["history"], joined)
            parts.append(RoomPart(one["_id"], one["name"], one["version"], joined, reads_from))
        return parts

    # from within

    def _create(self, action: Action, stamp: Stamp, most_members: int, admitted: bool) -> Attempt:
        made_by = room_rules.made_by(action)
        found = self._rooms.find_one({"madeBy": made_by})
        if found is None:
            self._need_made_once()
            full = self._kept_out(action.user, room_rules.newcomers(None, action))
            decided = room_rules.create(action, stamp, most_members, full)
            if not admitted and len(decided.room.members) > 1:
                return Admit(tuple(member.user for member in decided.room.members[1:]))
            document = {
                "madeBy": made_by,
                **_fields(decided.room),
                "outbox": [msgspec.to_builtins(decided.entry)],
            }
            document["_id"] = decided.room.id
            try:
                self._rooms.insert_one(document)
            except DuplicateKeyError:
                return Lost()
            # Not before: now a majority has the room, and so the index.
            self._made_once = True
            return Made(Document(decided.room, (decided.entry,)))
        known = _document(found)
        room_rules.check_same(known.room.made, action)
        return Known(known, known.room.made)

    def _need_made_once(self) -> None:
        """Raise Unavailable unless MongoDB keeps two copies of one `create` from making two rooms."""
        if self._made_once:
            return
        refusal, now = self._refusal, time.monotonic()
        if refusal is None or now >= refusal[0] + TRY_SECONDS:
            troubles = make_indexes(self._rooms, (MADE_BY,))
            # An index that is too slow to find rooms by may yet keep them apart.
            if not troubles or is_kept_unique(MADE_BY, self._rooms.index_information()):
                return
            refusal = self._refusal = now, troubles[0]
        raise Unavailable(f"rooms: {refusal[1]}")

    def _change(
        self, action: Action, stamp: Stamp, most_members: int, dedup_ms: int, admitted: bool
    ) -> Attempt:
        # Exact: an answer that nothing changes must be as true as one that something did.
        document = self.read(action.room)
        room = document.room if document is not None else None
        if document is not None and room is not None:
            past = room_rules.remembered(room, action, stamp.time, dedup_ms)
            if past is not None:
                return Known(document, past)
        full = self._kept_out(action.user, room_rules.newcomers(room, action))
        decided = room_rules.change(room, action, stamp, most_members, full)
        assert document is not None and room is not None
        if decided is None:
            return Same(document)
        if not admitted and action.action == "add":
            return Admit(tuple(m.user for m in decided.room.members if m.joined == decided.room.version))
        if not _has_space(document.outbox, decided.entry):
            raise Unavailable(f"rooms: {len(document.outbox)} changes of the room are not finished yet")
        before, after = _fields(room), _fields(decided.room)
        changed = {name: value for name, value in after.items() if value != before[name]}
        made = self._rooms.find_one_and_update(
            {"_id": room.id, "version": room.version},
            {"$set": changed, "$push": {"outbox": msgspec.to_builtins(decided.entry)}},
            return_document=pymongo.ReturnDocument.AFTER,
            projection={"outbox": True},
        )
        if made is None:
            return Lost()
        return Made(Document(decided.room, _outbox(made)))

    def _kept_out(self, actor: str, users: Collection[str]) -> set[str]:
        """Users of these who are in as many rooms as a user may be, or block the actor."""
        return self._full(users) | self._blocks.among(actor, users) if users else set()

    def _full(self, users: Collection[str]) -> set[str]:
        """Users of these who are in as many rooms as a user may be."""
        # One command for all of them. The first document is of no interest: without one there is no room.
        counted = [{"$limit": MAX_ROOMS_OF_USER}, {"$count": "rooms"}]
        lookup = {"from": COLLECTION, "localField": "user", "foreignField": "members.u", "as": "in"}
        steps: list[Any] = [
            {"$limit": 1},
            {"$project": {"_id": False, "user": {"$literal": list(users)}}},
            {"$unwind": "$user"},
            {"$lookup": {**lookup, "pipeline": counted}},
            {"$match": {"in.rooms": {"$gte": MAX_ROOMS_OF_USER}}},
        ]
        return {found["user"] for found in self._rooms.aggregate(steps)}


def _has_space(outbox: Sequence[RoomEntry], entry: RoomEntry) -> bool:
    size = sum(len(msgspec.json.encode(one)) for one in (*outbox, entry))
    return not outbox or (len(outbox) < MAX_OUTBOX and size <= MAX_OUTBOX_BYTES)


def _fields(room: Room) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(room)
    fields.pop("id")
    return fields


def _document(found: dict[str, Any]) -> Document:
    room = msgspec.convert({**found, "id": found["_id"]}, Room)
    return Document(room, _outbox(found))


def _outbox(found: dict[str, Any]) -> tuple[RoomEntry, ...]:
    return tuple(msgspec.convert(found.get("outbox", []), list[RoomEntry]))
