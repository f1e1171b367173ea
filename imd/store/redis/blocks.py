"""Lists of blocked users in Redis, by which messages are placed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from imd.store.redis.accept import encode_id
from imd.store.redis.rooms import Seen
from imd.store.redis.script_calls import BatchedScript, ScriptCalls

KNOWN = "imd:blocks"
LOADER = "imd:blocks:loader"
KNOWN_SECONDS = 7 * 86_400


class Walked(NamedTuple):
    """How often all lists have been brought in a run of Redis, and when that ended last, ms."""

    run: int
    times: int
    at: int


class BlockCopies:
    """Writes the lists, and notes that all of them are there."""

    def __init__(self, calls: ScriptCalls) -> None:
        self._calls = calls
        self._block = BatchedScript(calls, "block", bool)

    @property
    def run(self) -> int:
        """The run of Redis, as far as the node knows."""
        return self._calls.redis.run

    def seen(self) -> Seen:
        return Seen(self._calls.redis.run, self._calls.now_ms())

    def bring(self, user: str, version: int, users: Sequence[str], seen: Seen) -> Deferred[bool]:
        """Have Redis obey the user's list, unless it knows a newer one. `seen`: from before it was read.

        True if it was read in another run of Redis, or too long ago; nothing was done then.
        """
        return self._block(encode_id(user), seen.run, seen.at, version, [encode_id(one) for one in users])

    async def walked(self) -> Walked:
        """As the last loader has noted it. Fails with Unavailable."""
        found = await self._command("GET", KNOWN)
        try:
            run, times, at = map(int, (found or b"").split())
        except ValueError:
            return Walked(0, 0, 0)
        return Walked(run, times, at)

    async def note(self, walked: Walked) -> None:
        await self._command("SET", KNOWN, " ".join(map(str, walked)), "EX", KNOWN_SECONDS)

    async def take_lease(self, owner: str, seconds: int) -> bool:
        """Take, or keep, the right to load. False: another loads."""
        if await self._command("SET", LOADER, owner, "NX", "EX", seconds) is not None:
            return True
        if await self._command("GET", LOADER) != owner.encode():
            return False
        await self._command("EXPIRE", LOADER, seconds)
        return True

    def _command(self, *parts: bytes | str | int) -> Deferred[Any]:
        return self._calls.redis.general.command(*parts)
