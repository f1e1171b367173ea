"""A node that loads rooms, as a process of its own that stops itself between reading a room and putting it.

python -m tests.support.room_loader REDIS_URL MONGO_URL [FENCE...]

Each line of its input is a list of room ids. It reads their documents, says `read` and stops itself with
SIGSTOP. When it is continued, it puts the copies and says `put`, with the number of those that Redis refused.
The fences that are named are taken out of its scripts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread

from imd.contracts.inbox import InboxOptions
from imd.protocol.errors import Unavailable
from imd.protocol.ids import ServerClock
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.rooms import RoomDocuments
from imd.store.redis.inbox import RedisInbox
from imd.store.redis.rooms import RoomCopies
from imd.store.redis.scripts import load_scripts

FENCES = {
    # A document that was read under another run is taken.
    "run": ("format('%.0f', read_in) == run_text", "true"),
    # An older document replaces a newer copy.
    "version": ("version > tonumber(copy[2] or '0')", "true"),
    # A copy of another run counts.
    "copy": ("found[1] ~= run_text or not found[3]", "not found[3]"),
}


def unfence(names: list[str]) -> None:
    """Take these fences out of this process' scripts. Call before the first connection is made."""
    import imd.store.redis.connection as connection

    def without() -> dict[str, bytes]:
        scripts = {name: text.decode() for name, text in load_scripts().items()}
        for name in names:
            fence, hole = FENCES[name]
            if not any(fence in text for text in scripts.values()):
                raise ValueError(f"no script has the fence {name}")
            scripts = {script: text.replace(fence, hole) for script, text in scripts.items()}
        return {script: text.encode() for script, text in scripts.items()}

    connection.load_scripts = without


async def main(_: Any, redis_url: str, mongo_url: str) -> None:
    archive = MongoArchive(reactor, mongo_url)
    inbox = RedisInbox(reactor, redis_url, InboxOptions(), ServerClock())
    await inbox.start()
    await archive.start()
    copies = RoomCopies(inbox.calls)
    database = archive._collection.database
    documents = RoomDocuments(database)
    say("ready")
    while line := await deferToThread(sys.stdin.readline):
        read = []
        await again(inbox.probe)
        for room in json.loads(line):
            seen = copies.seen()
            read.append((await deferToThread(documents.read, room), seen))
        say("read")
        os.kill(os.getpid(), signal.SIGSTOP)
        refused = 0
        while read:
            document, seen = read.pop()
            brought = await again(partial(copies.bring, document.room, document.outbox, seen))
            refused += brought.stale
        say(f"put {refused}")


async def again(work: Callable[[], Awaitable[Any]]) -> Any:
    """Do it until Redis answers: the connection may have been lost."""
    while True:
        try:
            return await work()
        except Unavailable:
            await deferLater(reactor, 0.02)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    unfence(sys.argv[3:])
    react(main, sys.argv[1:3])
