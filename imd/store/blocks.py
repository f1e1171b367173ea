"""Blocked users of a cluster: lists in MongoDB, and copies in Redis, which are brought up to date with them.

Redis that has lost its memory, or has gone back to an older state, is another run, in which no entry counts
until its list was brought again. One node does that for all lists; until then messages are let in, as a store
in trouble must not stop chat.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Collection, Sequence
from typing import Any

from prometheus_client import Counter, Gauge
from twisted.internet.defer import CancelledError, Deferred, DeferredList, ensureDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.level import FIRST, NEWEST
from imd.observe.seldom import Seldom
from imd.protocol.errors import Refused, Unavailable
from imd.store.in_time import in_time
from imd.store.mongo.archive import BLOCK_THREADS, MongoArchive
from imd.store.mongo.blocks import BlockDocuments, BlockList
from imd.store.mongo.in_threads import InThreads
from imd.store.redis.blocks import BlockCopies, Walked
from imd.store.redis.rooms import Seen

BROUGHT = Counter(
    "imd_blocks_brought_total", "Lists of blocked users that a node has brought to Redis.", ["why"]
)
NOT_LOADED = Gauge("imd_blocks_not_loaded", "1 while Redis may not know all lists of blocked users.")
LARGEST = Gauge("imd_blocks_largest", "Users in the longest list that this node has brought to Redis.")

ANSWER_SECONDS = 2.0
LOOK_SECONDS = 1.0
# Between two looks for lists that a dead node has changed, and how old these are at least.
SWEEP_SECONDS = 5.0
LEFT_AFTER_MS = 10_000
# A primary that was voted out may answer the first walk for some seconds. It has noticed before the second.
SECOND_WALK_MS = 30_000
WALKS = 2
LEASE_SECONDS = 30
PAGE = 100
MAX_ATTEMPTS = 5
# Reads of a list that are refused one after the other.
MAX_STALE = 5

_CHANGE, _LOAD, _SWEEP = (BROUGHT.labels(why) for why in ("change", "load", "sweep"))


class ClusterBlocks(InThreads[BlockDocuments]):
    """Implements imd.contracts.blocks.BlockStore."""

    log = Logger()

    def __init__(self, reactor: Any, archive: MongoArchive, copies: BlockCopies) -> None:
        super().__init__(archive, "blocks", BLOCK_THREADS, ANSWER_SECONDS, BlockDocuments)
        self._reactor = reactor
        self._copies = copies
        self._seldom = Seldom(self.log, reactor.seconds)
        self._owner = secrets.token_hex(8)
        self._level = NEWEST
        self._walked = Walked(0, 0, 0)
        """as far as this node knows"""
        self._next_look: Any = None
        self._looking: Deferred[None] | None = None
        self._swept_at = 0.0
        self._largest = 0

    # Backend

    def start(self) -> Deferred[None]:
        started = super().start()
        self._look_later()
        return started

    def stop(self) -> Deferred[None]:
        # First: a look that ends begins no other one then.
        stopped = super().stop()
        if self._next_look is not None and self._next_look.active():
            self._next_look.cancel()
        if self._looking is not None:
            self._looking.cancel()
        return stopped

    def set_level(self, level: int) -> None:
        """The cluster's level: at the first there are no lists."""
        self._level = level

    # BlockStore

    def block(self, user: str, other: str, on: bool) -> Deferred[bool | Refused]:
        return self._in_time(self._block(user, other, on))

    async def _block(self, user: str, other: str, on: bool) -> bool | Refused:
        for _ in range(MAX_ATTEMPTS):
            seen = self._copies.seen()
            attempt = await self._ask(BlockDocuments.attempt, user, other, on, seen.at)
            if isinstance(attempt, Refused):
                return attempt
            if attempt is not None:
                # Also an unchanged list: the node that changed it may have died before Redis knew.
                now = await self._bring(attempt.now, seen)
                _CHANGE.inc()
                if attempt.made:
                    # Nobody waits for this: a list that stays owed is brought once more.
                    self._ask(BlockDocuments.settle, now).addErrback(self._not_settled)
                return bool(attempt.made)
        raise Unavailable("blocks: the list is changed by others all the time")

    def of(self, user: str) -> Deferred[Sequence[str]]:
        return self._in_time(
            self._ask(BlockDocuments.read, user).addCallback(lambda found: sorted(found.users))
        )

    def among(self, user: str, others: Collection[str]) -> Deferred[set[str]]:
        return self._in_time(self._ask(BlockDocuments.among, user, others)) if others else succeed(set())

    def loaded(self) -> bool:
        return self._walked.run == self._copies.run or self._level == FIRST

    # from within

    async def _bring(self, known: BlockList, seen: Seen) -> BlockList:
        """Have Redis obey the list, which was read after `seen`. Gives the one that Redis obeys now."""
        for _ in range(MAX_STALE):
            self._largest = max(self._largest, len(known.users))
            LARGEST.set(self._largest)
            if not await self._copies.bring(known.user, known.version, known.users, seen):
                return known
            seen = self._copies.seen()
            known = await self._ask(BlockDocuments.read, known.user)
        raise Unavailable("blocks: Redis changes from run to run")

    def _not_settled(self, failure: Failure) -> None:
        self._seldom.warn("a list of blocked users stays owed: {reason}", reason=failure.getErrorMessage())

    def _in_time(self, work: Any) -> Deferred[Any]:
        return in_time(self._reactor, ANSWER_SECONDS, work, "blocks", self._seldom)

    # looking after Redis, and after nodes that died

    def _look_later(self) -> None:
        # Nodes that start together do not look together.
        self._next_look = self._reactor.callLater(LOOK_SECONDS * random.uniform(0.5, 1.5), self._look)

    def _look(self) -> None:
        self._looking = ensureDeferred(self._look_after()) if self._level != FIRST else succeed(None)
        self._looking.addErrback(self._look_failed).addBoth(self._looked)

    def _look_failed(self, failure: Failure) -> None:
        if failure.check(Unavailable):
            self._seldom.warn("lists of blocked users: {reason}", reason=failure.getErrorMessage())
        elif failure.check(CancelledError) is None:
            self._seldom.failure("lists of blocked users could not be brought to Redis", failure)

    def _looked(self, _: None) -> None:
        self._looking = None
        NOT_LOADED.set(not self.loaded())
        if self.is_running:
            self._look_later()

    async def _look_after(self) -> None:
        if self._archive.problem() is not None:
            return
        run = self._copies.run
        if run and (self._walked.run, self._walked.times) != (run, WALKS):
            await self._load(run)
        if self._reactor.seconds() >= self._swept_at + SWEEP_SECONDS:
            self._swept_at = self._reactor.seconds()
            await self._sweep()

    async def _load(self, run: int) -> None:
        """See to it that Redis knows all lists in this run: twice, by one node."""
        walked = await self._copies.walked()
        self._walked = walked
        times = walked.times if walked.run == run else 0
        if times == WALKS or (times and self._copies.seen().at - walked.at < SECOND_WALK_MS):
            return
        if not await self._walk(run):
            return
        walked = Walked(run, times + 1, self._copies.seen().at)
        await self._copies.note(walked)
        self._walked = walked

    async def _walk(self, run: int) -> bool:
        """Bring all lists. False: another node does, or Redis is another run by now."""
        after = ""
        while True:
            if not await self._copies.take_lease(self._owner, LEASE_SECONDS):
                return False
            seen = self._copies.seen()
            page = await self._ask(BlockDocuments.page, after, PAGE)
            if not page:
                return self._copies.run == run
            brought = [self._copies.bring(one.user, one.version, one.users, seen) for one in page]
            outcomes = await DeferredList(brought, consumeErrors=True)
            if self._copies.run != run:
                return False
            for _, outcome in outcomes:
                if isinstance(outcome, Failure):
                    outcome.raiseException()
            _LOAD.inc(len(page))
            if any(stale for _, stale in outcomes):
                # Read too long ago: this page again.
                continue
            after = page[-1].user

    async def _sweep(self) -> None:
        """Bring the lists that a node has changed before it died."""
        for user in await self._ask(BlockDocuments.owed, self._copies.seen().at - LEFT_AFTER_MS):
            seen = self._copies.seen()
            known = await self._bring(await self._ask(BlockDocuments.read, user), seen)
            await self._ask(BlockDocuments.settle, known)
            _SWEEP.inc()
