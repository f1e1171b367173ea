"""Writing messages and events to MongoDB, and finding the documents that it refuses. Blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import pymongo
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from imd.protocol.errors import Unavailable
from imd.store.mongo.apply import DUPLICATE_KEY, REFUSALS, add_agents, apply_events, events_of
from imd.store.mongo.cover import cover_lists, covered_by
from imd.store.mongo.document import UNREADABLE, Document, Unfit, read_archived, to_document
from imd.store.mongo.event_document import EventDocument, to_event
from imd.store.mongo.talk_write import write_talks

# In one insert command. The driver does not divide commands, and the server accepts 48 MB.
INSERT_BYTES = 16 << 20

# Error codes about the server's state, a full disk and missing permissions among them.
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
    """A batch is durable in MongoDB, except for the refused documents."""

    written: int
    duplicates: int
    refused: list[Refused]
    unlisted: int = 0
    """conversations that MongoDB refused to bring up to date in the list; their messages are written"""


def write_messages(
    collection: Any, bodies: Sequence[bytes | msgspec.Raw], timeout_seconds: float
) -> Inserted:
    """Write messages and events, in any order. One that is given again is not written twice.

    Raises Unavailable or PyMongoError: some may be written; give all of them again.
    """
    now_ms = time.time_ns() // 1_000_000
    documents: list[Document] = []
    fit: list[bytes | msgspec.Raw] = []
    refused: list[Refused] = []
    events: list[EventDocument] = []
    event_bodies: list[bytes] = []
    for body in bodies:
        try:
            message = read_archived(body)
            if message.kind:
                document, event = to_event(bytes(body), message, now_ms)
                if event is not None:
                    events.append(event)
                    event_bodies.append(bytes(body))
                if document is None:
                    continue
            else:
                document = to_document(message, now_ms)
            documents.append(document)
            fit.append(body)
        except UNREADABLE as error:
            refused.append(Refused(bytes(body), "", f"not a message: {error}"))
        except Unfit as error:
            refused.append(Refused(bytes(body), "", str(error)))
    if not documents and not events:
        return Inserted(0, 0, refused)
    covered = cover_lists(documents)
    with pymongo.timeout(timeout_seconds):
        errors = _insert(collection, [document.encoded for document in documents])
        if errors:
            _mend(collection, documents, errors, covered)
        reasons = _refusals(errors, len(documents))
        refused += [
            Refused(bytes(fit[index]), documents[index].message_id, reason)
            for index, reason in reasons.items()
        ]
        # The list names messages that are there. It is written before the batch is acknowledged.
        unlisted = write_talks(collection, (one for n, one in enumerate(documents) if n not in reasons))
        duplicates = sum(map(_is_duplicate, errors.values()))
        result = Inserted(len(documents) - len(errors), duplicates, refused, unlisted)
        return result if not events else _write_events(collection, events, event_bodies, result)


def _write_events(
    collection: Any, events: list[EventDocument], bodies: list[bytes], before: Inserted
) -> Inserted:
    """Write events, and apply those that are written. Messages come first: an event may be of one of them."""
    errors = _insert(events_of(collection), [event.encoded for event in events])
    late = [event for index, event in enumerate(events) if index in errors and event.agent]
    if late:
        add_agents(collection, late)
    reasons = _refusals(errors, len(events))
    good = [index for index in range(len(events)) if index not in reasons]
    bad = apply_events(collection, [events[index].event for index in good])
    reasons |= {good[place]: f"code {code}" for place, code in bad.items()}
    dead = [Refused(bodies[index], events[index].event.id, reason) for index, reason in reasons.items()]
    return Inserted(
        before.written + len(events) - len(errors),
        before.duplicates + sum(map(_is_duplicate, errors.values())),
        before.refused + dead,
        before.unlisted,
    )


def _insert(collection: Any, encoded: list[bytes]) -> dict[int, dict[str, Any]]:
    """As `_write`; a batch that fails as a whole is tried document by document."""
    if not encoded:
        return {}
    try:
        return _write(collection, encoded)
    except OperationFailure as failure:
        # The whole batch failed: one document's fault, or the server's?
        return _write_one_by_one(collection, encoded, failure)


def _refusals(errors: dict[int, dict[str, Any]], count: int) -> dict[int, str]:
    """Why MongoDB will never take some of `count` documents. Raises Unavailable: it is the server's state."""
    bad = {index: one for index, one in errors.items() if not _is_duplicate(one)}
    reasons = {}
    for index, one in bad.items():
        code = one.get("code")
        # A code in neither list is about the document only if another document was written.
        if code in _PASSING or (code not in REFUSALS and len(bad) == count):
            raise Unavailable(f"MongoDB: writes fail with code {code}")
        reasons[index] = f"code {code}: {one.get('errmsg', '')}"
    return reasons


def _write(collection: Any, documents: list[bytes]) -> dict[int, dict[str, Any]]:
    """Write errors by index. Raises PyMongoError when the batch as a whole is not known to be durable.

    Sends the insert command itself, since the driver's bulk writes cost twice as much for each document.
    """
    errors: dict[int, dict[str, Any]] = {}
    for first, part in _parts(documents):
        reply = collection.database.command(
            {
                "insert": collection.name,
                "ordered": False,
                "writeConcern": collection.write_concern.document,
                "documents": part,
            }
        )
        if "writeConcernError" in reply:
            raise Unavailable("MongoDB: the write concern was not met")
        for one in reply.get("writeErrors", ()):
            errors[first + one["index"]] = one
    return errors


def _parts(documents: list[bytes]) -> Iterator[tuple[int, list[RawBSONDocument]]]:
    """Documents in parts of at most INSERT_BYTES, or of one; with the index of the first."""
    part: list[RawBSONDocument] = []
    first = size = 0
    for index, document in enumerate(documents):
        size += len(document)
        if part and size > INSERT_BYTES:
            yield first, part
            part, first, size = [], index, len(document)
        part.append(RawBSONDocument(document))
    yield first, part


def _write_one_by_one(
    collection: Any, documents: list[bytes], error: OperationFailure
) -> dict[int, dict[str, Any]]:
    """As `_write`. Raises `error` if no document can be written alone either: then it is not about them."""
    if error.code not in REFUSALS or len(documents) == 1:
        raise error
    errors: dict[int, dict[str, Any]] = {}
    for index, document in enumerate(documents):
        try:
            if single_errors := _write(collection, [document]):
                errors[index] = single_errors[0]
        except OperationFailure as single:
            if single.code not in REFUSALS:
                raise
            errors[index] = {"code": single.code, "errmsg": str(single)}
    if len(errors) == len(documents) and not any(_is_duplicate(one) for one in errors.values()):
        raise error
    return errors


def _mend(
    collection: Any, documents: list[Document], errors: dict[int, dict[str, Any]], covered: dict[str, str]
) -> None:
    """Update documents that MongoDB has already, or whose cover was refused.

    A visitor's message comes again when another agent gets it: the agent becomes a participant. A message to
    a list that comes again may cover others this time. If a cover is refused, its messages cover themselves.
    """
    updates: list[tuple[str, dict[str, Any]]] = []
    for index, one in errors.items():
        document = documents[index]
        if not _is_duplicate(one):
            if document.list_id:
                alone = covered_by(document, documents, covered)
                updates += [(message_id, {"$min": {"covers": message_id}}) for message_id in alone]
        elif document.list_id:
            if oldest := covered.get(document.message_id):
                updates.append((document.message_id, {"$min": {"covers": oldest}}))
        elif agent := RawBSONDocument(document.encoded).get("agent"):
            updates.append((document.message_id, {"$addToSet": {"participants": agent}}))
    if updates:
        collection.bulk_write(
            [pymongo.UpdateOne({"_id": message_id}, update) for message_id, update in updates], ordered=False
        )


def _is_duplicate(error: dict[str, Any]) -> bool:
    """True if the document's id is there already; not for a unique index that an operator has made."""
    return error.get("code") == DUPLICATE_KEY and error.get("keyPattern", {"_id": 1}) == {"_id": 1}
