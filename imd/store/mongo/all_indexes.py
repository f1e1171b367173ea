"""All indexes of the archive's database: which collection has which. Blocks."""

from __future__ import annotations

from typing import Any

from imd.store.mongo.apply import EVENTS, REACTIONS
from imd.store.mongo.blocks import COLLECTION as BLOCKS
from imd.store.mongo.indexes import (
    BLOCK_INDEXES,
    EVENT_INDEXES,
    LEDGER_INDEXES,
    OLD_MARK_INDEXES,
    REACTION_INDEXES,
    ROOM_INDEXES,
    STATE_INDEXES,
    TALK_INDEXES,
    make_indexes,
)
from imd.store.mongo.ledger import LEDGER
from imd.store.mongo.rooms import COLLECTION as ROOMS
from imd.store.mongo.state import COLLECTION as STATES
from imd.store.mongo.state import OLD_MARKS
from imd.store.mongo.talk_write import TALKS

BESIDE = {
    EVENTS: EVENT_INDEXES,
    REACTIONS: REACTION_INDEXES,
    TALKS: TALK_INDEXES,
    ROOMS: ROOM_INDEXES,
    STATES: STATE_INDEXES,
    OLD_MARKS: OLD_MARK_INDEXES,
    BLOCKS: BLOCK_INDEXES,
    LEDGER: LEDGER_INDEXES,
}
"""collections beside that of the messages → their indexes"""


def make_all_indexes(collection: Any) -> list[str]:
    """As `make_indexes`, for the collection of the messages and for those beside it."""
    troubles = make_indexes(collection)
    for name, indexes in BESIDE.items():
        beside = collection.database.get_collection(name, write_concern=collection.write_concern)
        troubles += make_indexes(beside, indexes)
    return troubles
