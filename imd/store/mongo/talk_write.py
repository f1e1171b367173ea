"""The documents that the list of conversations is read from: a small one for each conversation. Blocks.

`at` is the id of the newest message. `m` are the people, of at most SHORT; of a longer list they are in `w`,
whose index does not hold `at`: it would move an entry for each of them with each message. A list from which
somebody was left out has one more document for each set of users who were, with the others in `w` and all
people in `p`: so each user's `at` is exact. A room has `top`, the newest message and the version
that it was placed under, and `rv`, the highest version of any message.

Nothing but the highest is kept, so the order of updates does not matter, nor how often each is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from pymongo.errors import OperationFailure

from imd.protocol.errors import Unavailable
from imd.store.mongo.apply import DUPLICATE_KEY, REFUSALS
from imd.store.mongo.document import Document, Talk
from imd.store.mongo.ledger import NOT_PERMITTED

TALKS = "im_conversation"
SHORT = 16
ID_DIGITS = 32
"""of a conversation's id; a document that has people left out has more behind them"""
# In one command: with the longest lists it stays below the size that the server accepts.
_UPDATES = 200

Update = dict[str, Any]
"""a member of an update command's `updates`"""


def talks_of(collection: Any) -> Any:
    """The list's documents beside the collection of messages, with the same write concern."""
    return collection.database.get_collection(TALKS, write_concern=collection.write_concern)


def write_talks(collection: Any, documents: Iterable[Document]) -> int:
    """Bring the list up to these messages, which are written already.

    Gives the number of updates that MongoDB refused: their messages are safe. Raises Unavailable or
    PyMongoError for any other failure: do all again.
    """
    return update(collection, updates_of((document.message_id, document.talk) for document in documents))


def updates_of(messages: Iterable[tuple[str, Talk | None]]) -> list[Update]:
    """One update for each conversation of these messages, which are given by their ids."""
    newest: dict[tuple[str, tuple[str, ...]], str] = {}
    talks: dict[tuple[str, tuple[str, ...]], Talk] = {}
    rooms: dict[str, tuple[str, int, int]] = {}
    for message_id, talk in messages:
        if talk is None:
            continue
        if not talk.people:
            _, _, highest = found = rooms.get(talk.conversation, ("", 0, 0))
            top = max(found[:2], (message_id, talk.version))
            rooms[talk.conversation] = (*top, max(highest, talk.version))
            continue
        key = talk.conversation, talk.without
        if message_id > newest.get(key, ""):
            newest[key] = message_id
            talks[key] = talk
    updates = [_of_people(talk, newest[key]) for key, talk in talks.items()]
    return updates + [_of_room(conversation, *found) for conversation, found in rooms.items()]


def _of_people(talk: Talk, at: str) -> Update:
    people = list(talk.people)
    key, fields = talk.conversation, {"m" if len(people) <= SHORT else "w": people}
    if talk.without:
        audience = [user for user in people if user not in talk.without]
        key += blake2b(msgspec.json.encode(talk.without), digest_size=16).hexdigest()
        fields = {"w": audience, "p": people}
    return _update(key, {"$max": {"at": at}, "$setOnInsert": fields})


def _of_room(conversation: str, at: str, version: int, highest: int) -> Update:
    # Documents are compared field by field, in this order.
    return _update(conversation, {"$max": {"top": {"i": at, "v": version}, "rv": highest}})


def _update(key: str, change: Mapping[str, Any]) -> Update:
    return {"q": {"_id": key}, "u": change, "upsert": True}


def update(collection: Any, updates: Sequence[Update], tries: int = 2) -> int:
    """Do updates in any order. As `write_talks`. It sends the command itself, as `write_messages` does."""
    refused = 0
    for first in range(0, len(updates), _UPDATES):
        part = list(updates[first : first + _UPDATES])
        try:
            reply = collection.database.command(
                {
                    "update": TALKS,
                    "ordered": False,
                    "writeConcern": collection.write_concern.document,
                    "updates": part,
                }
            )
        except OperationFailure as error:
            if error.code != NOT_PERMITTED and error.code not in REFUSALS:
                raise
            refused += len(part)
            continue
        if "writeConcernError" in reply:
            raise Unavailable("MongoDB: the write concern was not met")
        codes = {one["index"]: one.get("code") for one in reply.get("writeErrors", ())}
        # Two nodes made the same document at once: now it is there.
        twice = [part[index] for index, code in codes.items() if code == DUPLICATE_KEY]
        for code in codes.values():
            if code not in REFUSALS or (code == DUPLICATE_KEY and tries == 1):
                raise Unavailable(f"MongoDB: updates of {TALKS} fail with code {code}")
        refused += len(codes) - len(twice)
        if twice:
            refused += update(collection, twice, tries - 1)
    return refused
