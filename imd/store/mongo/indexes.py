"""The indexes that history is read by: finds the missing ones, and makes them. Blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pymongo.errors import OperationFailure

from imd.store.mongo.apply import events_of, reactions_of
from imd.store.mongo.talk_write import talks_of

Keys = list[tuple[str, int]]


class Index(NamedTuple):
    """`only`: the index holds the documents that have this field; None: all documents."""

    keys: Keys
    name: str
    only: str | None = None

    @property
    def fields(self) -> str:
        return ", ".join(field for field, _ in self.keys)


# A message between two has four entries in all, its `_id` among them. `userId` is the seed's index.
INDEXES = (
    Index([("userId", 1), ("_id", 1)], "userId_1__id_1"),
    Index([("to", 1), ("_id", 1)], "to_1__id_1"),
    Index([("conversation", 1), ("_id", 1)], "conversation_1__id_1"),
    # The participants that userId and to do not name: members of lists, and visitors' agents.
    Index([("participants", 1), ("_id", 1)], "participants_covers", "covers"),
)
EVENT_INDEXES = (
    Index([("conversation", 1), ("_id", 1)], "conversation_1__id_1"),
    # Rooms' events have no participants.
    Index([("participants", 1), ("_id", 1)], "participants_1__id_1", "participants"),
    # Edits that have their text still, which a recall removes.
    Index([("of", 1)], "of_full", "full"),
    # Rooms' events alone: which of them made a version.
    Index([("conversation", 1), ("version", 1)], "conversation_version", "version"),
)
TALK_INDEXES = (
    Index([("m", 1), ("at", -1)], "m_1_at_-1", "m"),
    Index([("w", 1)], "w_1", "w"),
)
REACTION_INDEXES = (Index([("_id.of", 1)], "_id.of_1"),)
# Options that do not change an index's answers.
_HARMLESS = frozenset({"v", "key", "ns", "name", "background", "unique"})

# MongoDB does not tell an index with one of these options from one without.
_NOT_BESIDE = frozenset({"hidden", "expireAfterSeconds"})

Information = Mapping[str, Mapping[str, Any]]
"""as from `index_information`: name → keys and options"""


def serving(index: Index, information: Information) -> str | None:
    """The name of an index that serves for `index`; None if there is none."""
    for name, found in information.items():
        if list(found["key"]) == index.keys and _obstacle(index, found) is None:
            return name
    return None


def missing_indexes(information: Information, indexes: Iterable[Index] = INDEXES) -> list[Index]:
    return [index for index in indexes if serving(index, information) is None]


def conflict(index: Index, information: Information) -> str | None:
    """The existing index that keeps `index` from being made, in words; None if there is none."""
    for name, found in information.items():
        if list(found["key"]) == index.keys:
            option = _obstacle(index, found)
            if option in _NOT_BESIDE:
                return f"the index {name} has the same keys, but {option}"
    return None


def make_event_indexes(collection: Any) -> list[str]:
    """As `make_indexes`, for the collections beside `collection`, that of the messages, which gets none."""
    return [
        *make_indexes(events_of(collection), EVENT_INDEXES),
        *make_indexes(reactions_of(collection), REACTION_INDEXES),
        *make_indexes(talks_of(collection), TALK_INDEXES),
    ]


def make_indexes(collection: Any, indexes: Iterable[Index] = INDEXES) -> list[str]:
    """Make the missing indexes, each for itself. Gives the reasons of those that could not be made.

    Raises PyMongoError when the server cannot be asked.
    """
    information = collection.index_information()
    troubles = []
    for index in missing_indexes(information, indexes):
        name = index.name
        if name in information:
            # An index that does not serve has the name.
            name = _own_name(index)
        options: dict[str, Any] = {"name": name}
        if index.only is not None:
            options["partialFilterExpression"] = {index.only: {"$exists": True}}
        try:
            collection.create_index(index.keys, **options)
        except OperationFailure as error:
            why = conflict(index, information) or f"code {error.code}"
            troubles.append(f"({index.fields}): {why}")
    return troubles


def _own_name(index: Index) -> str:
    return f"imd_{index.name}"


def _filter_of(index: Index) -> dict[str, Any] | None:
    return None if index.only is None else {index.only: {"$exists": True}}


def _same_filter(index: Index, found: Mapping[str, Any]) -> bool:
    return found.get("partialFilterExpression") == _filter_of(index)


def _obstacle(index: Index, found: Mapping[str, Any]) -> str | None:
    """The option that keeps an index of the same keys from serving; None if it serves."""
    for option, value in found.items():
        if option in _HARMLESS or not value:
            continue
        # A partial index serves only for the same part. An index of all documents serves for any part.
        if option == "partialFilterExpression" and index.only is not None and _same_filter(index, found):
            continue
        return option
    return None
