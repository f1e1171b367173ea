"""Reads that are exact, whichever server was voted out meanwhile. Blocks its thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

# Codes by which a server says that it is alone: only members of a replica set know linearizable reads.
_ALONE = frozenset({20, 72, 76, 123})


class ExactReads:
    """Linearizable reads of a collection; on a server without a replica set, any of its reads is exact."""

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
