"""The users of a crowd for whom the bench's own process has no open files left: they watch, and stay.

    python -m tests.tools.bench.presence_rest FIRST USERS WATCHED URL...

It reads a word a line: `look`, to watch others; `told`, to say of how many users it was told. Each has an
answer, and so has the start. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence

from tests.tools.bench.clients import Watch
from tests.tools.bench.machine import raise_open_files
from tests.tools.bench.watchers import each, named, watching

ANSWER_SECONDS = 900


class Rest:
    """The process that has them."""

    def __init__(self, first: int, users: int, watched: int, urls: Sequence[str]) -> None:
        self._words = [str(word) for word in (first, users, watched, *urls)]
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
    first, count, watched = (int(word) for word in words[:3])
    urls = words[3:]
    raise_open_files(count - first + 100)
    names, chance, watch = named(count), random.Random(2), Watch()
    users = watching(watch, names[first:], names, watched, chance)
    await each(users, lambda user: user.open(chance.choice(urls)))
    print(len(users), flush=True)
    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if word == "look":
            await each(users, lambda user: user.look())
        print(sum(user.told for user in users), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
