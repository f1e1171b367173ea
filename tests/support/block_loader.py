"""A loader of lists of blocked users that hangs (tests.support.hung_loader). Names are users."""

from __future__ import annotations

from typing import Any

from imd.store.mongo.blocks import BlockDocuments, BlockList
from imd.store.redis.blocks import BlockCopies
from imd.store.redis.rooms import Seen
from imd.store.redis.script_calls import ScriptCalls
from tests.support.hung_loader import Loading, run

FENCES = {
    # Messages are placed whoever blocks whom.
    "check": ("if blocked and not blocking.lets_pass(body) then", "if false then"),
    # An older list replaces a newer one.
    "version": ("held_run == run_text and tonumber(held) >= version", "false"),
}


def prepare(calls: ScriptCalls, database: Any) -> Loading:
    copies = BlockCopies(calls)

    async def bring(known: BlockList, seen: Seen) -> bool:
        return await copies.bring(known.user, known.version, known.users, seen)

    return Loading(copies.seen, BlockDocuments(database).read, bring)


if __name__ == "__main__":
    run(FENCES, prepare)
