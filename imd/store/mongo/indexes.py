"""The indexes that history is read by: which are there, and making the others. Blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pymongo.errors import OperationFailure

Keys = list[tuple[str, int]]


class Index(NamedTuple):
    """`only`: the fields that a document must have to be in it; None for all documents."""

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
    # Whom userId and to do not name: members of lists, and visitors' agents.
    Index([("participants", 1), ("_id", 1)], "participants_covers", "covers"),
)
# What an index may have besides its keys and still give the same answers.
_HARMLESS = frozenset({"v", "key", "ns", "name", "background", "unique"})

# With one of these an index is not told apart from one without.
_NOT_BESIDE = frozenset({"hidden", "expireAfterSeconds"})

Information = Mapping[str, Mapping[str, Any]]
"""what `index_information` gives"""


def serving(index: Index, information: Information) -> str | None:
    """The name of an index that does what `index` is for, whatever it is called; None if there is none."""
    for name, found in information.items():
        if list(found["key"]) == index.keys and _obstacle(index, found) is None:
            return name
    return None


def missing_indexes(information: Information) -> list[Index]:
    return [index for index in INDEXES if serving(index, information) is None]


def conflict(index: Index, information: Information) -> str | None:
    """What is in the way of making `index`, as far as it shows: one of the same keys that does not serve."""
    for name, found in information.items():
        if list(found["key"]) == index.keys:
            option = _obstacle(index, found)
            if option in _NOT_BESIDE:
                return f"the index {name} has the same keys, but {option}"
    return None


def make_indexes(collection: Any) -> list[str]:
    """Make those that nothing serves for, each for itself. Gives why any could not be made, in words.

    Raises PyMongoError when the server cannot be asked.
    """
    information = collection.index_information()
    troubles = []
    for index in missing_indexes(information):
        name = index.name
        if name in information:
            # Other keys have it, or a variant that does not serve.
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
    """What keeps an index of the same keys from serving: the option's name; None if nothing does."""
    for option, value in found.items():
        if option in _HARMLESS or not value:
            continue
        # An index of all documents has those of a part as well.
        if option == "partialFilterExpression" and index.only is not None and _same_filter(index, found):
            continue
        return option
    return None
