"""The users of a crowd for whom the bench's own process has no open files left: they watch, and stay.

    python -m tests.tools.bench.presence_rest FIRST LAST USERS WATCHED URL...

It reads a word a line: `look`, to watch others; `told`, to say of how many users it was told. Each has an
answer, and so has the start. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence

from tests.tools.bench.clients import Client, Watch
from tests.tools.bench.machine import raise_open_files

AT_ONCE = 40
WATCH_SECONDS = 120
ANSWER_SECONDS = 900


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


def named(count: int) -> list[str]:
    return [f"u{number:05d}" for number in range(count)]


async def each(users: Iterable[Watcher], work: Callable[[Watcher], Awaitable[None]]) -> None:
    """Some at a time."""
    waiting = iter(users)

    async def one_after_the_other() -> None:
        for user in waiting:
            await work(user)

    await asyncio.gather(*[one_after_the_other() for _ in range(AT_ONCE)])


class Rest:
    """The process that has them."""

    def __init__(self, first: int, users: int, watched: int, urls: Sequence[str]) -> None:
        self._words = [str(word) for word in (first, users, users, watched, *urls)]
        self._process: asyncio.subprocess.Process | None = None

    async def log_in(self) -> None:
        pipe = asyncio.subprocess.PIPE
        module = "tests.tools.bench.presence_rest"
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *self._words, stdin=pipe, stdout=pipe
        )
        await self._answer()

    async def ask(self, word: str) -> int:
        """The answer. Raises TimeoutError, and ConnectionError when the process has ended."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        return await self._answer()

    async def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    async def _answer(self) -> int:
        assert self._process is not None and self._process.stdout is not None
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise ConnectionError("the process with the rest of the crowd has ended")
        return int(line)


async def main(words: Sequence[str]) -> None:
    first, last, count, watched = (int(word) for word in words[:4])
    urls = words[4:]
    raise_open_files(last - first + 100)
    names, chance, watch = named(count), random.Random(2), Watch()
    users = [
        Watcher(watch, name, chance.sample(names, min(watched, len(names)))) for name in names[first:last]
    ]
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    await each(users, lambda user: user.open(chance.choice(urls)))
    print(len(users), flush=True)
    while word := (await reader.readline()).strip():
        if word == b"look":
            await each(users, lambda user: user.look())
        print(sum(user.told for user in users), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
