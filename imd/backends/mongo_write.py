"""Writing a batch of messages to MongoDB, and telling whose fault it is when it fails. Blocks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import pymongo
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError, OperationFailure

from imd.backends.archive_document import Unfit, to_bson
from imd.errors import Unavailable

_DUPLICATE_KEY = 11000
# What the server says of one document, whatever state it is in itself.
_REFUSALS = frozenset(
    {2, 9, 14, 22, 52, 53, 55, 56, 57, 58, 66, 121, 171, 10334, 16755, 17280, 17419, 17420, _DUPLICATE_KEY}
)
# What it says of its own state, a full disk and lacking rights among them.
_PASSING = frozenset(
    {6, 7, 13, 18, 24, 46, 50, 63, 64, 89, 91, 100, 112, 133, 134, 150, 189, 202, 234, 246, 249, 262}
    | {8000, 9001, 10107, 11600, 11602, 13388, 13435, 13436, 14031}
)


class Refused(NamedTuple):
    """MongoDB will never take this document."""

    body: bytes
    message_id: str
    reason: str


class Inserted(NamedTuple):
    """A batch is durable in MongoDB, except for what was refused."""

    written: int
    duplicates: int
    refused: list[Refused]


def write_messages(
    collection: Any, bodies: Sequence[bytes | msgspec.Raw], timeout_seconds: float
) -> Inserted:
    """Write messages, in any order, each once however often it is given.

    Raises Unavailable or PyMongoError: some may be written; give all of them again.
    """
    now = datetime.now(UTC)
    documents: list[tuple[str, bytes, bytes | msgspec.Raw]] = []
    refused: list[Refused] = []
    for body in bodies:
        try:
            message_id, encoded = to_bson(body, now)
        except Unfit as error:
            refused.append(Refused(bytes(body), "", str(error)))
        else:
            documents.append((message_id, encoded, body))
    if not documents:
        return Inserted(0, 0, refused)
    with pymongo.timeout(timeout_seconds):
        try:
            errors = _write(collection, [encoded for _, encoded, _ in documents])
        except OperationFailure as failure:
            # The whole batch failed: one document's fault, or the server's?
            errors = _write_one_by_one(collection, [encoded for _, encoded, _ in documents], failure)
        _add_agents(collection, [documents[i][:2] for i, one in errors.items() if _is_duplicate(one)])
    bad = {index: one for index, one in errors.items() if not _is_duplicate(one)}
    for index, one in bad.items():
        message_id, _, body = documents[index]
        code = one.get("code")
        # A code that is in neither list tells of the document only if another one got through.
        if code in _PASSING or (code not in _REFUSALS and len(bad) == len(documents)):
            raise Unavailable(f"MongoDB: writes fail with code {code}")
        refused.append(Refused(bytes(body), message_id, f"code {code}: {one.get('errmsg', '')}"))
    return Inserted(len(documents) - len(errors), len(errors) - len(bad), refused)


def _write(collection: Any, documents: list[bytes]) -> dict[int, dict[str, Any]]:
    """Write errors by index. Raises PyMongoError when the batch as a whole is not known to be durable."""
    try:
        collection.bulk_write(
            [pymongo.InsertOne(RawBSONDocument(document)) for document in documents], ordered=False
        )
    except BulkWriteError as error:
        details = error.details or {}
        if details.get("writeConcernErrors"):
            raise Unavailable("MongoDB: the write concern was not met") from None
        return {one["index"]: one for one in details.get("writeErrors", ())}
    return {}


def _write_one_by_one(
    collection: Any, documents: list[bytes], error: OperationFailure
) -> dict[int, dict[str, Any]]:
    """As `_write`. When no single one can be written either, it is not theirs: raises `error`."""
    if error.code not in _REFUSALS or len(documents) == 1:
        raise error
    errors: dict[int, dict[str, Any]] = {}
    for index, document in enumerate(documents):
        try:
            if single_errors := _write(collection, [document]):
                errors[index] = single_errors[0]
        except OperationFailure as single:
            if single.code not in _REFUSALS:
                raise
            errors[index] = {"code": single.code, "errmsg": str(single)}
    if len(errors) == len(documents) and not any(_is_duplicate(one) for one in errors.values()):
        raise error
    return errors


def _add_agents(collection: Any, duplicates: Sequence[tuple[str, bytes]]) -> None:
    """A visitor's message comes again when another agent gets it, who then takes part as well."""
    updates = []
    for message_id, encoded in duplicates:
        agent = RawBSONDocument(encoded).get("agent")
        if agent:
            updates.append(pymongo.UpdateOne({"_id": message_id}, {"$addToSet": {"participants": agent}}))
    if updates:
        collection.bulk_write(updates, ordered=False)


def _is_duplicate(error: dict[str, Any]) -> bool:
    """It is there already. Another unique index, which an operator may have made, means something else."""
    return error.get("code") == _DUPLICATE_KEY and error.get("keyPattern", {"_id": 1}) == {"_id": 1}
