"""The cluster's level in MongoDB: a document of the collection `im_cluster`. All but MongoLevel blocks."""

from __future__ import annotations

from typing import Any

from pymongo.errors import DuplicateKeyError
from twisted.internet.defer import Deferred, fail

from imd.contracts.level import EVENTS, NO_WORD
from imd.protocol.errors import Unavailable
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.cluster import CLUSTER, cluster_of
from imd.store.mongo.migrate import WALK, begin_walk

EVENT_COLLECTIONS = ("im_event", "im_room", "im_state", "im_block")
"""the collections that show that the cluster was used at level 2"""
_ID = "level"


def read_level(archive: Any) -> int:
    """The level that is written beside an archive's collection, or NO_WORD. Raises ValueError for none."""
    found = cluster_of(archive).find_one({"_id": _ID})
    if found is None:
        return NO_WORD
    level = found.get("level")
    if not isinstance(level, int) or isinstance(level, bool) or level < 1:
        raise ValueError(f"the document {_ID} of {CLUSTER} holds no level")
    return int(level)


def begin_level(archive: Any, level: int) -> int:
    """Write the level if there is none; the level that is there then. Of several callers one decides."""
    if level >= EVENTS and holds_nothing(archive):
        # A new installation: there is nothing that the list of conversations could lack.
        begin_walk(archive)
    try:
        cluster_of(archive).insert_one({"_id": _ID, "level": level})
    except DuplicateKeyError:
        return read_level(archive)
    return level


def write_level(archive: Any, level: int) -> None:
    """Write the level, whatever is there. Below EVENTS messages get past the list of conversations."""
    if level < EVENTS:
        cluster_of(archive).delete_one({"_id": WALK})
    cluster_of(archive).update_one({"_id": _ID}, {"$set": {"level": level}}, upsert=True)


def holds_nothing(archive: Any) -> bool:
    """True if no message was ever archived."""
    return archive.find_one({}, {"_id": True}) is None


def holds_events(archive: Any) -> bool:
    """True if a collection that only higher levels write has a document."""
    return any(archive.database[name].find_one({}, {"_id": True}) for name in EVENT_COLLECTIONS)


class MongoLevel:
    """Implements imd.contracts.level.LevelStore."""

    def __init__(self, archive: MongoArchive) -> None:
        self._archive = archive

    def read(self) -> Deferred[int]:
        # A MongoDB that is away is tried by the archive; a further try here would only hold a thread.
        problem = self._archive.problem()
        if problem is not None:
            return fail(Unavailable(problem))
        return self._archive.run(_within_reason, read_level)

    def begin(self, level: int) -> Deferred[int]:
        return self._archive.run(_within_reason, begin_level, level)

    def is_empty(self) -> Deferred[bool]:
        return self._archive.run(holds_nothing)


def _within_reason(archive: Any, work: Any, *args: Any) -> Any:
    try:
        return work(archive, *args)
    except ValueError as error:
        raise Unavailable(f"MongoDB: {error}") from None
