"""The cluster's level in Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from imd.contracts.level import NO_WORD
from imd.protocol.errors import Unavailable

LEVEL_KEY = "imd:level"
# Nodes write these while they start, before they know the level.
_OF_A_START = {
    b"imd:level",
    b"imd:run",
    b"imd:run:ids",
    b"imd:nodes",
    b"imd:nodes:wishes",
    b"imd:blocks",
    b"imd:blocks:loader",
}
# Nodes of 0.1 have the first of these at all times, and the second since their last message.
_OF_OLD_NODES = ("imd:era", "imd:sent")
_KEYS_PER_SCAN = 1000


def parse_word(found: bytes | None) -> int:
    """The level that Redis holds, or NO_WORD. Raises ValueError for anything else."""
    if found is None:
        return NO_WORD
    if not (found.isascii() and found.isdigit() and len(found) < 5 and int(found)):
        raise ValueError(f"{LEVEL_KEY} holds no level")
    return int(found)


class RedisLevel:
    """Implements imd.contracts.level.LevelStore."""

    def __init__(self, command: Callable[..., Deferred[Any]]) -> None:
        """`command` runs a command of Redis, and fails with Unavailable."""
        self._command = command

    def read(self) -> Deferred[int]:
        return self._command("GET", LEVEL_KEY).addCallback(_word)

    def begin(self, level: int) -> Deferred[int]:
        written = self._command("SET", LEVEL_KEY, level, "NX", "GET")
        return written.addCallback(lambda before: _word(before) or level)

    def is_empty(self) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._is_empty())

    async def _is_empty(self) -> bool:
        """Look at all keys, until one is imd's. A user without the right to SCAN finds only nodes of 0.1."""
        cursor = b"0"
        while True:
            try:
                cursor, keys = await self._command("SCAN", cursor, "MATCH", "imd:*", "COUNT", _KEYS_PER_SCAN)
            except Unavailable as error:
                if "noperm" not in str(error):
                    raise
                return int(await self._command("EXISTS", *_OF_OLD_NODES)) == 0
            if not _OF_A_START.issuperset(keys):
                return False
            if cursor == b"0":
                return True


def _word(found: bytes | None) -> int:
    try:
        return parse_word(found)
    except ValueError as error:
        raise Unavailable(f"redis: {error}") from None
