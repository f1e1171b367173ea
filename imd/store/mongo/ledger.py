"""The ledger in MongoDB: which batches were confirmed, which were written, which are missing. Blocks.

Each block of a publisher's numbers is a document, with words of 64 bits: `c0`, `c1`… for confirmed, `w0`… for
written, `m0`… for missing. Bits are only ever added, so nodes need no agreement, and repeating an update does
no harm.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pymongo
from bson.int64 import Int64
from pymongo.errors import OperationFailure

from imd.store.batch_numbers import BLOCK, Bits

LEDGER = "im_archive_ledger"
FRESH_SECONDS = 20.0
"""a writer whose list is older counts as a stranger"""
KEEP_DAYS = 7
"""for a closed block"""
KEEP_MISSING_DAYS = 90
"""for a closed block with missing numbers, so that an operator finds it"""
_FORGET_WRITERS = timedelta(days=1)
_WORD = 64
_WORDS = BLOCK // _WORD
_WORD_BITS = (1 << _WORD) - 1
NOT_PERMITTED = 13


class Block(NamedTuple):
    publisher: str
    number: int
    confirmed: int
    written: int
    missing: int
    idle_seconds: float
    """since anything was last added"""


class Ledger(NamedTuple):
    """All blocks that are not closed yet."""

    blocks: list[Block]
    holding: list[list[str]]
    """for each writer with a fresh list: `<publisher>:<number>` of the batches that it holds"""


def ledger_of(collection: Any) -> Any:
    """The ledger beside the archive's collection, with the same write concern."""
    return collection.database.get_collection(LEDGER, write_concern=collection.write_concern)


def note(collection: Any, confirmed: Bits, written: Bits, *, own: bool = False) -> bool:
    """Add bits. `own`: called by the publisher itself, whose blocks are reopened.

    Gives False if MongoDB permits no writing there. Raises PyMongoError: some may be added; add all again.
    """
    operations = []
    for key in {**confirmed, **written}:
        publisher, block = key
        words = {**_words("c", confirmed.get(key, 0)), **_words("w", written.get(key, 0))}
        update: dict[str, Any] = {
            "$bit": {name: {"or": word} for name, word in words.items()},
            "$currentDate": {"at": True},
            "$setOnInsert": {"publisher": publisher, "block": block},
        }
        if own:
            update["$unset"] = {"expires": ""}
        operations.append(pymongo.UpdateOne({"_id": _id(key)}, update, upsert=True))
    try:
        if operations:
            ledger_of(collection).bulk_write(operations, ordered=False)
    except OperationFailure as error:
        if error.code != NOT_PERMITTED:
            raise
        return False
    return True


def say_held(collection: Any, writer: str, holding: list[str]) -> None:
    """List the batches that a writer has not acknowledged; the list is fresh for FRESH_SECONDS."""
    update = {"$set": {"holding": holding}, "$currentDate": {"at": True}}
    ledger_of(collection).update_one({"_id": f"writer/{writer}"}, update, upsert=True)


def say_gone(collection: Any, writer: str) -> None:
    ledger_of(collection).delete_one({"_id": f"writer/{writer}"})


def read_ledger(collection: Any) -> Ledger:
    ledger = ledger_of(collection)
    # The server's clock, which wrote the dates as well.
    now = _now(collection)
    holding = []
    for writer in ledger.find({"_id": {"$gte": "writer/", "$lt": "writer0"}}):
        if now - writer["at"] < timedelta(seconds=FRESH_SECONDS):
            holding.append(writer.get("holding", []))
        elif now - writer["at"] > _FORGET_WRITERS:
            ledger.delete_one({"_id": writer["_id"]})
    # Blocks are read after the lists: a batch that is written in between is listed, and counts as held.
    wanted = {"expires": None, "publisher": {"$exists": True}}
    blocks = [
        Block(
            one["publisher"],
            one["block"],
            _bits(one, "c"),
            _bits(one, "w"),
            _bits(one, "m"),
            (now - one["at"]).total_seconds(),
        )
        for one in ledger.find(wanted)
    ]
    return Ledger(blocks, holding)


def read_done(collection: Any, publisher: str, blocks: range) -> dict[int, int]:
    """block → which of a publisher's numbers are written, or missing."""
    ids = [_id((publisher, block)) for block in blocks]
    found = ledger_of(collection).find({"_id": {"$in": ids}})
    return {one["block"]: _bits(one, "w") | _bits(one, "m") for one in found if "block" in one}


def mark_missing(collection: Any, missing: Bits) -> Bits:
    """Mark numbers. Gives the ones that were not marked before, and were not written meanwhile."""
    ledger = ledger_of(collection)
    newly: Bits = {}
    for key, bits in missing.items():
        update = {"$bit": {name: {"or": word} for name, word in _words("m", bits).items()}}
        before = ledger.find_one_and_update({"_id": _id(key)}, update) or {}
        if left := bits & ~_bits(before, "m") & ~_bits(before, "w"):
            newly[key] = left
    return newly


def close_blocks(collection: Any, blocks: Iterable[Block]) -> None:
    """Let MongoDB remove them after KEEP_DAYS, or KEEP_MISSING_DAYS."""
    ledger = ledger_of(collection)
    now = _now(collection)
    for block in blocks:
        days = KEEP_MISSING_DAYS if block.missing & ~block.written else KEEP_DAYS
        where = {"_id": _id((block.publisher, block.number))}
        ledger.update_one(where, {"$set": {"expires": now + timedelta(days=days)}})


def count_missing(database: Any) -> dict[str, int]:
    """publisher → how many of its batches are missing. For the doctor."""
    counted: dict[str, int] = {}
    some = {"$or": [{f"m{word}": {"$exists": True}} for word in range(_WORDS)]}
    for one in database[LEDGER].find(some):
        if count := (_bits(one, "m") & ~_bits(one, "w")).bit_count():
            counted[one["publisher"]] = counted.get(one["publisher"], 0) + count
    return counted


def count_writers(database: Any) -> int:
    """How many writers have a fresh list. For the doctor."""
    ledger = database[LEDGER]
    fresh = _now(ledger) - timedelta(seconds=FRESH_SECONDS)
    return int(ledger.count_documents({"_id": {"$gte": "writer/", "$lt": "writer0"}, "at": {"$gt": fresh}}))


def _now(collection: Any) -> datetime:
    hello = collection.database.command("hello", codec_options=collection.codec_options)
    now: datetime = hello["localTime"]
    return now


def _id(key: tuple[str, int]) -> str:
    return f"block/{key[0]}/{key[1]:012d}"


def _words(kind: str, bits: int) -> dict[str, Int64]:
    """field → word, for words that are not zero; signed, as in MongoDB."""
    words = {}
    for index in range(_WORDS):
        if word := bits >> index * _WORD & _WORD_BITS:
            words[f"{kind}{index}"] = Int64(word - (1 << _WORD) if word >> _WORD - 1 else word)
    return words


def _bits(document: Any, kind: str) -> int:
    return sum((document.get(f"{kind}{index}", 0) & _WORD_BITS) << index * _WORD for index in range(_WORDS))
