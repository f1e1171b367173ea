"""A block is exact: nothing that begins after its answer passes between the two, until it is taken back.

Blocks race messages in both directions, from three nodes, while a loader stands still between reading and
putting and while Redis loses its memory. Each outcome is seen many times: a message that got in before the
block, one that was refused after it, one that got in after the block had ended. With the check or a fence
taken out, the race finds messages that should not be there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from twisted.internet import reactor
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.internet.task import deferLater

import imd.store.blocks as cluster
from imd.contracts.inbox import Late, NotAllowed, Outcome, Placed, PlacedPartly
from imd.protocol.errors import Refused, Unavailable
from imd.store.blocks import ClusterBlocks
from imd.store.redis.blocks import BlockCopies
from tests.cluster.races import Races, Stores
from tests.contract.support import Writing, submission_of
from tests.support import block_loader
from tests.support.hung_loader import again

PAIRS = 20
"""that are raced at a time"""
JITTER_SECONDS = 0.02


class Node(Stores, Writing):
    """The stores of one node."""

    def __init__(self, redis_url: str, mongo_url: str) -> None:
        super().__init__(redis_url, mongo_url)
        self.raced = self.blocks = ClusterBlocks(reactor, self.archive, BlockCopies(self.inbox.calls))

    async def block(self, user: str, other: str, on: bool) -> None:
        """Again until the stores say that it is done."""
        outcome = await again(lambda: self.blocks.block(user, other, on))
        assert not isinstance(outcome, Refused), outcome

    async def send(self, sender: str, to: str, msg: str, group: Sequence[str] = ()) -> Outcome:
        """Send a message as a client does: once more after `unavailable`."""

        async def attempt() -> Outcome:
            message = self.message(sender, "" if group else to, msg, group=list(group) or None)
            (outcome,) = await self.inbox.accept([submission_of(message)])
            if isinstance(outcome, Late):
                raise Unavailable("not placed in time")
            return outcome

        outcome: Outcome = await again(attempt)
        return outcome


class BlockRaceTests(Races):
    """Each test is a situation."""

    timeout = 600
    enough = 60
    rounds = 20
    loader_module = block_loader
    stores = Node
    losing = False

    async def begin(self, unfenced: Sequence[str] = ()) -> None:
        self.patch(cluster, "LOOK_SECONDS", 0.1)
        await super().begin(unfenced)

    # the race

    async def race(self, number: int, *, hung: bool = False, loss: bool = False) -> None:
        """Race PAIRS blocks. `hung`: a loader read before. `loss`: of Redis, meanwhile."""
        self.losing = loss
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
        await self.done(work)
        if loss:
            # Lists of answered blocks are loaded by then.
            await self.until_loaded()
        await self.done([ensureDeferred(self.after(user, f"eve-{user}")) for user in users])

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

    async def end_round(self, number: int) -> None:
        """The blocks end, and messages pass."""
        for n in range(PAIRS):
            alice = f"alice{number}-{n}"
            await self.nodes[n % 3].block(alice, f"eve-{alice}", False)
            if type(await self.nodes[(n + 1) % 3].send(f"eve-{alice}", alice, "again")) is Placed:
                self.outcomes["in again"] += 1
        self.assertEqual(self.outcomes["in again"], (number + 1) * PAIRS)

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
