"""The collection `im_cluster`: single documents about the whole cluster. Blocks."""

from __future__ import annotations

from typing import Any

from pymongo import ReadPreference
from pymongo.read_concern import ReadConcern

CLUSTER = "im_cluster"


def cluster_of(archive: Any) -> Any:
    """The collection beside an archive's, with its write concern, read as a majority has it."""
    return archive.database.get_collection(
        CLUSTER,
        write_concern=archive.write_concern,
        read_concern=ReadConcern("majority"),
        read_preference=ReadPreference.PRIMARY,
    )
