"""Makes Redis inboxes for tests: each test has an empty Redis that it may harm."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial import unittest

from imd.backends.redis_connection import RedisConnection
from imd.backends.redis_inbox import RedisInbox
from imd.ids import ServerClock
from imd.interfaces import InboxOptions
from tests.contract.support import InboxHarness
from tests.servers import RedisServer


@cache
def redis_server() -> RedisServer:
    """A server that may be harmed, ended with the test process."""
    folder = Path(tempfile.mkdtemp(prefix="imd-redis-"))
    server = RedisServer(folder)
    server.start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    return server


class RedisHarness(InboxHarness, unittest.TestCase):
    """`redis` is a connection of the test's own, to look at keys and to break things."""

    async def setUp(self) -> None:
        self.server = redis_server()
        self.redis = RedisConnection(reactor, self.server.url, "test", 5)
        self.addCleanup(self.redis.stop)
        await self.redis.start()
        await self.redis.command("FLUSHALL")

    async def make_inbox(self, options: InboxOptions, *, lossless: bool = False) -> RedisInbox:
        inbox = RedisInbox(reactor, self.server.url, options, ServerClock(), lossless=lossless)
        self.addCleanup(inbox.stop)
        await inbox.start()
        return inbox

    async def advance(self, seconds: float) -> None:
        # Redis' own time is the clock: it really has to go by.
        await deferLater(reactor, seconds)
