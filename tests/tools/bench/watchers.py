"""Users who watch others, by the many."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence

from tests.tools.bench.clients import Client, Watch

AT_ONCE = 40
WATCH_SECONDS = 120


class Watcher(Client):
    """Watches some users, and counts those that it is told of."""

    read_bytes = 1024

    def __init__(self, watch: Watch, user: str, others: list[str]) -> None:
        super().__init__(watch, user)
        self.others = others
        self.told = 0
        """users in frames that no question asked for"""
        self.is_watching = False

    async def look(self) -> None:
        """Watch them, and wait until all of them are known. Raises Wrong."""
        self.send({"type": "watch", "ref": "w", "users": self.others})
        await self.watch.until(lambda: self.is_watching, WATCH_SECONDS, lambda: f"{self.user} watches")

    def arrived(self, payload: bytes) -> None:
        if payload.startswith(b'{"type":"presence"'):
            if b'"ref":"w"' in payload:
                self.is_watching = True
            else:
                self.told += payload.count(b'"userId"')
        else:
            super().arrived(payload)


def watching(
    watch: Watch, names: Sequence[str], of: Sequence[str], watched: int, chance: random.Random
) -> list[Watcher]:
    """Users with these names, each of whom watches so many of all at random."""
    return [Watcher(watch, name, chance.sample(of, min(watched, len(of)))) for name in names]


def named(count: int) -> list[str]:
    return [f"u{number:05d}" for number in range(count)]


async def each(users: Iterable[Watcher], work: Callable[[Watcher], Awaitable[None]]) -> None:
    """Some at a time."""
    waiting = iter(users)

    async def one_after_the_other() -> None:
        for user in waiting:
            await work(user)

    await asyncio.gather(*[one_after_the_other() for _ in range(AT_ONCE)])
