"""Marks and settings in MongoDB, a document for each user: the truth about a user's state. Blocks.

A document has `v`, the user's version, and in `c` an entry for each conversation. So a mark is an update of a
few fields, however large the document is. Each update is conditional on `v`, which every change raises, and
on `weight`, which sinks when entries are moved: it fails if another came first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pymongo
from bson.int64 import Int64
from msgspec.structs import replace
from pymongo.errors import BulkWriteError

from imd.contracts.state import Entry, UserState
from imd.contracts.state_rules import weight_of
from imd.protocol.selector import Selector
from imd.store.mongo.blocks import COLLECTION as BLOCKS
from imd.store.mongo.exact import ExactReads, majority

COLLECTION = "im_state"
OLD_MARKS = "im_mark"

_DUPLICATE = 11000
MAX_NAMED = 1000
"""conversations; past it whole documents are read"""
_HEAD = ("v", "floor", "receipts", "rv", "pins", "weight", "old", "owed")


class Found(NamedTuple):
    """A user's state, or a part of it. `is_new`: there is no document."""

    state: UserState
    is_new: bool = False
    old: bool = False
    """some entries have been moved to `im_mark`"""
    owed: bool = False
    """the user has shown receipts again, and not all peers have been told"""
    moved: frozenset[str] = frozenset()
    """entries of the state that are in `im_mark`, not in the document"""


class Change(NamedTuple):
    """A new state, of one that was found."""

    before: Found
    after: UserState
    shows_again: bool = False
    """the user shows receipts again: peers are owed word of it"""
    expires: datetime | None = None

    def update(self) -> pymongo.UpdateOne:
        """The update that does it, if nothing has changed meanwhile."""
        old, new = self.before.state, self.after
        weight = new.weight + returning(self.before, new)
        values: dict[str, Any] = {"v": Int64(new.version), "pins": new.pins, "weight": weight}
        gone: dict[str, str] = {}
        if new.receipts != old.receipts:
            values |= {"receipts": new.receipts, "rv": Int64(new.receipts_v), "floor": Int64(new.floor)}
        if self.shows_again:
            values["owed"] = True
        if self.expires is not None:
            values["exp"] = self.expires
        for conversation, entry in new.entries.items():
            if entry.v > old.version:
                name = f"c.{conversation}"
                fields = _fields(entry)
                if entry.cleared:
                    values["clears"] = True
                present = old.entries.get(conversation)
                if present is None or self.before.is_new or conversation in self.before.moved:
                    values[name] = fields
                    continue
                before = _fields(present)
                values |= {
                    f"{name}.{key}": value for key, value in fields.items() if before.get(key) != value
                }
                gone |= {f"{name}.{key}": "" for key in before if key not in fields}
        changes: dict[str, Any] = {"$set": values}
        if gone:
            changes["$unset"] = gone
        return pymongo.UpdateOne(_as_found(self.before), changes, upsert=self.before.is_new)


class StateDocuments:
    """Reads and writes documents. `database` is the archive's."""

    def __init__(self, database: Any) -> None:
        self._states = majority(database, COLLECTION)
        self._exact = ExactReads(self._states)
        self._old = majority(database, OLD_MARKS)
        self._blocks = majority(database, BLOCKS)

    def versions(self, users: Sequence[str]) -> dict[str, int]:
        found = dict.fromkeys(users, 0)
        for document in self._states.find({"_id": {"$in": list(users)}}, {"v": True}):
            found[document["_id"]] = int(document["v"])
        return found

    def whole(self, users: Collection[str]) -> dict[str, Found]:
        """All of these users' entries."""
        return self._find(users, None)

    def parts(self, conversations: Mapping[str, Collection[str]]) -> dict[str, Found]:
        """By user, the entries of the conversations that are named for the user."""
        named = {conversation for names in conversations.values() for conversation in names}
        found = self._find(conversations, named)
        missing = [
            {"u": user, "c": conversation}
            for user, one in found.items()
            if one.old
            for conversation in conversations[user]
            if conversation not in one.state.entries
        ]
        for user, entries in self._moved({"$in": missing}).items() if missing else ():
            state = replace(found[user].state, entries={**entries, **found[user].state.entries})
            found[user] = found[user]._replace(state=state, moved=frozenset(entries))
        return found

    def with_cleared(self, user: str) -> Found | None:
        """The whole state of a user who has cleared messages of a conversation; None for others."""
        document = self._states.find_one({"_id": user, "clears": True})
        return _found(document) if document is not None else None

    def exactly(self, user: str) -> Found:
        """The whole state as it is, whichever server was voted out meanwhile."""
        document = self._exact.do(lambda states: states.find_one({"_id": user}))
        return _found(document) if document is not None else Found(UserState(user), is_new=True)

    def moved(self, user: str) -> dict[str, Entry]:
        """The entries that were moved to `im_mark`."""
        bounds = {"$gte": {"u": user, "c": ""}, "$lt": {"u": user, "c": "g"}}
        return self._moved(bounds).get(user, {})

    def hiding(self, users: Collection[str]) -> set[str]:
        """The users of these who hide receipts."""
        if not users:
            return set()
        found = self._states.find({"receipts": False, "_id": {"$in": list(users)}}, {"_id": True})
        return {document["_id"] for document in found}

    def apart(self, pairs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """The pairs of these of whom one blocks the other."""
        users = sorted({user for pair in pairs for user in pair})
        if not users:
            return set()
        found = self._blocks.find({"_id": {"$in": users}, "users": {"$in": users}}, {"users": True})
        lists = {document["_id"]: frozenset(document["users"]) for document in found}
        return {
            (one, other) for one, other in pairs if other in lists.get(one, ()) or one in lists.get(other, ())
        }

    def write(self, changes: Iterable[Change]) -> bool:
        """Write these changes. False: not all of them could be, since others came first."""
        updates = [change.update() for change in changes]
        if not updates:
            return True
        try:
            result = self._states.bulk_write(updates, ordered=False)
        except BulkWriteError as error:
            if any(one["code"] != _DUPLICATE for one in error.details["writeErrors"]):
                raise
            return False
        return bool(result.matched_count + result.upserted_count == len(updates))

    def move(self, found: Found, leaving: Sequence[Entry], expiry: Callable[[str], datetime | None]) -> None:
        """Move entries to `im_mark`, then out of the document, unless that has changed meanwhile."""
        state = found.state
        moving = [_moving(state.user, entry, expiry(entry.selector.with_)) for entry in leaving]
        self._old.bulk_write(moving, ordered=False)
        weight = sum(map(weight_of, leaving))
        self._states.update_one(
            _as_found(found),
            {
                "$unset": {f"c.{entry.conversation}": "" for entry in leaving},
                "$set": {"floor": max(state.floor, *(entry.v for entry in leaving)), "old": True},
                "$inc": {"weight": -weight},
            },
        )

    def settle(self, user: str) -> None:
        """All peers have been told."""
        self._states.update_one({"_id": user}, {"$unset": {"owed": ""}})

    # from within

    def _find(self, users: Collection[str], named: Collection[str] | None) -> dict[str, Found]:
        fields = None
        if named is not None and len(named) <= MAX_NAMED:
            fields = dict.fromkeys((*_HEAD, *(f"c.{conversation}" for conversation in named)), True)
        found = {user: Found(UserState(user), is_new=True) for user in users}
        for document in self._states.find({"_id": {"$in": list(users)}}, fields):
            found[document["_id"]] = _found(document)
        return found

    def _moved(self, ids: Any) -> dict[str, dict[str, Entry]]:
        found: dict[str, dict[str, Entry]] = {}
        for document in self._old.find({"_id": ids}):
            user, conversation = document["_id"]["u"], document["_id"]["c"]
            found.setdefault(user, {})[conversation] = _entry(conversation, document)
        return found


def returning(before: Found, after: UserState) -> int:
    """The weight of entries that were moved, and come back into the document since they are changed."""
    old = before.state
    back = (name for name in before.moved if after.entries[name].v > old.version)
    return sum(weight_of(old.entries[name]) for name in back)


def _as_found(found: Found) -> dict[str, Any]:
    """The filter of a document that is as it was found."""
    state = found.state
    if found.is_new:
        return {"_id": state.user, "v": {"$exists": False}}
    # None: a document without a weight.
    return {"_id": state.user, "v": state.version, "weight": state.weight or {"$in": [0, None]}}


def _found(document: Mapping[str, Any]) -> Found:
    entries = {name: _entry(name, fields) for name, fields in document.get("c", {}).items()}
    state = UserState(
        document["_id"],
        int(document["v"]),
        int(document.get("floor", 0)),
        document.get("receipts", True),
        int(document.get("rv", 0)),
        document.get("pins", 0),
        document.get("weight", 0),
        entries,
    )
    return Found(state, old=document.get("old", False), owed=document.get("owed", False))


def _entry(conversation: str, fields: Mapping[str, Any]) -> Entry:
    muted = fields.get("m", False)
    return Entry(
        conversation,
        Selector(fields.get("w", ""), tuple(fields.get("g", ())), fields.get("o", "")),
        int(fields["v"]),
        fields.get("r", ""),
        fields.get("p", ""),
        muted if isinstance(muted, bool) else int(muted),
        fields.get("pin", False),
        fields.get("h", ""),
        fields.get("cl", ""),
        fields.get("u", False),
        fields.get("by", ""),
    )


def _fields(entry: Entry) -> dict[str, Any]:
    """An entry as a document has it: without values at their default."""
    selector = entry.selector
    muted = entry.muted if isinstance(entry.muted, bool) else Int64(entry.muted)
    fields = {
        "v": Int64(entry.v),
        "w": selector.with_,
        "g": list(selector.group),
        "o": selector.room,
        "r": entry.read,
        "p": entry.peer,
        "m": muted,
        "pin": entry.pinned,
        "h": entry.hidden,
        "cl": entry.cleared,
        "u": entry.marked,
        "by": entry.by,
    }
    return {name: value for name, value in fields.items() if value}


def _moving(user: str, entry: Entry, expires: datetime | None) -> pymongo.UpdateOne:
    """Keep a moved entry. Marks only rise, whichever node hangs on its way here."""
    fields = _fields(entry) | ({} if expires is None else {"exp": expires})
    rising = {name: fields.pop(name) for name in ("v", "r", "p", "cl") if name in fields}
    update = {"$max": rising, **({"$set": fields} if fields else {})}
    return pymongo.UpdateOne({"_id": {"u": user, "c": entry.conversation}}, update, upsert=True)
