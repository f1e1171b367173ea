"""Messages to lists in the index of participants: the newest of those written together covers the others.

A message to 500 users has 500 entries in that index, which cost more than the rest of its write. Under load
many messages to the same list go into one write. The newest of them gets the field `covers`, the id of the
oldest, and the index holds only documents with that field. No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

from imd.store.mongo.document import Document, covering

# A message covers none that is older by more: a page that begins between the two has to find the cover.
COVERED_MS = 10_000


def cover_lists(documents: Sequence[Document]) -> dict[str, str]:
    """Put `covers` into messages to lists that cover others or themselves; gives their ids → oldest id."""
    lists: dict[str, list[str]] = {}
    for document in documents:
        if document.list_id:
            lists.setdefault(document.list_id, []).append(document.message_id)
    covered: dict[str, str] = {}
    for message_ids in lists.values():
        newest = ""
        for message_id in sorted(message_ids, reverse=True):
            if not newest or not _is_near(newest, message_id):
                newest = message_id
            covered[newest] = message_id
    if covered:
        for document in documents:
            if oldest := covered.get(document.message_id):
                document.encoded = covering(document.encoded, oldest)
    return covered


def covered_by(bad: Document, documents: Sequence[Document], covered: dict[str, str]) -> list[str]:
    """The ids of the messages that `bad`, which could not be written, was to cover."""
    oldest = covered.get(bad.message_id, bad.message_id)
    return [
        document.message_id
        for document in documents
        if document.list_id == bad.list_id and oldest <= document.message_id < bad.message_id
    ]


def made_ms(message_id: str) -> int | None:
    """When an id was made, in ms since the epoch. For an id's beginning: when the first such id was made.

    None for a text that is no node's id.
    """
    try:
        return int(f"{message_id[:12]:0<12}", 16)
    except ValueError:
        return None


def _is_near(newest: str, message_id: str) -> bool:
    newest_ms, older_ms = made_ms(newest), made_ms(message_id)
    return newest_ms is not None and older_ms is not None and newest_ms - older_ms <= COVERED_MS
