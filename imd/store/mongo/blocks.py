"""Lists of blocked users in MongoDB, a document each: the truth about them. Blocks its thread.

A document is `_id`, the user; `version`, which rises with each change; `users`, whom the user blocks; and
`owed`, the time of the change, while the inboxes may not know it. It stays when the list is empty, for the
sake of its version.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo.errors import DuplicateKeyError

from imd.contracts.blocks import MAX_BLOCKED, too_many
from imd.protocol.errors import Refused
from imd.store.mongo.exact import ExactReads, majority

COLLECTION = "im_block"
OWED_AT_ONCE = 20


class BlockList(NamedTuple):
    """The users whom a user blocks. Version 0: the user has never blocked anybody."""

    user: str
    version: int
    users: tuple[str, ...]


class Attempt(NamedTuple):
    """The list as it is now. `made`: this attempt has changed it."""

    now: BlockList
    made: bool


class BlockDocuments:
    """Reads and writes documents."""

    def __init__(self, database: Any) -> None:
        self._lists = majority(database, COLLECTION)
        self._exact = ExactReads(self._lists)

    def read(self, user: str) -> BlockList:
        """The list as it is, whichever server was voted out meanwhile."""
        found = self._exact.do(lambda lists: lists.find_one({"_id": user}))
        return _list_of(found) if found is not None else BlockList(user, 0, ())

    def attempt(self, user: str, other: str, on: bool, now_ms: int) -> Attempt | Refused | None:
        """Try to change the list, which is owed to the inboxes then; None if another change came first."""
        before = self.read(user)
        if (other in before.users) is on:
            return Attempt(before, False)
        if on and len(before.users) >= MAX_BLOCKED:
            return too_many()
        users = (*before.users, other) if on else tuple(one for one in before.users if one != other)
        after = BlockList(user, before.version + 1, users)
        fields = {"version": Int64(after.version), "users": list(users), "owed": Int64(now_ms)}
        if not before.version:
            return Attempt(after, True) if self._insert({"_id": user, **fields}) else None
        done = self._lists.update_one({"_id": user, "version": before.version}, {"$set": fields})
        return Attempt(after, True) if done.matched_count else None

    def settle(self, known: BlockList) -> None:
        """Note that the inboxes know this version of a list."""
        self._lists.update_one({"_id": known.user, "version": known.version}, {"$unset": {"owed": True}})

    def owed(self, before_ms: int) -> list[str]:
        """Users whose lists have been owed to the inboxes since before that time."""
        found = self._lists.find({"owed": {"$lt": Int64(before_ms)}}, {"_id": True})
        return [document["_id"] for document in found.limit(OWED_AT_ONCE)]

    def page(self, after: str, limit: int) -> list[BlockList]:
        """The next lists by their users' ids."""
        found = self._lists.find({"_id": {"$gt": after}}).sort("_id", 1).limit(limit)
        return [_list_of(document) for document in found]

    def among(self, user: str, others: Collection[str]) -> set[str]:
        """Of these others, those who block the user."""
        found = self._lists.find({"_id": {"$in": list(others)}, "users": user}, {"_id": True})
        return {document["_id"] for document in found}

    # from within

    def _insert(self, document: dict[str, Any]) -> bool:
        try:
            self._lists.insert_one(document)
        except DuplicateKeyError:
            return False
        return True


def _list_of(document: dict[str, Any]) -> BlockList:
    return BlockList(document["_id"], int(document["version"]), tuple(document["users"]))
