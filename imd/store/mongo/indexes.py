"""The indexes that imd needs: finds the missing ones, and makes them beside what is there. Blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pymongo.errors import OperationFailure

Keys = list[tuple[str, int]]

_PRESENT = {"$exists": True}


class Index(NamedTuple):
    """An index, and `without`: what is so while there is none, for people.

    `only`: the index holds the documents whose field of this name is `being`; None: all documents.
    `sparse`: it need not hold the documents without the field. `expires`: MongoDB removes a document so many
    seconds after the date in it. `unique`: no two documents have the same value; `doubtful` is so while they
    may, for people.
    """

    keys: Keys
    name: str
    only: str | None = None
    being: Any = _PRESENT
    sparse: bool = False
    expires: int | None = None
    unique: bool = False
    without: str = "history is slow"
    doubtful: str = ""

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
_SLOW_LISTS = "lists of conversations are slow"
TALK_INDEXES = (
    Index([("m", 1), ("at", -1)], "m_1_at_-1", "m", without=_SLOW_LISTS),
    Index([("w", 1)], "w_1", "w", without=_SLOW_LISTS),
)
REACTION_INDEXES = (Index([("_id.of", 1)], "_id.of_1"),)
# Needed for two copies of one `create` to make one room.
MADE_BY = Index(
    [("madeBy", 1)],
    "madeBy_1",
    unique=True,
    without="creating a room is slow",
    doubtful="no room can be created",
)
ROOM_INDEXES = (
    MADE_BY,
    Index([("members.u", 1), ("_id", 1)], "members.u_1__id_1", without="lists of rooms are slow"),
    Index(
        [("outbox.at", 1)], "outbox.at_1", sparse=True, without="unfinished changes of rooms are found slowly"
    ),
)
STATE_INDEXES = (
    Index(
        [("receipts", 1), ("_id", 1)], "receipts_1__id_1", "receipts", False, without="read marks are slow"
    ),
    Index([("exp", 1)], "exp_1", "exp", expires=0, without="states of visitors do not end in time"),
)
OLD_MARK_INDEXES = (
    Index([("exp", 1)], "exp_1", "exp", expires=0, without="old marks of visitors do not end in time"),
)
BLOCK_INDEXES = (
    Index([("owed", 1)], "owed_1", sparse=True, without="unfinished changes of blocks are found slowly"),
)
LEDGER_INDEXES = (
    Index([("expires", 1)], "expires_1", expires=0, without="closed blocks are not removed in time"),
)

# Options that do not change an index's answers, and those that are looked at by themselves.
_HARMLESS = frozenset({"v", "key", "ns", "name", "background", "unique", "expireAfterSeconds"})

# Codes: an index cannot be beside another; documents keep it from being unique.
_CONFLICTS = frozenset({85, 86})
_DUPLICATE_KEY = 11000

Information = Mapping[str, Mapping[str, Any]]
"""as from `index_information`: name → keys and options"""


def serving(index: Index, information: Information) -> str | None:
    """The name of an index that serves for `index`; None if there is none."""
    for name, found in _same_keys(index, information):
        if _obstacle(index, found) is None:
            return name
    return None


def missing_indexes(information: Information, indexes: Iterable[Index] = INDEXES) -> list[Index]:
    return [index for index in indexes if serving(index, information) is None]


def conflict(index: Index, information: Information, *, alone: bool = False) -> str | None:
    """The existing index that keeps `index` from being made, in words; None if there is none.

    `alone`: the server has one index of the same keys at most, as before version 5.0.
    """
    for name, found in _same_keys(index, information):
        obstacle = _obstacle(index, found)
        if obstacle is not None and (alone or _kind(found) == _kind(_options(index))):
            return f"the index {name} has the same keys, but {obstacle}"
    return None


def is_kept_unique(index: Index, information: Information) -> bool:
    """Where no index serves: true if one keeps documents from having the same value all the same.

    One that would serve does not count: it is being built, by somebody else, and may fail.
    """
    return any(
        found.get("unique") and not found.get("partialFilterExpression") and _obstacle(index, found)
        for _, found in _same_keys(index, information)
    )


def consequence(index: Index, information: Information) -> str:
    """How things are without `index`, in words."""
    return index.doubtful if index.unique and not is_kept_unique(index, information) else index.without


def label(collection: Any, index: Index) -> str:
    """An index's name for people."""
    return f"{collection.name} ({index.fields})"


def make_indexes(collection: Any, indexes: Iterable[Index] = INDEXES) -> list[str]:
    """Make the missing indexes, each for itself. Gives the reasons of those that could not be made.

    Raises PyMongoError when the server cannot be asked.
    """
    try:
        information = collection.index_information()
    except OperationFailure as error:
        return [f"{collection.name}: code {error.code}"]
    troubles = []
    for index in indexes:
        name = serving(index, information)
        if name is None:
            # An index that does not serve may have the name.
            name = _own_name(index) if index.name in information else index.name
        elif not index.unique:
            continue
        # MongoDB also lists an index that is being built, which keeps no documents apart yet, and may fail.
        # Making it again waits for that.
        try:
            collection.create_index(index.keys, name=name, **_options(index))
        except OperationFailure as error:
            why = _why(error, index, information)
            troubles.append(f"{label(collection, index)}: {why}; {consequence(index, information)}")
    return troubles


def _own_name(index: Index) -> str:
    return f"imd_{index.name}"


def _why(error: OperationFailure, index: Index, information: Information) -> str:
    """Why an index could not be made, in words, without any of the documents."""
    if error.code == _DUPLICATE_KEY:
        return "documents have the same value"
    return conflict(index, information, alone=error.code in _CONFLICTS) or f"code {error.code}"


def _same_keys(index: Index, information: Information) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, found) for name, found in information.items() if list(found["key"]) == index.keys]


def _options(index: Index) -> dict[str, Any]:
    """The options that the index is made with, but for its name."""
    options: dict[str, Any] = {}
    if index.only is not None:
        options["partialFilterExpression"] = {index.only: index.being}
    if index.sparse:
        options["sparse"] = True
    if index.expires is not None:
        options["expireAfterSeconds"] = index.expires
    if index.unique:
        options["unique"] = True
    return options


def _kind(options: Mapping[str, Any]) -> tuple[Any, ...]:
    """The options in which indexes of the same keys have to differ to be beside each other."""
    switches = bool(options.get("unique")), bool(options.get("sparse")), bool(options.get("collation"))
    return *switches, _filter(options)


def _filter(options: Mapping[str, Any]) -> Any:
    """The conditions of a partial index, in one form, so that they can be compared; none for a full one."""
    conditions = []
    for field, being in (options.get("partialFilterExpression") or {}).items():
        if isinstance(being, Mapping) and list(being) == ["$eq"]:
            being = being["$eq"]
        # To Python, not to MongoDB, false is 0.
        conditions.append((field, isinstance(being, bool), being))
    return conditions


def _obstacle(index: Index, found: Mapping[str, Any]) -> str | None:
    """In words, why an index of the same keys does not serve; None if it does."""
    if index.unique and not found.get("unique"):
        return "not unique"
    expires = found.get("expireAfterSeconds")
    if expires != index.expires:
        if index.expires is None:
            return "expireAfterSeconds"
        return "no expireAfterSeconds" if expires is None else f"expireAfterSeconds = {expires}"
    for option, value in found.items():
        if option in _HARMLESS or not value or (option == "sparse" and index.sparse):
            continue
        # A partial index serves only for the same part. An index of all documents serves for any part.
        if option == "partialFilterExpression" and _filter(found) == _filter(_options(index)):
            continue
        return option
    return None
