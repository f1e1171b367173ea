"""Where a user is at home: one rule for nodes and for HAProxy.

A user id falls into one of 1,024 slots: the CRC32 (zlib's) of its UTF-8 bytes, modulo 1,024. Each slot
ranks the nodes by rendezvous hashing: the score of a node is the SHA-256 of the text `SLOT:NAME` (the slot
in decimal), compared as bytes, and the greatest comes first. Scores depend on nothing else, so a node
that comes or goes moves its own slots only, and the second choice of a slot is its first as soon as the
first choice is gone.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import sha256
from heapq import nlargest
from urllib.parse import unquote_to_bytes

SLOTS = 1024
HINT = "user"
"""name of the parameter in a WebSocket's URL that holds the percent-encoded id"""

_MALFORMED = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# A visitor's name is drawn again until it falls to its node: so often, that 64 nodes leave 1 of 10,000 out.
_MAX_DRAWS = 600


def slot_of(user: str) -> int:
    """The slot of a user id, 0 to 1023."""
    return zlib.crc32(user.encode()) % SLOTS


@lru_cache(maxsize=64)
def _scores(name: str) -> tuple[bytes, ...]:
    """The score of a node in each slot."""
    return tuple(sha256(f"{slot}:{name}".encode()).digest() for slot in range(SLOTS))


class Slots:
    """The slots over a set of node names. `first[slot]` and `second[slot]` are names.

    Without nodes both are empty tuples; with one node alone `second` is.
    """

    __slots__ = ("first", "names", "second")

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        scored = [(_scores(name), name) for name in self.names]
        ranked = [
            nlargest(2, ((scores[slot], name) for scores, name in scored))
            for slot in range(SLOTS if scored else 0)
        ]
        self.first: tuple[str, ...] = tuple(choices[0][1] for choices in ranked)
        self.second: tuple[str, ...] = (
            tuple(choices[1][1] for choices in ranked) if len(self.names) > 1 else ()
        )

    def home(self, user: str) -> str | None:
        """The node that a user belongs to; None while there is no node."""
        return self.first[slot_of(user)] if self.first else None


def name_at_home(slots: Slots, node: str, draw: Callable[[], str]) -> str:
    """A drawn id whose home is `node`.

    A node without slots (it drains, or is not in the table yet) gets the first draw: no draw would do.
    """
    name = draw()
    if node in slots.names:
        for _ in range(_MAX_DRAWS):
            if slots.home(name) == node:
                break
            name = draw()
    return name


def hint_of(query: str) -> str | None:
    """The id that a URL's query hints at, read as HAProxy reads it; None if there is none that can be read.

    HAProxy takes the first `user` parameter, ends it at `&`, `;` or `?`, leaves `+` a plus, and hashes
    nothing whose encoding is malformed.
    """
    for part in re.split("[&;?]", query):
        name, equals, value = part.partition("=")
        if name == HINT and equals:
            return _decoded(value)
    return None


def _decoded(value: str) -> str | None:
    raw = value.encode("latin-1", "replace")
    if _MALFORMED.search(raw):
        return None
    try:
        return unquote_to_bytes(raw).decode() or None
    except UnicodeDecodeError:
        return None
