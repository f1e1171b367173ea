"""Collections that a majority vouches for, and reads that are exact. Blocks its thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo import ReadPreference
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

# Codes by which a server says that it is alone: only members of a replica set know linearizable reads.
_ALONE = frozenset({20, 72, 76, 123})


def majority(database: Any, name: str) -> Any:
    """A collection whose writes are confirmed, and whose reads are given, as a majority has them."""
    return database.get_collection(
        name,
        write_concern=WriteConcern(w="majority", j=True),
        read_concern=ReadConcern("majority"),
        read_preference=ReadPreference.PRIMARY,
    )


class ExactReads:
    """Linearizable reads of a collection, exact whichever server was voted out meanwhile.

    On a server without a replica set any of its reads is exact.
    """

    def __init__(self, collection: Any) -> None:
        self._plain = collection
        self._exact = collection.with_options(read_concern=ReadConcern("linearizable"))

    def do(self, read: Callable[[Any], Any]) -> Any:
        """The result of `read`, which gets the collection."""
        try:
            return read(self._exact)
        except OperationFailure as error:
            if error.code not in _ALONE:
                raise
            self._exact = self._plain
            return read(self._exact)
