"""A block is exact: nothing that begins after its answer passes between the two, until it is taken back.

Blocks race messages in both directions, from three nodes, while a loader stands still between reading and
putting and while Redis loses its memory. Each outcome is seen many times: a message that got in before the
block, one that was refused after it, one that got in after the block had ended. With the check or a fence
taken out, the race finds messages that should not be there.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

import imd.store.blocks as cluster
from imd.contracts.inbox import InboxOptions, NotAllowed, Outcome, Placed, PlacedPartly
from imd.protocol.errors import Refused, Unavailable
from imd.protocol.ids import MessageIds, ServerClock
from imd.store.blocks import ClusterBlocks
from imd.store.mongo.archive import MongoArchive
from imd.store.redis import connection
from imd.store.redis.blocks import BlockCopies
from imd.store.redis.inbox import RedisInbox
from tests.cluster.test_room_removal import Loader
from tests.contract.support import Writing, submission_of
from tests.support import block_loader, room_loader
from tests.support.servers import RedisServer, shared

PAIRS = 20
"""that are raced at a time"""
ENOUGH = 60
ROUNDS = 20
JITTER_SECONDS = 0.02


class Node(Writing):
    """The stores of one node."""

    def __init__(self, redis_url: str, mongo_url: str) -> None:
        self.clock = ServerClock()
        self.ids = MessageIds(self.clock)
        self.inbox = RedisInbox(reactor, redis_url, InboxOptions(), self.clock)
        self.archive = MongoArchive(reactor, mongo_url)
        self.blocks = ClusterBlocks(reactor, self.archive, BlockCopies(self.inbox.calls))

    async def start(self) -> None:
        await self.inbox.start()
        await self.archive.start()
        await self.blocks.start()

    async def stop(self) -> None:
        for part in (self.blocks, self.archive, self.inbox):
            await part.stop()

    async def block(self, user: str, other: str, on: bool) -> None:
        """Again until the stores say that it is done."""
        while True:
            try:
                outcome = await self.blocks.block(user, other, on)
            except Unavailable:
                await deferLater(reactor, 0.02)
                continue
            assert not isinstance(outcome, Refused), outcome
            return

    async def send(self, sender: str, to: str, msg: str, group: Sequence[str] = ()) -> Outcome:
        """Send a message as a client does: once more after `unavailable`."""
        while True:
            message = self.message(sender, "" if group else to, msg, group=list(group) or None)
            try:
                (outcome,) = await self.inbox.accept([submission_of(message)])
            except Unavailable:
                await deferLater(reactor, 0.02)
                continue
            return outcome


class BlockRaceTests(unittest.TestCase):
    """Each test is a situation."""

    timeout = 300

    async def begin(self, unfenced: Sequence[str] = ()) -> None:
        self.patch(cluster, "LOOK_SECONDS", 0.1)
        self.folder = Path(tempfile.mkdtemp(prefix="imd-block-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.server = RedisServer(self.folder, appendonly=False)
        self.addCleanup(deferToThread, self.server.kill)
        await deferToThread(self.server.start)
        self.patch(connection, "load_scripts", connection.load_scripts)
        if unfenced:
            self.patch(room_loader, "FENCES", block_loader.FENCES)
            room_loader.unfence(list(unfenced))
        mongo_url = shared().mongo_url()
        self.nodes = [Node(self.server.url, mongo_url) for _ in range(3)]
        for node in self.nodes:
            await node.start()
            self.addCleanup(node.stop)
        self.loader = Loader(self.server.url, mongo_url, unfenced, "tests.support.block_loader")
        self.addCleanup(self.loader.end)
        await self.loader.hear("ready")
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    # what happens to Redis

    async def forget(self) -> None:
        await self.nodes[0].inbox.command("FLUSHALL")

    # the race

    async def race(self, number: int, *, hung: bool = False, loss: bool = False) -> None:
        """Race PAIRS blocks. `hung`: a loader read before. `loss`: of Redis, meanwhile."""
        users = [f"alice{number}-{n}" for n in range(PAIRS)]
        if hung:
            for user in users:
                await self.nodes[0].block(user, "somebody", True)
            await self.loader.read(users)
        work = [ensureDeferred(self.race_one(user, f"eve-{user}")) for user in users]
        if loss:
            await deferLater(reactor, random.uniform(0, 2 * JITTER_SECONDS))
            await self.forget()
        if hung:
            await deferLater(reactor, random.uniform(0, 2 * JITTER_SECONDS))
            await self.loader.put()
        for ok, result in await DeferredList(work, consumeErrors=True):
            if not ok:
                result.raiseException()
        if loss:
            # Lists of answered blocks are loaded by then.
            await self.until_loaded()
        await DeferredList([ensureDeferred(self.after(user, f"eve-{user}")) for user in users])

    async def until_loaded(self) -> None:
        for node in self.nodes:
            while not node.blocks.loaded() or node.inbox.problem() is not None:
                await deferLater(reactor, 0.05)

    async def race_one(self, alice: str, eve: str) -> None:
        one, two, three = self.nodes
        talk = [ensureDeferred(self.talk(node, alice, eve)) for node in (two, three)]
        await deferLater(reactor, random.uniform(0, JITTER_SECONDS))
        await one.block(alice, eve, True)
        if not self.losing:
            await self.after(alice, eve)
        await DeferredList(talk, consumeErrors=True)

    losing = False

    async def talk(self, node: Node, alice: str, eve: str) -> None:
        """The two write to each other while one is blocked."""
        for _ in range(3):
            for sender, to in ((eve, alice), (alice, eve)):
                if isinstance(await node.send(sender, to, "during"), Placed):
                    self.outcomes["in before"] += 1
            await deferLater(reactor, random.uniform(0, JITTER_SECONDS / 2))

    async def after(self, alice: str, eve: str) -> None:
        """Everything that begins now begins after the answer."""
        for node in self.nodes:
            for sender, to in ((eve, alice), (alice, eve)):
                outcome = await node.send(sender, to, "after")
                if isinstance(outcome, NotAllowed):
                    self.outcomes["refused after"] += 1
                else:
                    self.wrong.append(f"{sender} to {to}: {outcome}")
                outcome = await node.send(sender, "", "after", (to, "bob"))
                if not isinstance(outcome, PlacedPartly) or list(outcome.without) != [to]:
                    self.wrong.append(f"{sender} to a list with {to}: {outcome}")

    async def end_blocks(self, number: int) -> None:
        """The blocks end, and messages pass."""
        for n in range(PAIRS):
            alice = f"alice{number}-{n}"
            await self.nodes[n % 3].block(alice, f"eve-{alice}", False)
            if type(await self.nodes[(n + 1) % 3].send(f"eve-{alice}", alice, "again")) is Placed:
                self.outcomes["in again"] += 1

    async def situation(self, **how: Any) -> None:
        """Race until each outcome was seen often enough. Nothing is wrong."""
        self.losing = how.get("loss", False)
        await self.begin()
        for number in range(ROUNDS):
            await self.race(number, **how)
            self.assertEqual(self.wrong, [])
            await self.end_blocks(number)
            self.assertEqual(self.outcomes["in again"], (number + 1) * PAIRS)
            if min(self.outcomes["in before"], self.outcomes["refused after"]) >= ENOUGH:
                return
        self.fail(f"not often enough: {self.outcomes}")

    async def broken(self, unfenced: Sequence[str], **how: Any) -> None:
        """The same race without the check, or a fence, finds what is wrong."""
        self.losing = how.get("loss", False)
        await self.begin(unfenced)
        for number in range(ROUNDS):
            await self.race(number, **how)
            if self.wrong:
                return
        self.fail(f"nothing is wrong without {unfenced}: {self.outcomes}")

    async def test_race(self) -> None:
        """All nodes and Redis are well."""
        await self.situation()

    async def test_hung_loader(self) -> None:
        """A loader has read the list before the block, and puts it after."""
        await self.situation(hung=True)

    async def test_lost_memory(self) -> None:
        """Redis loses its memory; a loader that read before puts what it read."""
        await self.situation(hung=True, loss=True)

    async def test_without_the_check(self) -> None:
        """Messages are placed whoever blocks whom."""
        await self.broken(["check"])

    async def test_without_versions(self) -> None:
        """A hung loader's older list replaces the present one."""
        await self.broken(["version"], hung=True)
