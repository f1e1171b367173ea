"""A node that loads lists of blocked users, as a process that stops itself between reading and putting.

python -m tests.support.block_loader REDIS_URL MONGO_URL [FENCE...]

Each line of its input is a list of users. It reads their lists, says `read` and stops itself with SIGSTOP.
When it is continued, it brings the lists to Redis and says `put`, with the number of those that Redis
refused. The fences that are named are taken out of its scripts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from imd.contracts.inbox import InboxOptions
from imd.protocol.ids import ServerClock
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.blocks import BlockDocuments
from imd.store.redis.blocks import BlockCopies
from imd.store.redis.inbox import RedisInbox
from tests.support import room_loader
from tests.support.room_loader import again, say

FENCES = {
    # Messages are placed whoever blocks whom.
    "check": ("if blocked and not blocking.lets_pass(body) then", "if false then"),
    # An older list replaces a newer one.
    "version": ("held_run == run_text and tonumber(held) >= version", "false"),
}


async def main(_: Any, redis_url: str, mongo_url: str) -> None:
    archive = MongoArchive(reactor, mongo_url)
    inbox = RedisInbox(reactor, redis_url, InboxOptions(), ServerClock())
    await inbox.start()
    await archive.start()
    copies = BlockCopies(inbox.calls)
    documents = BlockDocuments(archive._collection.database)
    say("ready")
    while line := await deferToThread(sys.stdin.readline):
        read = []
        await again(inbox.probe)
        for user in json.loads(line):
            seen = copies.seen()
            read.append((await deferToThread(documents.read, user), seen))
        say("read")
        os.kill(os.getpid(), signal.SIGSTOP)
        refused = 0
        for known, seen in read:
            refused += await again(partial(copies.bring, known.user, known.version, known.users, seen))
        say(f"put {refused}")


if __name__ == "__main__":
    room_loader.FENCES = FENCES
    room_loader.unfence(sys.argv[3:])
    react(main, sys.argv[1:3])
