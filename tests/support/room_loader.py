"""A loader of rooms that hangs (tests.support.hung_loader). Names are rooms' ids."""

from __future__ import annotations

from typing import Any

from imd.store.mongo.rooms import Document, RoomDocuments
from imd.store.redis.rooms import Brought, RoomCopies, Seen
from imd.store.redis.script_calls import ScriptCalls
from tests.support.hung_loader import Loading, run

FENCES = {
    # A document that was read under another run is taken.
    "run": ("format('%.0f', read_in) == run_text", "true"),
    # An older document replaces a newer copy.
    "version": ("version > tonumber(copy[2] or '0')", "true"),
    # A copy of another run counts.
    "copy": ("found[1] ~= run_text or not found[3]", "not found[3]"),
}


def prepare(calls: ScriptCalls, database: Any) -> Loading:
    copies = RoomCopies(calls)

    async def bring(document: Document, seen: Seen) -> Brought:
        return await copies.bring(document.room, document.outbox, seen)

    return Loading(copies.seen, RoomDocuments(database).read, bring)


if __name__ == "__main__":
    run(FENCES, prepare)
