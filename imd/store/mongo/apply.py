"""Applying edits, recalls and reactions to messages in MongoDB, in any order, however often. Blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pymongo
from pymongo import ReadPreference
from pymongo.errors import BulkWriteError

from imd.protocol.errors import Unavailable
from imd.protocol.events import EDIT, Edit, React, Recall, RoomEvent
from imd.store.mongo.event_document import EventDocument, OfMessage, change_of, reaction_of
from imd.store.shared_metrics import APPLIED, WITHOUT_MESSAGE
from imd.store.shown import kind_of

EVENTS = "im_event"
REACTIONS = "im_reaction"

DUPLICATE_KEY = 11000
# Error codes that are about one document, and not about the server's state.
REFUSALS = frozenset(
    {2, 9, 14, 22, 52, 53, 55, 56, 57, 58, 66, 121, 171, 10334, 16755, 17280, 17419, 17420, DUPLICATE_KEY}
)


def events_of(collection: Any) -> Any:
    """The events beside the collection of messages, with the same write concern."""
    return _beside(collection, EVENTS)


def reactions_of(collection: Any) -> Any:
    """The last event of each user's reaction to a message."""
    return _beside(collection, REACTIONS)


def _beside(collection: Any, name: str) -> Any:
    return collection.database.get_collection(name, write_concern=collection.write_concern)


def apply_events(collection: Any, events: Sequence[OfMessage | RoomEvent]) -> dict[int, int]:
    """Apply events, which are written already; gives the error codes of those that can never be, by place.

    Raises Unavailable or PyMongoError: some may be applied; apply all of them again.
    """
    places = [index for index, event in enumerate(events) if not isinstance(event, RoomEvent)]
    changes: list[OfMessage] = [event for event in events if not isinstance(event, RoomEvent)]
    refused: dict[int, int] = {}
    if reactions := [index for index, event in enumerate(changes) if isinstance(event, React)]:
        made = [reaction_of(event) for event in changes if isinstance(event, React)]
        refused = {reactions[place]: code for place, code in _update(reactions_of(collection), made).items()}
    if changes:
        refused |= _update(collection, [change_of(event) for event in changes])
        _forget_texts(collection, changes)
    for event in events:
        APPLIED.labels(kind_of(event)).inc()
    return {places[index]: code for index, code in refused.items()}


def add_agents(collection: Any, events: Sequence[EventDocument]) -> None:
    """A visitor's event comes again when another agent gets it: the agent becomes a participant."""
    updates = [
        pymongo.UpdateOne({"_id": event.event.id}, {"$addToSet": {"participants": event.agent}})
        for event in events
    ]
    events_of(collection).bulk_write(updates, ordered=False)


def _update(collection: Any, updates: list[pymongo.UpdateOne], tries: int = 2) -> dict[int, int]:
    """Do updates in any order; gives the error codes of the refused ones, by place. Raises as above."""
    try:
        collection.bulk_write(updates, ordered=False)
    except BulkWriteError as error:
        details = error.details or {}
        if details.get("writeConcernErrors"):
            raise Unavailable("MongoDB: the write concern was not met") from None
        codes = {one["index"]: one.get("code") for one in details.get("writeErrors", ())}
        for code in codes.values():
            if code not in REFUSALS:
                raise Unavailable(f"MongoDB: updates fail with code {code}") from None
        twice = [index for index, code in codes.items() if code == DUPLICATE_KEY]
        if twice and tries > 1:
            # Two nodes made the same document at once: now it is there.
            again = _update(collection, [updates[index] for index in twice], tries - 1)
            codes = {index: code for index, code in codes.items() if code != DUPLICATE_KEY}
            codes |= {twice[place]: code for place, code in again.items()}
        return codes
    return {}


def _forget_texts(collection: Any, changes: Sequence[OfMessage]) -> None:
    """Remove the texts of archived edits whose message is recalled.

    A recall removes those that are written already. An edit that is written later finds the message recalled:
    it is written before this looks, and the recall is in the message before it looks for edits.
    """
    ids = list({event.of for event in changes})
    primary = collection.with_options(read_preference=ReadPreference.PRIMARY)
    found = {one["_id"]: one for one in primary.find({"_id": {"$in": ids}}, {"recalled": 1})}
    WITHOUT_MESSAGE.inc(sum(event.of not in found for event in changes))
    touched = {event.of for event in changes if isinstance(event, (Edit, Recall))}
    recalled = [message_id for message_id in touched if found.get(message_id, {}).get("recalled")]
    if recalled:
        events_of(collection).update_many(
            {"of": {"$in": recalled}, "full": {"$exists": True}, "kind": EDIT}, {"$unset": {"full": ""}}
        )
