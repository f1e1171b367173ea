"""Races between three nodes, a loader that hangs and a Redis that loses its memory.

Each outcome has to be seen often enough, and nothing that is wrong. With a fence taken out of the scripts,
the same race finds something wrong.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.contracts.inbox import InboxOptions
from imd.protocol.ids import MessageIds, ServerClock
from imd.store.mongo.archive import MongoArchive
from imd.store.redis import connection
from imd.store.redis.inbox import RedisInbox
from tests.support.hung_loader import Loader, unfence
from tests.support.servers import RedisServer, shared


class Stores:
    """The stores of one node."""

    raced: Any
    """the one that is raced, which a subclass makes"""

    def __init__(self, redis_url: str, mongo_url: str) -> None:
        self.clock = ServerClock()
        self.ids = MessageIds(self.clock)
        self.inbox = RedisInbox(reactor, redis_url, InboxOptions(), self.clock)
        self.archive = MongoArchive(reactor, mongo_url)

    async def start(self) -> None:
        for part in (self.inbox, self.archive, self.raced):
            await part.start()

    async def stop(self) -> None:
        for part in (self.raced, self.archive, self.inbox):
            await part.stop()


class Races(unittest.TestCase):
    """Each test is a situation."""

    enough: ClassVar[int]
    """how often each outcome has to be seen"""
    rounds: ClassVar[int]
    """that are raced at the most"""
    loader_module: ClassVar[ModuleType]
    """has the fences, too"""

    def stores(self, redis_url: str, mongo_url: str) -> Any:
        """The stores of a node."""
        raise NotImplementedError

    async def race(self, number: int, **how: Any) -> None:
        """A round: count outcomes, and note in `wrong` the ones that should not be."""
        raise NotImplementedError

    async def end_round(self, number: int) -> None:
        """After a round in which nothing is wrong."""

    async def begin(self, unfenced: Sequence[str] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="imd-race-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.server = RedisServer(self.folder, appendonly=False)
        self.addCleanup(deferToThread, self.server.kill)
        await deferToThread(self.server.start)
        self.patch(connection, "load_scripts", connection.load_scripts)
        if unfenced:
            unfence(self.loader_module.FENCES, unfenced)
        mongo_url = shared().mongo_url()
        self.nodes = [self.stores(self.server.url, mongo_url) for _ in range(3)]
        for node in self.nodes:
            await node.start()
            self.addCleanup(node.stop)
        self.loader = Loader(self.loader_module.__name__, self.server.url, mongo_url, unfenced)
        self.addCleanup(self.loader.end)
        await self.loader.hear("ready")
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def forget(self) -> None:
        """Redis loses its memory."""
        await self.nodes[0].inbox.command("FLUSHALL")

    async def done(self, under_way: Sequence[Deferred[Any]]) -> None:
        """Wait for all of it. Fails as the first that failed."""
        for ok, result in await DeferredList(under_way, consumeErrors=True):
            if not ok:
                result.raiseException()

    async def situation(self, **how: Any) -> None:
        """Race until each outcome was seen often enough. Nothing is wrong."""
        await self.begin()
        for number in range(self.rounds):
            await self.race(number, **how)
            self.assertEqual(self.wrong, [])
            await self.end_round(number)
            if min(self.outcomes["in before"], self.outcomes["refused after"]) >= self.enough:
                return
        self.fail(f"not often enough: {self.outcomes}")

    async def broken(self, unfenced: Sequence[str], **how: Any) -> None:
        """The same race without a fence finds something wrong."""
        await self.begin(unfenced)
        for number in range(self.rounds):
            await self.race(number, **how)
            if self.wrong:
                return
        self.fail(f"nothing is wrong without the fence {unfenced}: {self.outcomes}")
