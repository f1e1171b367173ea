"""A process that brings documents to Redis, and hangs between reading and bringing them; and its driver.

A module that calls `run` is such a process: `python -m MODULE REDIS_URL MONGO_URL [FENCE...]`. Each line of
its input is a list of names. It reads their documents, says `read` and stops itself with SIGSTOP. When it is
continued, it brings them and says `put`. The fences that are named are taken out of its scripts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet import reactor
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread

from imd.contracts.inbox import InboxOptions
from imd.protocol.errors import Unavailable
from imd.protocol.ids import ServerClock
from imd.store.mongo.archive import MongoArchive
from imd.store.redis import connection
from imd.store.redis.inbox import RedisInbox
from imd.store.redis.rooms import Seen
from imd.store.redis.script_calls import ScriptCalls
from imd.store.redis.scripts import load_scripts
from tests.support.paths import ROOT

Fences = Mapping[str, tuple[str, str]]
"""name → a text in the scripts, and the one that it is replaced by to see it missed"""


class Loading(NamedTuple):
    """How a kind of documents is loaded. `read` runs in a thread."""

    seen: Callable[[], Seen]
    read: Callable[[str], Any]
    bring: Callable[[Any, Seen], Awaitable[Any]]


def unfence(fences: Fences, names: Sequence[str]) -> None:
    """Take these fences out of this process' scripts. Call before the first connection is made."""

    def without() -> dict[str, bytes]:
        scripts = {name: text.decode() for name, text in load_scripts().items()}
        for name in names:
            fence, hole = fences[name]
            if not any(fence in text for text in scripts.values()):
                raise ValueError(f"no script has the fence {name}")
            scripts = {script: text.replace(fence, hole) for script, text in scripts.items()}
        return {script: text.encode() for script, text in scripts.items()}

    connection.load_scripts = without


async def again(work: Callable[[], Awaitable[Any]]) -> Any:
    """Do it until the stores answer: a connection may have been lost."""
    while True:
        try:
            return await work()
        except Unavailable:
            await deferLater(reactor, 0.02)


# the process


def run(fences: Fences, prepare: Callable[[ScriptCalls, Any], Loading]) -> None:
    """Be the process, with the arguments of the command line. `prepare` gets MongoDB's database, too."""
    unfence(fences, sys.argv[3:])
    react(partial(_load, prepare), sys.argv[1:3])


async def _load(
    prepare: Callable[[ScriptCalls, Any], Loading], _: Any, redis_url: str, mongo_url: str
) -> None:
    archive = MongoArchive(reactor, mongo_url)
    inbox = RedisInbox(reactor, redis_url, InboxOptions(), ServerClock())
    await inbox.start()
    await archive.start()
    loading = prepare(inbox.calls, archive._collection.database)
    print("ready", flush=True)
    while line := await deferToThread(sys.stdin.readline):
        found = []
        await again(inbox.probe)
        for name in json.loads(line):
            seen = loading.seen()
            found.append((await deferToThread(loading.read, name), seen))
        print("read", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        for document, seen in found:
            await again(partial(loading.bring, document, seen))
        print("put", flush=True)


# its driver


class Loader:
    """The process, from outside."""

    def __init__(self, module: str, redis_url: str, mongo_url: str, unfenced: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, redis_url, mongo_url, *unfenced],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    async def hear(self, word: str) -> None:
        assert self._process.stdout is not None
        line: str = await deferToThread(self._process.stdout.readline)
        if line != f"{word}\n":
            raise AssertionError(f"{word} was expected of the loader, not {line!r}")

    async def read(self, names: Sequence[str]) -> None:
        """Have it read these documents; it then stands still."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(names)) + "\n")
        self._process.stdin.flush()
        await self.hear("read")
        while not self._stands_still():
            await deferLater(reactor, 0.002)

    def _stands_still(self) -> bool:
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    async def put(self) -> None:
        """Let it go on, until it has brought them."""
        os.kill(self._process.pid, signal.SIGCONT)
        await self.hear("put")

    def end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.kill()
        self._process.wait()
